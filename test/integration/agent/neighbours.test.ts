/** Peers on the underlay that do not answer are told of, and those that answer again are not: by a real kernel. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { until } from '../../harness/ovs.ts';

const run = promisify(execFile);
const PROCESS = fileURLToPath(new URL('../../harness/neighbours-process.ts', import.meta.url));
const [A, B] = [`wnb-${process.pid}-a`, `wnb-${process.pid}-b`];

describe.each([
  { family: 'IPv4', ip: (n: number) => `192.0.2.${n}`, length: 24, far: '203.0.113.9' },
  { family: 'IPv6', ip: (n: number) => `fd99::${n}`, length: 64, far: 'fd98::9' },
])('peers over $family', ({ family, ip, length, far }) => {
  let child: ChildProcess | null = null;
  const said: string[] = [];

  beforeEach(async () => {
    for (const name of [A, B]) await run('ip', ['netns', 'add', name]);
    await run('ip', ['-n', A, 'link', 'add', 'eth0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', B]);
    for (const name of [A, B]) await run('ip', ['-n', name, 'link', 'set', 'eth0', 'up']);
    await add(A, 1);
    await add(B, 2);
    // A kernel that makes up its mind sooner.
    const neigh = `net.${family.toLowerCase()}.neigh.eth0`;
    const settings = ['delay_first_probe_time=1', 'retrans_time_ms=100', 'base_reachable_time_ms=500'];
    await run('nsenter', [
      `--net=/run/netns/${A}`,
      'sysctl',
      '-qw',
      ...settings.map((s) => `${neigh}.${s}`),
      'net.ipv6.neigh.eth0.gc_stale_time=1',
    ]);
  });
  afterEach(async () => {
    child?.kill('SIGKILL');
    for (const name of [A, B]) await run('ip', ['netns', 'del', name]).catch(() => undefined);
    said.length = 0;
  });
  // Each in a subnet of its own length: none is secondary, and goes with another.
  const add = (netns: string, n: number) =>
    run('ip', [
      '-n',
      netns,
      'address',
      'add',
      `${ip(n)}/${length + n}`,
      'dev',
      'eth0',
      ...(family === 'IPv6' ? ['nodad'] : []),
    ]);
  const last = (): unknown => JSON.parse(said.findLast((line) => line.startsWith('{')) ?? '{}');

  it('names who does not answer, and why', async () => {
    child = spawn(
      'nsenter',
      [
        `--net=/run/netns/${A}`,
        process.execPath,
        PROCESS,
        ip(1),
        ip(1),
        ip(2),
        ip(3),
        far,
        family === 'IPv4' ? 'fd99::2' : '192.0.2.2',
      ],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    if (child.stdout === null) throw new Error('no output');
    createInterface({ input: child.stdout }).on('line', (line) => said.push(line));
    await until('they are looked for', () => said.some((line) => line.startsWith('resolved')), 20_000);
    const silent = { [ip(3)]: 'it does not answer on eth0' };
    const never = {
      [far]: 'there is no route to it',
      [family === 'IPv4' ? 'fd99::2' : '192.0.2.2']: `this host's own, ${ip(1)}, is not of the same family`,
    };
    const becomes = (what: string, missing: Record<string, string>) =>
      until(
        what,
        () => {
          try {
            expect(last()).toEqual(missing);
            return true;
          } catch {
            return false;
          }
        },
        30_000,
      ).catch((error: unknown) => {
        throw new Error(`${String(error)}: ${said.join(' ')}`);
      });
    await becomes('they are told', { ...silent, ...never });
    await add(B, 3);
    await becomes('one answers', never);
    await run('ip', ['-n', B, 'address', 'del', `${ip(2)}/${length + 2}`, 'dev', 'eth0']);
    await becomes('one has stopped answering', { [ip(2)]: 'it does not answer on eth0', ...never });
    await add(B, 2);
    await becomes('it answers again', never);
  });
});
