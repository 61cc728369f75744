/** When `docker run` returns, the container is there for everyone: first packets, first uses, bursts, and addresses that move. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ControlService } from '../../gen/weft/v1/control.ts';
import { formatIp, parseIp } from '../../lib/ip.ts';
import { callUnary } from '../../lib/rpc.ts';
import { auditClean, clean, docker, IMAGE, on, onOk, times, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { agentMetric, controlClients, figure, type LabStatus, labStatus, summary } from '../harness/lab-direct.ts';
import { dockerCall, dockerGet, type Inspected, Prober, unreached, watch } from '../harness/prober.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
/** Debian's own: a newer client cannot give a MAC address to the daemon of Debian 12. */
const DOCKER = '/usr/bin/docker';

/** Drift that the agents have met since they started: ordinary work is none. */
const drifts = (): Promise<number[]> => Promise.all(HOSTS.map((host) => agentMetric(host, 'weft_drift_total')));

let lab: LabStatus;
let drifted: number[] = [];
beforeAll(async () => {
  lab = await labStatus();
  drifted = await drifts();
});
afterAll(async () => {
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
  expect(await drifts()).toEqual(drifted);
});

const socketOf = (host: string): string => lab.hosts.find((h) => h.name === host)?.dockerSocket ?? '';
const inspect = (host: string, id: string): Promise<Inspected> =>
  dockerGet<Inspected>(socketOf(host), `/containers/${id}/json`);
const ipIn = (info: Inspected, network: string): string => info.NetworkSettings.Networks[network]?.IPAddress ?? '';

describe('the first packet after docker run', () => {
  const RUNS = times(100, 30);
  const BATCH = 10;
  const probers: Prober[] = [];
  const ips = new Map<string, string>();

  beforeAll(async () => {
    await weftOk('network', 'create', 'first', '--subnet', '10.60.0.0/20');
    await weftOk('wait');
    for (const host of HOSTS) probers.push(new Prober(host, `prober-${host}`, 'first'));
    await Promise.all(probers.map((p) => p.ready()));
    for (const { host, name } of probers) ips.set(host, ipIn(await inspect(host, name), 'first'));
  });
  afterAll(() => Promise.all(probers.map((p) => p.close())));

  /** Some have addresses or MACs that no block tells of: then the others need an entry for this very endpoint. */
  function options(i: number, host: string): string[] {
    if (i % 5 === 3) return ['--mac-address', `06:00:00:00:00:${i.toString(16).padStart(2, '0')}`];
    if (i % 5 !== 4) return [];
    const other = HOSTS[(HOSTS.indexOf(host as (typeof HOSTS)[number]) + 1) % HOSTS.length] ?? '';
    // The last one of the other host's first block (a /27).
    return ['--ip', formatIp((parseIp(ips.get(other) ?? '') | 31) >>> 0)];
  }

  it(`reaches the container from every host, ${RUNS} runs, none lost`, async () => {
    const lost: string[] = [];
    const took: number[] = [];
    const once = async (i: number, host: string): Promise<string> => {
      const more = options(i, host);
      const began = performance.now();
      const id = await onOk(host, DOCKER, 'run', '-d', '--network', 'first', ...more, IMAGE, 'sh', '-c', script);
      took.push(performance.now() - began);
      const ip = ipIn(await inspect(host, id), 'first');
      const outcomes = await Promise.all(probers.map(async (p) => ((await p.probe(ip)) ? '' : p.host)));
      for (const from of outcomes)
        if (from !== '') lost.push(`run ${i}: ${from} to ${ip} on ${host} ${more.join(' ')}`);
      return id;
    };
    const script = `for ip in ${[...ips.values()].join(' ')}; do ping -n -q -c 1 -W 1 $ip >/dev/null || echo "lost $ip"; done
      echo done; exec sleep 100000`;
    for (let at = 0; at < RUNS; at += BATCH) {
      const started: [string, string][] = [];
      // One at a time on each host.
      await Promise.all(
        HOSTS.map(async (host, h) => {
          for (
            let i = at + ((h + HOSTS.length - (at % HOSTS.length)) % HOSTS.length);
            i < at + BATCH;
            i += HOSTS.length
          )
            started.push([host, await once(i, host)]);
        }),
      );
      await Promise.all(
        HOSTS.map(async (host) => {
          const ids = started.flatMap(([h, id]) => (h === host ? [id] : []));
          for (const id of ids) {
            const said = await docker(host, 'logs', id);
            if (said !== 'done') lost.push(`from container ${id.slice(0, 12)} on ${host}: ${said}`);
          }
          await docker(host, 'rm', '-f', ...ids);
        }),
      );
    }
    expect(lost).toEqual([]);
    figure(`${RUNS} runs: docker run, ms`, summary(took));
  });

  it('is proved by weft wait', async () => {
    const id = await docker('h1', 'run', '-d', '--network', 'first', IMAGE, 'sleep', '100000');
    const waited = await weftJson<{ applied: boolean; laggards: unknown[]; revision: string }>('wait');
    expect(waited).toMatchObject({ applied: true, laggards: [] });
    const endpoints = await weftJson<{ container: { id: string } | null; revision?: string }[]>('endpoint', 'ls');
    expect(endpoints.some((e) => e.container === null || e.container.id === id)).toBe(true);
    for (const host of await weftJson<{ name: string; appliedRevision: string }[]>('host', 'ls'))
      expect(BigInt(host.appliedRevision)).toBeGreaterThanOrEqual(BigInt(waited.revision));
    await docker('h1', 'rm', '-f', id);
  });

  it('is denied by weft wait, naming the host, while one has not applied it', async () => {
    const pid = lab.hosts.find((h) => h.name === 'h3')?.pids['agent'] ?? 0;
    expect(pid).toBeGreaterThan(0);
    process.kill(pid, 'SIGSTOP');
    let made: Promise<string> | undefined;
    try {
      // The command itself waits for every host, for about as long as a silent one counts as connected.
      made = weftOk('network', 'create', 'late');
      await until('the network', async () => (await weft('network', 'inspect', 'late')).code === 0);
      const r = await weft('wait', '--timeout', '1', '--json');
      expect(r.code).toBe(1);
      const said = JSON.parse(r.stdout) as { applied: boolean; laggards: { host: string; reason: string }[] };
      expect(said.applied).toBe(false);
      expect(said.laggards.map((l) => l.host)).toEqual(['h3']);
      expect(said.laggards[0]?.reason).toMatch(/not acknowledged/);
    } finally {
      process.kill(pid, 'SIGCONT');
      await made;
    }
    await weftOk('wait');
    expect(await docker('h3', 'network', 'ls', '-q', '--filter', 'name=^late$')).not.toBe('');
    await weftOk('network', 'rm', 'late');
  });
});

