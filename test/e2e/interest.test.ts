/**
 * Who is told what: a change reaches the hosts that share its network, in few bytes, and no other host. And an agent that cannot be
 * told anything removes nothing (invariant I6).
 */
import { rm } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { macOfIp } from '../../lib/mac.ts';
import type { Endpoint } from '../../lib/model.ts';
import { issueHost, newHostId, readCa } from '../../lib/tls.ts';
import { agentMetrics, audit, coordinatorMetrics, metricOf, settled } from '../harness/drift.ts';
import { FakeAgent } from '../harness/fake-agent.ts';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  on,
  onOk,
  pings,
  sleeper,
  until,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { agentDrift, figure, labStatus } from '../harness/lab-direct.ts';
import { watch } from '../harness/prober.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const MANY = 1_000;
const PER_BLOCK = 60;
const NET = 'interest-a';
/** Of messages about one endpoint, to one host. */
const LIMIT = 2_048;

let networkId = '';
let fake: FakeAgent | null = null;

const anEndpoint = (hostId: string, n: number, ip: string): Endpoint => ({
  id: n.toString(16).padStart(64, '0'),
  networkId,
  hostId,
  ips: [ip],
  mac: macOfIp(ip),
  givenMac: false,
  container: { id: n.toString(16).padStart(64, 'c'), name: `made-up-${n}` },
  state: 'known',
  labels: { 'com.example.role': 'worker', 'com.example.number': String(n) },
  createdAt: '2025-01-01T00:00:00Z',
  ofport: n,
  aliases: [`made-up-${n}`],
  allowed: [],
  trusted: false,
  express: false,
  kind: 'container',
  ports: [],
  unhealthy: [],
  revision: 0n,
});

/** Bytes sent so far: of networks by host, and of everything to everybody. */
async function sent(): Promise<{ byHost: Record<string, number>; total: number }> {
  const texts = await coordinatorMetrics();
  const byHost: Record<string, number> = {};
  for (const host of [...HOSTS, 'fake1'])
    byHost[host] = texts.reduce((n, text) => n + metricOf(text, 'weft_session_network_bytes', { host }), 0);
  return { byHost, total: texts.reduce((n, text) => n + metricOf(text, 'weft_session_sent_bytes_total'), 0) };
}

/** What a change sent to each host, once everybody has applied it. */
async function sentBy(what: string, change: () => Promise<unknown>): Promise<Record<string, number>> {
  await settled(HOSTS);
  const before = await sent();
  await change();
  await settled(HOSTS);
  const after = await sent();
  const bytes = Object.fromEntries(
    Object.entries(after.byHost).map(([host, n]) => [host, n - (before.byHost[host] ?? 0)]),
  );
  figure(`bytes sent by ${what}`, { ...bytes, total: after.total - before.total });
  // Nothing of another kind went to anybody.
  expect(after.total - before.total).toBe(Object.values(bytes).reduce((a, b) => a + b, 0));
  return bytes;
}

function expectOnlyInterested(bytes: Record<string, number>): void {
  for (const host of ['h1', 'h2', 'fake1']) {
    expect(bytes[host], host).toBeGreaterThan(0);
    expect(bytes[host], host).toBeLessThan(LIMIT);
  }
  expect(bytes['h3']).toBe(0);
}

