/**
 * What is killed comes back, and leaves nothing behind: agent, Open vSwitch, dockerd, a container, a whole host, a coordinator, etcd.
 * Traffic that needs none of them goes on (invariants I5, I6, I7).
 */
import { rm } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { agentMetrics, audit, driftEvents, etcdAll, metricOf, settled } from '../harness/drift.ts';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  IMAGE,
  on,
  pings,
  sleeper,
  until,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { figure, labStatus } from '../harness/lab-direct.ts';
import { watch } from '../harness/prober.ts';
import { agreed, dockerEndpoints, journalOf } from '../harness/truth.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NET = 'crash-a';
const MANY = Array.from({ length: 20 }, (_, i) => `crash-${i + 1}`);

const ip = { h1: '', h2: '', h3: '' };

async function allReach(): Promise<void> {
  const pairs = HOSTS.flatMap((a) => HOSTS.filter((b) => a !== b).map((b) => [a, b] as const));
  await until('every host reaches every other', async () => {
    const results = await Promise.all(pairs.map(([a, b]) => pings(a, `crash-${a}`, ip[b])));
    return results.every((ok) => ok);
  });
}

beforeAll(async () => {
  await weftOk('network', 'create', NET);
  await Promise.all(HOSTS.map((host) => sleeper(host, `crash-${host}`, NET, '--restart', 'always')));
  for (const host of HOSTS) ip[host] = await addressOf(host, `crash-${host}`, NET);
  await allReach();
});
afterAll(() => clean(HOSTS));

/** However a test ends, everybody agrees, and nothing differs from what it should be. */
afterEach(async () => {
  for (const target of [['etcd1'], ['coord1'], ['h1'], ['h1', 'agent']]) await weftOk('lab', 'start', ...target);
  await settled(HOSTS);
  await Promise.all(HOSTS.map((host) => agreed(host)));
  await until('clean', async () => (await audit('--no-heal')).code === 0, 15_000);
  await auditClean();
});

const reaches = (host: string, name: string, address: string): Promise<boolean> =>
  until(`${name} reaches ${address}`, () => pings(host, name, address));

/** A ping every 10 ms from h2 to the container on h1 (or another host), while something happens. */
async function underPing(what: string, act: () => Promise<void>, to: keyof typeof ip = 'h1') {
  const pinging = watch('h2', NET, ip[to], 'crash-watcher');
  await pinging.answered(0);
  const began = Date.now();
  await act();
  await pinging.answered(Date.now());
  const result = await pinging.stop();
  figure(what, {
    sent: result.sent,
    lost: result.lost,
    maxGapMs: result.maxGapMs,
    ms: Date.now() - began,
  });
  return result;
}

