/** The project's own sources and what they import, for tests that hold the code to its rules. */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface Import {
  /** Path from the root for our own files, else the name as written. */
  readonly target: string;
  readonly own: boolean;
  /** Gone at run time. */
  readonly typeOnly: boolean;
}

export interface Source {
  /** From the root, with slashes. */
  readonly path: string;
  readonly text: string;
  readonly imports: readonly Import[];
}

const STATEMENT = /^\s*(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?'([^']+)'/gm;
const DYNAMIC = /\bimport\(\s*'([^']+)'\s*\)(\s*\.[A-Z])?/g;

/** Every .ts file below the folders. */
export function sources(...folders: readonly string[]): Source[] {
  return folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => read(join(folder, file)))
      .sort((a, b) => (a.path < b.path ? -1 : 1)),
  );
}

function read(path: string): Source {
  const text = readFileSync(join(ROOT, path), 'utf8');
  const code = withoutComments(text);
  const found = [
    ...[...code.matchAll(STATEMENT)].map((m) => ({ name: m[2] ?? '', typeOnly: m[1] !== undefined })),
    // import('…').Name is a type.
    ...[...code.matchAll(DYNAMIC)].map((m) => ({ name: m[1] ?? '', typeOnly: m[2] !== undefined })),
  ];
  return { path, text, imports: found.map(({ name, typeOnly }) => ({ ...resolve(path, name), typeOnly })) };
}

function resolve(from: string, name: string): Pick<Import, 'target' | 'own'> {
  if (!name.startsWith('.')) return { target: name, own: false };
  return { target: relative('.', normalize(join(dirname(from), name))), own: true };
}

/** Good enough for what the rules look for: a "//" after a quote is left alone. */
export const withoutComments = (text: string): string =>
  text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/^([^'"`\n]*?)\/\/.*$/gm, '$1');