describe('one endpoint among a thousand', () => {
  const made: Endpoint[] = [];

  beforeAll(async () => {
    await weftOk('network', 'create', NET, '--subnet', '10.77.0.0/16');
    networkId = (await weftJson<{ id: string }>('network', 'inspect', NET)).id;
    await Promise.all([sleeper('h1', 'interest-1', NET), sleeper('h2', 'interest-2', NET)]);
    const { coordinators, tls } = await labStatus();
    const id = newHostId();
    const ca = await readCa(tls.ca.replace(/\/[^/]*$/, ''));
    fake = await FakeAgent.connect({
      address: coordinators[0]?.address ?? '',
      tls: await issueHost(ca, id, 'fake1'),
      host: {
        id,
        name: 'fake1',
        // Of a machine that is not there: what is sent to it goes nowhere.
        vteps: [{ address: '192.0.2.77', encaps: ['vxlan'], encrypted: false }],
        datapath: 'netdev',
        versions: { weft: '0.1.0' },
        draining: false,
        createdAt: '',
        capabilities: [],
        underlayMtu: 1500,
        backend: 'ovs-tunnel',
        express: false,
        probes: [],
      },
      hello: { interest: [networkId] },
    });
    const began = Date.now();
    for (let first = 0; first < MANY; first += PER_BLOCK) {
      const block = await fake.block(networkId);
      const [a, b, c, d] = (block.cidr.split('/')[0] ?? '').split('.').map(Number);
      const batch = Array.from({ length: Math.min(PER_BLOCK, MANY - first) }, (_, i) =>
        anEndpoint(id, first + i + 1, `${a}.${b}.${c}.${(d ?? 0) + i + 2}`),
      );
      await fake.register(batch);
      made.push(...batch);
    }
    figure('endpoints registered', { endpoints: made.length, ms: Date.now() - began });
    await until('the mesh knows them', async () => {
      const list = await weftJson<object[]>('endpoint', 'ls', '--network', NET);
      return list.length === MANY + 2;
    });
    await settled(HOSTS);
  });

  afterAll(async () => {
    await fake?.register(
      [],
      made.map((e) => e.id),
    );
    await fake?.close();
    await until(
      'fake1 is down',
      async () => (await weftJson<{ state: string }>('host', 'inspect', 'fake1')).state === 'down',
    );
    await weftOk('host', 'rm', 'fake1');
    await clean(HOSTS);
    await auditClean();
  });

  const at = (i: number): Endpoint => {
    const endpoint = made[i];
    if (endpoint === undefined) throw new Error(`no endpoint ${i}`);
    return endpoint;
  };

  it('changed: less than 2 KB to each host of its network, nothing to others', async () => {
    const changed = { ...at(500), labels: { ...at(500).labels, 'com.example.role': 'leader' } };
    expectOnlyInterested(await sentBy('a change', () => fake?.register([changed]) ?? Promise.resolve()));
  });

  it('gone, and new: the same', async () => {
    expectOnlyInterested(await sentBy('a removal', () => fake?.register([], [at(700).id]) ?? Promise.resolve()));
    expectOnlyInterested(await sentBy('an addition', () => fake?.register([at(700)]) ?? Promise.resolve()));
  });

  it('a container that comes and goes: the same', async () => {
    // Endpoint, container's name, port number: three changes at most.
    const start = await sentBy('docker run', async () => {
      await sleeper('h1', 'interest-3', NET);
      await until('it is known', async () => {
        const list = await weftJson<{ container: { name: string } | null; ofport: number | null }[]>('endpoint', 'ls');
        return list.some((e) => e.container?.name === 'interest-3' && (e.ofport ?? 0) > 0);
      });
    });
    expectOnlyInterested(start);
    const stop = await sentBy('docker rm', async () => {
      await docker('h1', 'rm', '-f', 'interest-3');
      await until('it is gone', async () => (await weftJson<object[]>('endpoint', 'ls')).length === MANY + 2);
    });
    expectOnlyInterested(stop);
  });

  it('and a host has flows for its blocks, not for each endpoint', async () => {
    const flows = await Promise.all(HOSTS.map(async (host) => metricOf(await agentMetrics(host), 'weft_flows')));
    figure('flows', { h1: flows[0] ?? 0, h2: flows[1] ?? 0, h3: flows[2] ?? 0 });
    expect(flows[0]).toBeLessThan(120);
    // Bits 15..0 of a cookie are a network's index: without an endpoint there is no flow of any.
    const dump = await onOk('h3', 'ovs-ofctl', '-O', 'OpenFlow14', '--no-stats', 'dump-flows', 'br-weft');
    expect([...dump.matchAll(/cookie=0x[0-9a-f]*([0-9a-f]{4}),/g)].filter(([, index]) => index !== '0000')).toEqual([]);
  });
});