describe('the agent', () => {
  it('killed while it makes 20 endpoints: those that are there work, nothing is left of the others', async () => {
    const before = (await dockerEndpoints('h1')).size;
    const runs = MANY.map((name) =>
      on('h1', 'docker', 'run', '-d', '--name', name, '--network', NET, IMAGE, 'sleep', '100000'),
    );
    await until(
      'some endpoints are there',
      async () => Object.keys((await journalOf('h1')).endpoints).length >= before + 5,
    );
    await weftOk('lab', 'kill', 'h1', 'agent');
    await weftOk('lab', 'start', 'h1', 'agent');
    const results = await Promise.all(runs);
    for (const { code, stderr } of results) if (code !== 0) process.stdout.write(`docker run: ${stderr}`);
    const started = MANY.filter((_, i) => results[i]?.code === 0);
    const took = await agreed('h1');
    figure('agent killed among 20 docker run', {
      started: started.length,
      failed: 20 - started.length,
      agreedMs: took,
    });
    const unreached = await Promise.all(
      started.map(async (name) => {
        const address = await addressOf('h1', name, NET);
        return (await pings('h2', 'crash-h2', address)) && (await pings('h1', name, ip.h3)) ? null : name;
      }),
    );
    expect(unreached.filter((name) => name !== null)).toEqual([]);
    expect((await dockerEndpoints('h1')).size).toBe(before + started.length);
  });

  it('killed while 20 endpoints go: all of them go', async () => {
    const removals = MANY.map((name) => on('h1', 'docker', 'rm', '-f', name));
    await until('some endpoints are gone', async () => Object.keys((await journalOf('h1')).endpoints).length <= 16);
    await weftOk('lab', 'kill', 'h1', 'agent');
    await weftOk('lab', 'start', 'h1', 'agent');
    await Promise.all(removals);
    // What Docker could not end it tells, and does again when asked again.
    await Promise.all(MANY.map((name) => on('h1', 'docker', 'rm', '-f', name)));
    figure('agent killed among 20 docker rm', { agreedMs: await agreed('h1') });
    expect((await dockerEndpoints('h1')).size).toBe(1);
    const keys = [...(await etcdAll()).keys()].filter((key) => key.includes('/endpoints/'));
    expect(keys).toHaveLength(3);
  });

  it.each(['stop', 'kill'])('%s and start change nothing for what runs, and it has nothing to do', async (how) => {
    const began = Date.now();
    const { lost } = await underPing(`agent ${how} and start`, async () => {
      await weftOk('lab', how, 'h1', 'agent');
      await weftOk('lab', 'start', 'h1', 'agent');
      await settled(HOSTS);
    });
    expect(lost).toBe(0);
    const metrics = await agentMetrics('h1');
    expect(metricOf(metrics, 'weft_in_sync')).toBe(1);
    expect(metricOf(metrics, 'weft_endpoints')).toBe(1);
    expect(metricOf(metrics, 'weft_steps_total')).toBe(0);
    expect(await driftEvents(began)).toEqual([]);
  });

  it('that has lost its journal takes what it held from Docker and the last view: nothing changes', async () => {
    const of = async () => {
      const { endpoints, blocks } = await journalOf('h1');
      const kept = Object.values(endpoints).map((e) => [e.id, e.ip, e.mac, e.container?.name]);
      return { kept, blocks: Object.keys(blocks).toSorted() };
    };
    const before = await of();
    const dir = (await labStatus()).hosts.find((h) => h.name === 'h1')!.stateDir;
    const { lost } = await underPing('agent started without its journal', async () => {
      await weftOk('lab', 'stop', 'h1', 'agent');
      await rm(`${dir}/agent/journal`);
      await weftOk('lab', 'start', 'h1', 'agent');
      await settled(HOSTS);
    });
    expect(lost).toBeLessThanOrEqual(1);
    await until('known again', async () => (await of()).kept.every(([, , , name]) => name !== undefined));
    expect(await of()).toEqual(before);
  });
});

describe('Open vSwitch', () => {
  it('killed and started: flows and tunnels are made anew, traffic returns', async () => {
    const { maxGapMs } = await underPing('Open vSwitch kill and start', async () => {
      await weftOk('lab', 'kill', 'h1', 'ovs');
      await weftOk('lab', 'start', 'h1', 'ovs');
    });
    expect(maxGapMs).toBeLessThan(15_000);
    await allReach();
  });
});