describe('many at once', () => {
  it('makes all pairs reach when three hosts use a network for the first time at the same moment', async () => {
    const took: number[] = [];
    for (let round = 0; round < 5; round++) {
      const network = `use-${round}`;
      await weftOk('network', 'create', network);
      await weftOk('wait');
      const began = performance.now();
      const probers = HOSTS.map((host) => new Prober(host, `${network}-${host}`, network));
      try {
        await Promise.all(probers.map((p) => p.ready()));
        took.push(performance.now() - began);
        const infos = await Promise.all(probers.map((p) => inspect(p.host, p.name)));
        const outcomes = await Promise.all(
          probers.flatMap((p) =>
            infos.map(async (info) => [p.host, ipIn(info, network), await p.probe(ipIn(info, network))]),
          ),
        );
        expect(outcomes.filter(([, , ok]) => ok !== true)).toEqual([]);
      } finally {
        await Promise.all(probers.map((p) => p.close()));
      }
      await weftOk('network', 'rm', network);
    }
    figure('first use on three hosts at once, ms', summary(took));
  });

  it('starts ten containers on each of three hosts at once: no failure, all pairs reach', async () => {
    await weftOk('network', 'create', 'burst');
    await weftOk('wait');
    const began = performance.now();
    const runs = await Promise.all(
      HOSTS.flatMap((host) =>
        Array.from({ length: 10 }, async () => {
          const r = await on(host, 'docker', 'run', '-d', '--network', 'burst', IMAGE, 'sleep', '100000');
          return { host, id: r.stdout.trim(), code: r.code, stderr: r.stderr };
        }),
      ),
    );
    figure('burst of 3 × 10 containers, ms', { all: performance.now() - began });
    expect(runs.filter((r) => r.code !== 0)).toEqual([]);
    const infos = await Promise.all(runs.map((r) => inspect(r.host, r.id)));
    const ips = infos.map((info) => ipIn(info, 'burst'));
    expect(new Set(ips).size).toBe(30);
    const lost: string[] = [];
    await Promise.all(
      HOSTS.map(async (host) => {
        // One prober at a time on each host.
        for (const [i, info] of infos.entries())
          if (runs[i]?.host === host)
            for (const ip of await unreached(info.State.Pid, ips)) lost.push(`${ips[i]} on ${host} to ${ip}`);
      }),
    );
    expect(lost).toEqual([]);
    await Promise.all(
      HOSTS.map((host) => docker(host, 'rm', '-f', ...runs.filter((r) => r.host === host).map((r) => r.id))),
    );
    await weftOk('network', 'rm', 'burst');
  });
});

