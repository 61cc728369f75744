/**
 * Drift made with other people's tools, one kind of object after another: it is healed, told as an event and counted; with `heal: false`
 * it is named by the audit, and left (invariants I4, I7).
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  agentMetrics,
  audit,
  configure,
  coordinatorMetrics,
  type DriftEvent,
  driftEvents,
  etcdctl,
  etcdGet,
  metricOf,
  settled,
} from '../harness/drift.ts';
import {
  block,
  type Case,
  DOCKER,
  ETCD,
  FLOWS,
  HEALED_MS,
  HOSTS,
  ip,
  JUNK_LINK,
  KERNEL,
  key,
  LINKS,
  OTHER,
  ofctl,
  PORTS,
  reach,
  see,
  seen,
  TUNNEL,
  vsctl,
} from '../harness/drift-cases.ts';
import { addressOf, auditClean, clean, docker, on, sleeper, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { figure } from '../harness/lab-direct.ts';

beforeAll(async () => {
  for (const network of ['drift-a', 'drift-b', 'drift-c']) await weftOk('network', 'create', network);
  await Promise.all([
    sleeper('h1', 'drift-1', 'drift-a'),
    sleeper('h2', 'drift-2', 'drift-a'),
    sleeper('h2', 'drift-3', 'drift-b'),
  ]);
  seen.ip1 = await addressOf('h1', 'drift-1', 'drift-a');
  seen.ip2 = await addressOf('h2', 'drift-2', 'drift-a');
  const field = '{{(index .NetworkSettings.Networks "drift-a").EndpointID}}';
  await see(await docker('h1', 'inspect', '-f', field, 'drift-1'));
  const network = await weftJson<{ id: string; vni: number }>('network', 'inspect', 'drift-a');
  seen.networkId = network.id;
  seen.vni = network.vni;
  seen.hostId = (await weftJson<{ id: string }>('host', 'inspect', 'h1')).id;
  await reach();
  await until('the containers are known', async () => {
    const list = await weftJson<{ container: object | null }[]>('endpoint', 'ls');
    return list.length === 3 && list.every((e) => e.container !== null);
  });
  await settled(HOSTS);
});
afterAll(async () => {
  await vsctl('--if-exists', 'del-br', OTHER);
  await clean(HOSTS);
});

const matches = (want: string | RegExp, object: string): boolean =>
  typeof want === 'string' ? want === object : want.test(object);

async function driftCount(c: Case): Promise<number> {
  if (c.kind === 'etcdKey') {
    const all = await coordinatorMetrics();
    return all.reduce((n, text) => n + metricOf(text, 'weft_drift_total', { kind: c.kind }), 0);
  }
  return metricOf(await agentMetrics('h1'), 'weft_drift_total', { kind: c.kind });
}

describe.each([
  ['flows', FLOWS],
  ['ports and bridge', PORTS],
  ['links', LINKS],
  ['the kernel side', KERNEL],
  ["Docker's networks", DOCKER],
  ['keys of etcd', ETCD],
])('drift of %s heals by itself', (_, cases) => {
  it.each(cases)('$name', async (c) => {
    const before = await driftCount(c);
    const began = Date.now();
    await c.make();
    const made = Date.now();
    const told = await until<DriftEvent>(
      `event of ${c.kind} ${c.object()} ${c.change}`,
      async () =>
        (await driftEvents(began)).find(
          (e) =>
            e.host === (c.host ?? 'h1') &&
            e.kind === c.kind &&
            e.action === c.change &&
            matches(c.object(), e.object) &&
            e.healedAt !== null,
        ),
      HEALED_MS,
    );
    const healed = Date.parse(told.healedAt ?? '');
    expect(healed - made).toBeLessThan(HEALED_MS);
    figure(`drift ${c.kind} ${c.change}: ${c.name}`, {
      sinceMadeMs: healed - made,
      sinceDetectedMs: healed - Date.parse(told.detectedAt),
    });
    await until('clean', async () => (await audit('--no-heal')).code === 0, HEALED_MS);
    expect(await driftCount(c)).toBeGreaterThan(before);
    await reach();
  });
});

describe('what Docker does in order is no drift', () => {
  it('docker network disconnect and connect', async () => {
    const began = Date.now();
    await docker('h1', 'network', 'disconnect', 'drift-a', 'drift-1');
    await docker('h1', 'network', 'connect', '--ip', seen.ip1, 'drift-a', 'drift-1');
    await reach();
    const field = '{{(index .NetworkSettings.Networks "drift-a").EndpointID}}';
    await see(await docker('h1', 'inspect', '-f', field, 'drift-1'));
    await auditClean();
    expect(await driftEvents(began)).toEqual([]);
  });
});

/** Named, all of them, with exit code 1. */
async function named(host: string, want: readonly (readonly [string, string, string | RegExp])[]): Promise<void> {
  const { code, hosts } = await audit('--no-heal');
  const drift = hosts.filter((h) => h.host === host).flatMap((h) => h.drift);
  for (const [kind, change, object] of want)
    expect(
      drift.some((d) => d.kind === kind && d.change === change && matches(object, d.object)),
      `${kind} ${change} ${object} among ${JSON.stringify(drift, null, 1)}`,
    ).toBe(true);
  expect(code).toBe(1);
}