describe('an agent without a coordinator', () => {
  const ORPHAN = ['wft0fedcba98765', 'wfc0fedcba98765'] as const;
  const flow = 'table=0,priority=7777,ip,nw_src=203.0.113.9,actions=drop';
  const flows = (): Promise<string> => onOk('h1', 'ovs-ofctl', '-O', 'OpenFlow14', 'dump-flows', 'br-weft');
  const cookies = (text: string): number =>
    text.split('\n').filter((line) => line.includes('cookie=0x57656674')).length;

  afterEach(async () => {
    for (const coordinator of ['coord1', 'coord2']) await weftOk('lab', 'start', coordinator);
    await weftOk('lab', 'start', 'h1', 'agent');
    await settled(HOSTS);
  });
  afterAll(async () => {
    await clean(HOSTS);
    await auditClean();
  });

  it.each([
    ['started again', false],
    ['started again without its copy of the view', true],
  ])('%s: removes nothing, repairs what is missing', async (_, forget) => {
    const net = forget ? 'interest-c' : 'interest-b';
    await weftOk('network', 'create', net);
    await Promise.all([sleeper('h1', `${net}-1`, net), sleeper('h2', `${net}-2`, net)]);
    const there = await addressOf('h2', `${net}-2`, net);
    await until('it reaches the other host', () => pings('h1', `${net}-1`, there));
    await settled(HOSTS);
    const before = cookies(await flows());
    const { hosts } = await labStatus();
    const h1 = hosts.find((h) => h.name === 'h1');
    const here = await addressOf('h1', `${net}-1`, net);
    const pinging = watch('h2', net, here, 'interest-watcher');
    await pinging.answered(0);
    const withWatcher = cookies(await flows());

    for (const coordinator of ['coord1', 'coord2']) await weftOk('lab', 'kill', coordinator);
    await weftOk('lab', 'kill', 'h1', 'agent');
    if (forget) await rm(`${h1?.stateDir}/agent/view.json`);
    // Of an earlier life, for all the agent can know.
    await onOk('h1', 'ip', 'link', 'add', ORPHAN[0], 'type', 'veth', 'peer', 'name', ORPHAN[1]);
    await onOk('h1', 'ovs-ofctl', '-O', 'OpenFlow14', 'add-flow', 'br-weft', `cookie=0x5765667400000001,${flow}`);
    await onOk('h1', 'ovs-ofctl', '-O', 'OpenFlow14', '--strict', 'del-flows', 'br-weft', 'table=8,priority=0');
    await weftOk('lab', 'start', 'h1', 'agent');
    await until('the missing flow is back', async () => /table=8, .*priority=0 actions=drop/.test(await flows()));
    // Two audits, which read everything anew.
    for (let i = 0; i < 2; i++) await agentDrift(h1?.agentSocket ?? '');
    expect(metricOf(await agentMetrics('h1'), 'weft_in_sync')).toBe(0);
    const alone = await flows();
    expect(cookies(alone)).toBe(withWatcher + 1);
    expect(alone).toContain('priority=7777');
    expect((await on('h1', 'ip', 'link', 'show', ORPHAN[0])).code).toBe(0);
    expect(await docker('h1', 'network', 'ls', '--format', '{{.Name}}')).toContain(net);
    await until('it reaches the other host', () => pings('h1', `${net}-1`, there));
    await pinging.answered(Date.now());
    const { sent: packets, lost, maxGapMs } = await pinging.stop();
    figure(`agent without a coordinator${forget ? ' and view' : ''}`, { packets, lost, maxGapMs });

    expect(lost).toBe(0);

    for (const coordinator of ['coord1', 'coord2']) await weftOk('lab', 'start', coordinator);
    await settled(HOSTS);
    await until('clean', async () => (await audit('--no-heal')).code === 0, 15_000);
    const after = await flows();
    expect(after).not.toContain('priority=7777');
    expect(cookies(after)).toBe(before);
    expect((await on('h1', 'ip', 'link', 'show', ORPHAN[0])).code).not.toBe(0);
    await until('it reaches the other host', () => pings('h1', `${net}-1`, there));
  });
});