describe('Docker', () => {
  it('dockerd stopped and started with live-restore: nothing changes', async () => {
    const id = await docker('h1', 'inspect', '-f', '{{.Id}} {{.State.StartedAt}}', 'crash-h1');
    const { lost } = await underPing('dockerd stop and start', async () => {
      await weftOk('lab', 'stop', 'h1', 'dockerd');
      await weftOk('lab', 'start', 'h1', 'dockerd');
      await until('Docker answers', async () => (await on('h1', 'docker', 'ps', '-q')).code === 0);
    });
    expect(lost).toBe(0);
    expect(await docker('h1', 'inspect', '-f', '{{.Id}} {{.State.StartedAt}}', 'crash-h1')).toBe(id);
    await sleeper('h1', 'crash-after', NET);
    await reaches('h2', 'crash-h2', await addressOf('h1', 'crash-after', NET));
    await docker('h1', 'rm', '-f', 'crash-after');
  });

  it('dockerd killed and started: nothing changes', async () => {
    const { lost } = await underPing('dockerd kill and start', async () => {
      await weftOk('lab', 'kill', 'h1', 'dockerd');
      await weftOk('lab', 'start', 'h1', 'dockerd');
      await until('Docker answers', async () => (await on('h1', 'docker', 'ps', '-q')).code === 0);
    });
    expect(lost).toBe(0);
    await allReach();
  });

  it('docker kill: the endpoint goes everywhere, docker start brings it back', async () => {
    await sleeper('h1', 'crash-killed', NET);
    await docker('h1', 'kill', 'crash-killed');
    await until('its endpoint is gone', async () => (await weftJson<object[]>('endpoint', 'ls')).length === 3);
    await agreed('h1');
    await docker('h1', 'start', 'crash-killed');
    await reaches('h2', 'crash-h2', await addressOf('h1', 'crash-killed', NET));
    await docker('h1', 'rm', '-f', 'crash-killed');
  });
});

describe('a host', () => {
  it('without power, and with power again: its containers come up and are reached', async () => {
    let began = 0;
    const { lost } = await underPing(
      'a third host killed and started',
      async () => {
        await weftOk('lab', 'kill', 'h1');
        await until('h1 is seen to be down', async () => {
          return (await weftJson<{ state: string }>('host', 'inspect', 'h1')).state === 'down';
        });
        began = Date.now();
        await weftOk('lab', 'start', 'h1');
      },
      'h3',
    );
    expect(lost).toBe(0);
    await settled(HOSTS);
    ip.h1 = await until('its container runs', async () => {
      const state = await docker('h1', 'inspect', '-f', '{{.State.Running}}', 'crash-h1');
      return state === 'true' ? await addressOf('h1', 'crash-h1', NET) : null;
    });
    await reaches('h2', 'crash-h2', ip.h1);
    figure('host started again until its container is reached', { ms: Date.now() - began });
    await allReach();
  });
});

// Nothing is attached while the pings run: a port more in Open vSwitch's userspace datapath costs others a packet at times.
describe('the control plane', () => {
  it('a coordinator killed: the other one serves, what runs goes on', async () => {
    const without = await underPing('coordinator kill', async () => {
      await weftOk('lab', 'kill', 'coord1');
      await settled(HOSTS);
    });
    expect(without.lost).toBe(0);
    await weftOk('network', 'create', 'crash-b');
    await Promise.all([sleeper('h1', 'crash-b1', 'crash-b'), sleeper('h2', 'crash-b2', 'crash-b')]);
    await reaches('h1', 'crash-b1', await addressOf('h2', 'crash-b2', 'crash-b'));
    const again = await underPing('coordinator start', async () => {
      await weftOk('lab', 'start', 'coord1');
      await settled(HOSTS);
    });
    expect(again.lost).toBe(0);
    await Promise.all([docker('h1', 'rm', '-f', 'crash-b1'), docker('h2', 'rm', '-f', 'crash-b2')]);
    await weftOk('network', 'rm', 'crash-b');
  });

  it('etcd killed: what runs goes on, and what came meanwhile is known after', async () => {
    const without = await underPing('etcd kill', async () => {
      await weftOk('lab', 'kill', 'etcd1');
      await until('the coordinators notice', async () => (await weft('network', 'create', 'crash-c')).code !== 0);
    });
    expect(without.lost).toBe(0);
    await sleeper('h1', 'crash-alone', NET);
    await reaches('h2', 'crash-h2', await addressOf('h1', 'crash-alone', NET));
    const again = await underPing('etcd start', async () => {
      await weftOk('lab', 'start', 'etcd1');
      await settled(HOSTS);
    });
    expect(again.lost).toBe(0);
    await agreed('h1');
    await docker('h1', 'rm', '-f', 'crash-alone');
  });
});