describe('with heal: false', () => {
  it('names what differs on a host, and leaves it', async () => {
    await configure('h1', { heal: false });
    await settled(HOSTS);
    await auditClean();
    const began = Date.now();
    await vsctl('set', 'bridge', 'br-weft', 'protocols=OpenFlow10,OpenFlow14');
    await ofctl('add-flow', 'br-weft', 'table=0,priority=7777,ip,actions=drop');
    await ofctl('--strict', 'del-flows', 'br-weft', 'table=4,priority=0');
    await ofctl('mod-flows', 'br-weft', 'table=44,actions=drop');
    await vsctl('add-port', 'br-weft', 'junk0', '--', 'set', 'interface', 'junk0', 'type=internal');
    await vsctl('clear', 'interface', seen.port, 'external_ids');
    await ip('link', 'set', seen.link, 'mtu', '900');
    await ip('link', 'add', JUNK_LINK[0], 'type', 'veth', 'peer', 'name', JUNK_LINK[1]);
    await on('h1', 'docker', 'network', 'rm', 'drift-b');
    const want: [string, string, string | RegExp][] = [
      ['flow', 'extra', /priority=7777/],
      ['flow', 'missing', /table=4[, ]/],
      ['flow', 'differs', /table=44/],
      ['port', 'extra', 'junk0'],
      ['port', 'differs', seen.port],
      ['bridge', 'differs', 'br-weft'],
      ['link', 'differs', seen.link],
      ['link', 'extra', JUNK_LINK[0]],
      ['dockerNetwork', 'missing', 'drift-b'],
    ];
    await named('h1', want);
    // Not even an audit that might heal touches it.
    expect((await audit('--host', 'h1')).code).toBe(1);
    await named('h1', want);
    const events = await driftEvents(began);
    expect(events.filter((e) => e.healedAt !== null)).toEqual([]);
    for (const [kind, change, object] of want)
      expect(
        events.some((e) => e.kind === kind && e.action === change && matches(object, e.object)),
        `event of ${kind} ${change} ${object}`,
      ).toBe(true);
  });

  it('names what is missing on a host', async () => {
    await vsctl('del-port', 'br-weft', TUNNEL);
    await named('h1', [['port', 'missing', TUNNEL]]);
    await ip('link', 'del', seen.link);
    await named('h1', [['link', 'missing', seen.link]]);
    await vsctl('del-br', 'br-weft');
    await named('h1', [['bridge', 'missing', 'br-weft']]);
  });

  it('heals all of it once it may', async () => {
    await configure('h1', { heal: true });
    await settled(HOSTS);
    await until('clean', async () => (await audit('--no-heal')).code === 0, HEALED_MS);
    await reach();
  });

  it('names what differs in etcd, and leaves it; an audit that may heal puts it right', async () => {
    for (const coordinator of ['coord1', 'coord2']) await configure(coordinator, { heal: false });
    await settled(HOSTS);
    await auditClean();
    const lost = await weftJson<{ id: string; vni: number }>('network', 'inspect', 'drift-c');
    const record = `/weft/v1/default/networks/${lost.id}`;
    const blockKey = await block();
    await etcdctl('put', '/weft/v1/junk', 'x');
    await etcdctl('del', key.name());
    await etcdctl('put', key.vni(), 'ffffffffffffffff');
    await etcdctl('put', '/weft/v1/default/names/nobody', 'ffffffffffffffff');
    await etcdctl('del', record);
    await etcdctl('del', key.endpoint());
    await etcdctl('del', blockKey);
    await until('the coordinators have seen it', async () => (await audit('--no-heal')).code === 1);
    await named('etcd', [
      ['etcdKey', 'extra', '/weft/v1/junk'],
      ['etcdKey', 'missing', key.name()],
      ['etcdKey', 'differs', key.vni()],
      ['etcdKey', 'extra', '/weft/v1/default/names/nobody'],
      ['etcdKey', 'missing', record],
    ]);
    await named('h1', [
      ['etcdKey', 'missing', key.endpoint()],
      ['etcdKey', 'missing', blockKey],
    ]);
    expect(await etcdGet('/weft/v1/junk')).toBe('x');
    expect((await audit()).code).toBe(1);
    expect(await etcdGet('/weft/v1/junk')).toBeNull();
    expect(await etcdGet(record)).toContain('drift-c');
    for (const coordinator of ['coord1', 'coord2']) await configure(coordinator, { heal: true });
    await settled(HOSTS);
    await until('clean', async () => (await audit('--no-heal')).code === 0, HEALED_MS);
    expect(await etcdGet(key.endpoint())).toContain(seen.ip1);
    expect(await etcdGet(blockKey)).toContain(seen.hostId);
    await reach();
  });
});

describe('a host that cannot be audited', () => {
  it('is named, with exit code 3', async () => {
    await weftOk('lab', 'kill', 'h3', 'agent');
    await until('h3 is seen to be down', async () => {
      const host = await weftJson<{ state: string }>('host', 'inspect', 'h3');
      return host.state === 'down';
    });
    const { code, hosts } = await audit('--no-heal');
    expect(code).toBe(3);
    expect(hosts.find((h) => h.host === 'h3')?.error).toContain('h3');
    expect(hosts.filter((h) => h.host !== 'h3' && h.error !== null)).toEqual([]);
    const text = await weft('audit', '--no-heal');
    expect(text.stdout).toContain('h3: could not be audited');
    await weftOk('lab', 'start', 'h3', 'agent');
    await settled(HOSTS);
    await auditClean();
  });
});
