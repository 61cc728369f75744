/** The five minutes of README.md, as one script on a lab of its own: what the page says that one sees is seen. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Result, run } from '../harness/lab.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const WEFT = join(ROOT, 'bin/weft');
const home = mkdtempSync(join(tmpdir(), 'weft-readme-'));
const env = { HOME: home, WEFT_LAB: `wr${process.pid}` };

const page = readFileSync(join(ROOT, 'README.md'), 'utf8');
const tour = page.split(/^## /m).find((part) => part.startsWith('Five minutes')) ?? '';
const commands = [...tour.matchAll(/^```sh\n([\s\S]*?)^```/gm)].flatMap(([, text = '']) => text.trim().split('\n'));
const shown = [...tour.matchAll(/^```text\n([\s\S]*?)^```/gm)].map(([, text = '']) => text);

beforeAll(async () => {
  const up = await run(WEFT, ['lab', 'up', '--hosts', '3'], { env, timeoutMs: 280_000 });
  expect(up.stderr).toContain('mesh');
  expect(up.code).toBe(0);
});
afterAll(async () => {
  await run(WEFT, ['lab', 'down'], { env });
  rmSync(home, { recursive: true, force: true });
});

/** Headers and names of a table; what varies (addresses of the underlay, ids, revisions) is left out. */
const skeleton = (text: string): string[] =>
  text
    .trim()
    .split('\n')
    .map((line) => (/^[A-Z ]+$/.test(line) ? line.replaceAll(/ +/g, ' ') : (/^\w+/.exec(line)?.[0] ?? '')))
    .map((line) => (/^[0-9a-f]{12}$/.test(line) ? '' : line));

it('goes as README.md says', async () => {
  expect(commands.length).toBeGreaterThan(20);
  // Each command is announced, so that its output can be told from the others'.
  const script = commands.map((line, i) => `echo '=== ${i}'; ${line}`).join('\n');
  const r: Result = await run('sh', ['-ec', `cd ${ROOT}\n${script}`], { env, timeoutMs: 240_000 });
  if (r.code !== 0) throw new Error(`exit ${r.code}\n${r.stdout}${r.stderr}`);
  const parts = r.stdout.split(/^=== \d+\n/m).slice(1);
  const output = (command: string | RegExp, nth = 0): string => {
    const found = commands.flatMap((line, i) => (line.match(command) ? [parts[i] ?? ''] : []));
    expect(found.length, String(command)).toBeGreaterThan(nth);
    return found[nth] ?? '';
  };
  const [status = '', endpoints = ''] = shown;
  expect(skeleton(output('weft status')).slice(-skeleton(status).length)).toEqual(skeleton(status));
  expect(skeleton(output('weft endpoint ls'))).toEqual(skeleton(endpoints));
  for (let i = 0; i < 3; i++) expect(output(/ping -c 3/, i)).toContain('3 received, 0% packet loss');
  expect(output('weft network ls')).toMatch(/db +409\d[\s\S]*web +409\d/);
  expect(output('weft network connect')).toMatch(/^h2\/two has 10\.128\.\d+\.\d+ on db\n$/);
  expect(output('weft events')).toMatch(/drift +h1 +flow .* healed /);
  for (let i = 0; i < 2; i++) expect(output('weft audit', i)).toBe('h1: clean\nh2: clean\nh3: clean\n');
});