describe('a network whose last container has just left', () => {
  const ROUNDS = times(10, 4);

  it(`is removed at once, ${ROUNDS} times`, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      const host = HOSTS[round % 2] ?? '';
      await weftOk('network', 'create', `brief-${round}`);
      const id = await docker(host, 'run', '-d', '--network', `brief-${round}`, IMAGE, 'sleep', '100000');
      await docker(host, 'rm', '-f', id);
      await weftOk('network', 'rm', `brief-${round}`);
    }
  });

  it('is removed without a pause, by either coordinator and by the Docker of another host', async () => {
    const clients = await controlClients();
    const removals = [
      ...clients.map((client) => async (network: string) => {
        await callUnary(client, ControlService.deleteNetwork, { project: '', network }, { timeoutMs: 30_000 });
      }),
      (network: string) => dockerCall(socketOf('h3'), 'DELETE', `/networks/${network}`),
    ];
    try {
      await weftOk('network', 'create', 'stays');
      const id = await docker('h1', 'run', '-d', '--network', 'stays', IMAGE, 'sleep', '100000');
      for (let round = 0; round < times(5, 2) * removals.length; round++) {
        const network = `left-${round}`;
        await weftOk('network', 'create', network);
        await dockerCall(socketOf('h1'), 'POST', `/networks/${network}/connect`, { Container: id });
        await dockerCall(socketOf('h1'), 'POST', `/networks/${network}/disconnect`, { Container: id });
        await removals[round % removals.length]?.(network);
        expect((await weft('network', 'inspect', network)).stderr).toContain('There is no network');
      }
      await docker('h1', 'rm', '-f', id);
      await weftOk('network', 'rm', 'stays');
    } finally {
      for (const client of clients) client.close();
    }
    // A refused `docker network rm` would be told here.
    expect((await weftJson<{ conflicts: unknown[] }>('status')).conflicts).toEqual([]);
  });
});

describe('an address that moves', () => {
  const MOVES = times(20, 8);
  const IP = '10.61.0.40';

  it(`answers again from another host, ${MOVES} times, to a prober that never stops`, async () => {
    await weftOk('network', 'create', 'moves', '--subnet', '10.61.0.0/24');
    await weftOk('wait');
    const start = async (host: string): Promise<{ began: number; returned: number }> => {
      const began = Date.now();
      await docker(host, 'run', '-d', '--name', 'mover', '--network', 'moves', '--ip', IP, IMAGE, 'sleep', '100000');
      return { began, returned: Date.now() };
    };
    await start('h1');
    const replies = watch('h3', 'moves', IP);
    try {
      await replies.answered(Date.now());
      const outages: number[] = [];
      const runs: number[] = [];
      const late: number[] = [];
      for (let move = 0; move < MOVES; move++) {
        const [from, to] = move % 2 === 0 ? ['h1', 'h2'] : ['h2', 'h1'];
        await docker(from ?? '', 'rm', '-f', 'mover');
        const removed = Date.now();
        const { began, returned } = await start(to ?? '');
        const first = await replies.answered(removed);
        outages.push(first - replies.before(removed));
        runs.push(returned - began);
        late.push(first - returned);
      }
      figure('address that moves: outage, ms', summary(outages));
      figure('address that moves: docker run, ms', summary(runs));
      figure('address that moves: first answer after docker run returned, ms', summary(late));
      expect(Math.max(...outages)).toBeLessThan(10_000);
      expect(Math.max(...late)).toBeLessThan(1_000);
    } finally {
      await replies.stop();
    }
    await docker('h1', 'rm', '-f', 'mover');
    await weftOk('network', 'rm', 'moves');
  });
});
