/** Without coordinators and etcd: hosts still start, restart and remove containers out of what they hold, and lose nothing of it after. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  IMAGE,
  on,
  sleeper,
  until,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { agentDrift, agentMetric, figure, type LabStatus, labStatus, summary } from '../harness/lab-direct.ts';
import { Prober, watch } from '../harness/prober.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
/** An aim of 3 s, four times over: this may be a busy machine. */
const START_MS = 12_000;

let lab: LabStatus;
const probers: Prober[] = [];
const ips = new Map<string, string>();

const control = (): string[] => [...lab.etcd.map((e) => e.name), ...lab.coordinators.map((c) => c.name)];

/** The names of the probers' hosts that get no answer to one packet. */
async function missedBy(ip: string): Promise<string[]> {
  const outcomes = await Promise.all(probers.map(async (p) => ((await p.probe(ip)) ? '' : p.host)));
  return outcomes.filter((host) => host !== '');
}

async function controlPlaneBack(): Promise<void> {
  for (const name of control()) await weftOk('lab', 'start', name);
  await until(
    'every host is connected',
    async () => {
      const hosts = await weftJson<{ state: string }[]>('host', 'ls');
      return hosts.length === HOSTS.length && hosts.every((h) => h.state === 'connected');
    },
    90_000,
  );
}

