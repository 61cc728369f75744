/** The documents say what the files say: quoted flows, links, and who may be named in them. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const read = (file: string): string => readFileSync(join(ROOT, file), 'utf8');
const pages = [
  'README.md',
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md'))
    .map((file) => join('docs', file)),
];

it('docs/pipeline.md quotes the golden dump as it is', () => {
  const golden = read('test/golden/flows/two-networks.flows').split('\n');
  const quoted = [...read('docs/pipeline.md').matchAll(/^ ?(\d+) {2}(cookie=.*)$/gm)];
  expect(quoted.length).toBeGreaterThan(10);
  for (const [, number, flow] of quoted) expect(flow, `line ${number}`).toBe(golden[Number(number) - 1]);
});

it.each(['ipv6', 'multicast'])('docs/%s.md quotes the golden dump as it is', (page) => {
  const golden = new Set(read(`test/golden/flows/${page}.flows`).split('\n'));
  const quoted = [...read(`docs/${page}.md`).matchAll(/^cookie=.*$/gm)];
  expect(quoted.length).toBeGreaterThan(3);
  for (const [flow] of quoted) expect(golden).toContain(flow);
});

/** GitHub's anchor of a heading. */
const anchor = (heading: string): string =>
  heading
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');

describe.each(pages)('%s', (page) => {
  const text = read(page);
  it('has no dead link', () => {
    const prose = text.replaceAll(/^```[\s\S]*?^```/gm, '');
    for (const [, target = ''] of prose.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [file = '', heading] = target.split('#');
      const path = file === '' ? page : join(dirname(page), file);
      expect(existsSync(join(ROOT, path)), `${page} → ${target}`).toBe(true);
      if (heading === undefined || !path.endsWith('.md')) continue;
      const anchors = [...read(path).matchAll(/^#+ (.*)$/gm)].map(([, title = '']) => anchor(title));
      expect(anchors, `${page} → ${target}`).toContain(heading);
    }
  });

  it('names only files that are there', () => {
    for (const [, path = ''] of text.matchAll(/`((?:agent|cli|coordinator|deploy|lib|proto|scripts|test)\/[\w./-]+)`/g))
      expect(existsSync(join(ROOT, path)), `${page}: ${path}`).toBe(true);
  });
});
