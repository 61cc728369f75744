/** docs/apply.md: its file can be applied, and what it says of outputs is what comes out. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { exported } from '../../../cli/apply/export.ts';
import { KEYS } from '../../../cli/apply/keys.ts';
import { type Actual, SECTIONS } from '../../../cli/apply/model.ts';
import { planText } from '../../../cli/apply/show.ts';
import { MAX_FILE } from '../../../cli/apply/source.ts';
import { MESH, messages, NOTHING, network, planned, summary } from '../cli/apply/mesh.ts';

const page = readFileSync(new URL('../../../docs/apply.md', import.meta.url), 'utf8');
const blocks = (language: string): string[] =>
  [...page.matchAll(new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, text = '']) => text);
const [file = ''] = blocks('yaml');

/** The mesh after the page's file, but for services, policies and the rest of it. */
const after = (): Actual => {
  const networks = [
    network('web', '10.20.0.0/16', { rate: { bits: 500_000_000n, burst: 0n } }),
    network('data', '10.21.0.0/16', { subnets: ['10.21.0.0/16', 'fd00::/64'], ipv6: true, policyDefault: 'drop' }),
  ];
  const { changes } = planned(file);
  const policy = changes.flatMap(({ calls }) => calls).find((call) => call.method === 'applyPolicies')!;
  const [spec] = policy.request.policies;
  const ingress = structuredClone(spec!.policy!.ingress);
  const who = ingress[0]?.peers[0]?.who;
  if (who?.$case === 'endpoints') who.value.networkId = 'id-web';
  return { ...NOTHING, networks, policies: [{ ...spec!.policy!, networkId: 'id-data', ingress }] };
};

test('the file makes what the page says', () => {
  const found = planned(file);
  expect(messages(found.problems)).toEqual([]);
  const [shown = ''] = blocks('console');
  const told = shown.split('\n').slice(1, 8);
  expect(told.map((line) => line.replace(/ \w+$/, ''))).toEqual(
    summary(found).map((line) => line.replace(/^\w+ (\w+) /, '$1 ')),
  );
});

test('a difference looks as the page says', () => {
  const edited = file
    .replace('500mbit', '1gbit')
    .replace('9042', '9043')
    .replace(/reservations:[\s\S]*?(?=services)/, '')
    .replace(
      /services:[\s\S]*?(?=policies)/,
      'services:\n  - { name: api, network: web, port: 90, selector: { app: api } }\n',
    )
    .replace(/endpoints:[\s\S]*/, '');
  const found = planned(edited, after());
  expect(messages(found.problems)).toEqual([]);
  expect(blocks('console')[1]).toBe(`$ weft diff -f mesh.yaml\n${planText(found)}`);
});

test('problems look as the page says', () => {
  const wrong = file
    .replace('10.20.0.0/16', '10.22.0.0/16')
    .replace('    policy-default', '    subnets: x\n    policy-default');
  const [, , shown = ''] = blocks('console');
  const lines = shown.split('\n').filter((line) => line.startsWith('weft: '));
  const texts = messages(planned(wrong, after()).problems).map((text) => text.replace('m.yaml', 'mesh.yaml'));
  expect(lines.map((line) => line.replace('weft: ', '')).sort()).toEqual([...texts].sort());
});

test('sections, limits and actions are as the page says', () => {
  for (const section of SECTIONS) expect(page).toContain(`| \`${section}\``);
  expect(page).toContain(`up to ${MAX_FILE / 2 ** 20} MiB`);
  for (const key of Object.keys(KEYS.endpoints)) if (key !== 'network') expect(page).toContain(`\`${key}\``);
  expect(Object.keys(exported(MESH, null).document)).toEqual(SECTIONS);
});
