/**
 * `npm run bench:policies`: 1,000 policies, 5,000 endpoints, 500 of them on this host: time to compile, flows, memory, time until a change
 * is enforced, flows that one label touches, and what packets lose while policies change. On an Open vSwitch of its own (userspace
 * datapath). Writes a file of the temporary directory; with `--keep`, bench/results/policies.json. A minute.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { table, tenth } from './figures.ts';
import { type Measured, measurePolicies, type Pass } from './policies/measure.ts';

const SIZE = { policies: 1000, endpoints: 5000, local: 500 } as const;
const LOAD = { updates: 20, rate: 1000 } as const;

const keep = process.argv.includes('--keep');
const file = keep
  ? fileURLToPath(new URL('./results/policies.json', import.meta.url))
  : join(tmpdir(), `weft-policies-${process.pid}.json`);
const loadBefore = tenth(loadavg()[0] ?? 0);
const measured = await measurePolicies(SIZE, LOAD);
const machine = { cpus: cpus().length, kernel: release(), node: process.version, loadBefore };
mkdirSync(join(file, '..'), { recursive: true });
writeFileSync(file, `${JSON.stringify({ date: new Date().toISOString(), machine, ...measured }, null, 2)}\n`);
process.stdout.write(`\n${shown(measured)}\n\n${file}\n`);

function shown({ first, idle, label, policy, flows, memory, enforcedMs, load }: Measured): string {
  const row = (name: string, p: Pass): (string | number)[] => [name, p.compileMs, p.renderMs, p.applyMs, p.touched];
  const passes = table(
    ['pass', 'compile ms', 'render ms', 'apply ms', 'flows touched'],
    [
      row('first', first),
      row('nothing changed', idle),
      row('a label here', label.here),
      row('a label elsewhere', label.elsewhere),
      row('a policy', policy),
    ],
  );
  return [
    passes,
    '',
    `${flows} flows; heap ${memory.heap} MiB, process ${memory.agent} MiB, ovs-vswitchd ${memory.vswitchd} MiB`,
    `enforced after ${enforcedMs.join(', ')} ms`,
    `${load.updates} updates of ${load.touched} flows: allowed ${load.allowed.lost} of ${load.allowed.sent} lost, denied ${load.denied.passed} of ${load.denied.sent} passed`,
  ].join('\n');
}
