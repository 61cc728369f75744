/** What gen/ was made of, kept in it: so that a build makes it anew when that has changed, and only then. */
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Hexadecimal SHA-256 of proto/*.proto, with their names, and of how code is made of them. */
const KEPT = 'gen/source.sha256';

/** True when gen/ is missing, or was made of something else than what is there now. */
export function genIsOld(root: string): boolean {
  const kept = join(root, KEPT);
  return !existsSync(kept) || readFileSync(kept, 'utf8') !== sourceOf(root);
}

/** After all of gen/ is made. */
export const keepGenSource = (root: string): void => writeFileSync(join(root, KEPT), sourceOf(root));

function sourceOf(root: string): string {
  const protos = readdirSync(join(root, 'proto'), { recursive: true, encoding: 'utf8' });
  const files = protos.filter((file) => file.endsWith('.proto')).map((file) => join('proto', file));
  const hash = createHash('sha256');
  for (const file of ['buf.gen.yaml', ...files.sort()]) {
    const content = readFileSync(join(root, file));
    hash.update(`${file} ${content.length}\n`).update(content);
  }
  return hash.digest('hex');
}