beforeAll(async () => {
  lab = await labStatus();
  await weftOk('network', 'create', 'alone');
  await weftOk('network', 'create', 'elsewhere');
  await weftOk('wait');
  for (const host of HOSTS) probers.push(new Prober(host, `alone-${host}`, 'alone'));
  await Promise.all(probers.map((p) => p.ready()));
  for (const { host, name } of probers) ips.set(host, await addressOf(host, name, 'alone'));
  await sleeper('h1', 'elsewhere-h1', 'elsewhere');
  await sleeper('h2', 'old-h2', 'alone');
  await weftOk('wait');
  for (const name of control().toReversed()) await weftOk('lab', 'stop', name);
});
afterAll(async () => {
  await controlPlaneBack();
  await Promise.all(probers.map((p) => p.close()));
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

describe('with coordinators and etcd stopped', () => {
  it('is really without them', async () => {
    const r = await weft('network', 'ls', '--json');
    expect(r.code).toBe(1);
    expect(JSON.parse(r.stderr)).toMatchObject({ error: { code: 'UNAVAILABLE' } });
    await until('the agents have noticed', async () => {
      const inSync = await Promise.all(HOSTS.map((host) => agentMetric(host, 'weft_in_sync')));
      return inSync.every((value) => value === 0);
    });
  });

  it('starts a new container on each host that holds a block, reached from all hosts', async () => {
    const took: number[] = [];
    const script = `for ip in ${[...ips.values()].join(' ')}; do ping -n -q -c 1 -W 1 $ip >/dev/null || echo "lost $ip"; done
      echo done; exec sleep 100000`;
    for (const host of HOSTS) {
      const name = `new-${host}`;
      const began = performance.now();
      await docker(host, 'run', '-d', '--name', name, '--network', 'alone', IMAGE, 'sh', '-c', script);
      took.push(performance.now() - began);
      expect([host, await missedBy(await addressOf(host, name, 'alone'))]).toEqual([host, []]);
      expect(await until('it has tried', async () => (await docker(host, 'logs', name)).match(/.*done$/s)?.[0])).toBe(
        'done',
      );
    }
    figure('alone: docker run, ms', summary(took));
    expect(Math.max(...took)).toBeLessThan(START_MS);
  });

  it('stops, starts, restarts and removes containers', async () => {
    await docker('h1', 'stop', '-t', '0', 'new-h1');
    const began = performance.now();
    await docker('h1', 'start', 'new-h1');
    const started = performance.now() - began;
    expect(await missedBy(await addressOf('h1', 'new-h1', 'alone'))).toEqual([]);
    await docker('h2', 'restart', '-t', '0', 'old-h2');
    expect(await missedBy(await addressOf('h2', 'old-h2', 'alone'))).toEqual([]);
    const ip = await addressOf('h3', 'new-h3', 'alone');
    await docker('h3', 'rm', '-f', 'new-h3');
    expect(await missedBy(ip)).toEqual([...HOSTS]);
    // An address of its own that the user gives.
    await sleeper('h3', 'given-h3', 'alone', '--ip', ip);
    expect(await missedBy(ip)).toEqual([]);
    figure('alone: docker start, ms', { ms: started });
    expect(started).toBeLessThan(START_MS);
  });

  it('refuses, with the reason, what needs a coordinator', async () => {
    const began = performance.now();
    const noBlock = await on('h3', 'docker', 'run', '--rm', '--network', 'elsewhere', IMAGE, 'true');
    expect(noBlock.code).toBe(125);
    expect(noBlock.stderr).toMatch(/host h3 has no free address of network elsewhere.*no coordinator can be asked/);
    const foreign = (ips.get('h1') ?? '').replace(/\d+$/, (last) => String(Number(last) + 20));
    const given = await on('h3', 'docker', 'run', '--rm', '--network', 'alone', '--ip', foreign, IMAGE, 'true');
    expect(given.code).toBe(125);
    expect(given.stderr).toMatch(/outside the blocks of host h3, and no coordinator can be asked/);
    const network = await on('h3', 'docker', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'not-now');
    expect(network.code).toBe(1);
    expect(network.stderr).toMatch(/coordinator/);
    expect(performance.now() - began).toBeLessThan(START_MS);
  });

  it('restarts an agent without one step, and containers talk meanwhile', async () => {
    const target = ips.get('h2') ?? '';
    const agentSocket = lab.hosts.find((h) => h.name === 'h2')?.agentSocket ?? '';
    const talk = watch('h1', 'alone', target);
    const began = Date.now();
    await talk.answered(began);
    await weftOk('lab', 'stop', 'h2', 'agent');
    await weftOk('lab', 'start', 'h2', 'agent');
    // A look at everything, after whatever passes its start has led to.
    const drift = await until('the agent answers', () => agentDrift(agentSocket));
    expect(drift).toEqual([]);
    expect(await agentMetric('h2', 'weft_steps_total')).toBe(0);
    await sleeper('h2', 'after-h2', 'alone');
    expect(await missedBy(await addressOf('h2', 'after-h2', 'alone'))).toEqual([]);
    await talk.answered(Date.now());
    const { sent, received, maxGapMs } = await talk.stop();
    figure('alone: talk through an agent restart', { sent, received, maxGapMs });
    expect(sent - received).toBeLessThanOrEqual(1);
  });

  it('brings a host back after a power cut, with its containers', async () => {
    await docker(
      'h3',
      'run',
      '-d',
      '--name',
      'again-h3',
      '--restart',
      'always',
      '--network',
      'alone',
      IMAGE,
      'sleep',
      '100000',
    );
    await weftOk('lab', 'kill', 'h3');
    const began = performance.now();
    await weftOk('lab', 'start', 'h3');
    await until('its container runs', async () => {
      const running = await docker('h3', 'inspect', '-f', '{{.State.Running}}', 'again-h3');
      return running === 'true';
    });
    figure('alone: host back after a power cut, ms', { ms: performance.now() - began });
    // The probing container of h3 went with its host.
    const dead = probers.findIndex((p) => p.host === 'h3');
    await probers[dead]?.close();
    probers[dead] = new Prober('h3', 'alone-h3', 'alone');
    await probers[dead].ready();
    expect(await missedBy(await addressOf('h3', 'again-h3', 'alone'))).toEqual([]);
  });

  it('registers everything when they are back, and the audit is clean', async () => {
    const talk = watch('h3', 'alone', ips.get('h1') ?? '');
    await talk.answered(Date.now());
    const began = performance.now();
    await controlPlaneBack();
    figure('alone: coordinators back and every host connected, ms', { ms: performance.now() - began });
    await weftOk('wait');
    const expected = [
      'again-h3',
      'alone-h1',
      'alone-h2',
      'alone-h3',
      'after-h2',
      'new-h1',
      'new-h2',
      'old-h2',
      'watcher',
    ];
    const named = await until('every endpoint is known by its name', async () => {
      const list = await weftJson<{ container: { name: string } | null }[]>('endpoint', 'ls', '--network', 'alone');
      const names = list.map((e) => e.container?.name ?? '');
      return names.length === expected.length && !names.includes('') ? names : null;
    });
    expect(named.toSorted()).toEqual(expected.toSorted());
    await auditClean();
    const { sent, received, maxGapMs } = await talk.stop();
    figure('alone: talk through the return', { sent, received, maxGapMs });
    expect(sent - received).toBeLessThanOrEqual(1);
    // And what had to be refused works again.
    await docker('h3', 'run', '--rm', '--network', 'elsewhere', IMAGE, 'true');
  });
});
