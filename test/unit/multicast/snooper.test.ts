import { describe, expect, it } from 'vitest';
import type { LocalEndpoint, LocalNetwork } from '../../../agent/contract.ts';
import { checksum, ip4Frame, readFrame } from '../../../agent/multicast/frame.ts';
import { Snooper } from '../../../agent/multicast/snooper.ts';
import { OFPP } from '../../../agent/openflow/flow.ts';
import type { PacketHandler } from '../../../agent/openflow/packets.ts';
import type { PacketIn, PacketOut } from '../../../agent/openflow/punted.ts';
import { EMPTY_VIEW } from '../../../agent/view.ts';
import { Network } from '../../../gen/weft/v1/types.ts';
import { FakeClock } from '../../../lib/clock.ts';
import { parseIp } from '../../../lib/ip.ts';
import { makeLog } from '../../../lib/log.ts';

const GROUP = '239.1.2.3';

const network = (id: string, encap = 'vxlan'): LocalNetwork => ({
  networkId: id,
  dockerNetworkId: id,
  name: id,
  index: 1,
  network: Network.fromPartial({ id, encap, allowTrust: true, subnets: ['10.0.0.0/24'], gateways: ['10.0.0.1'] }),
});
const endpoint = (id: string, networkId: string): LocalEndpoint => ({
  id,
  networkId,
  dockerNetworkId: networkId,
  ip: '10.0.0.2',
  prefix: 24,
  ip6: '',
  prefix6: 0,
  mac: '02:58:0a:00:00:02',
  givenMac: false,
  mtu: 1450,
  createdAt: '',
  sandbox: null,
  container: null,
  labels: {},
  aliases: [],
  interfaceName: null,
});

function report(port: number, kind: 'join' | 'leave', group = GROUP): PacketIn {
  const message = Buffer.alloc(8);
  message[0] = kind === 'join' ? 0x16 : 0x17;
  message.writeUInt32BE(parseIp(group), 4);
  message.writeUInt16BE(checksum([message]), 2);
  const to = { mac: 2n, source: 1n, destination: BigInt(parseIp(group)) };
  return {
    table: 52,
    cookie: 0n,
    reason: 1,
    data: ip4Frame(to, message),
    fullLength: 60,
    fields: new Map([['in_port', BigInt(port)]]),
    userdata: Buffer.from([1]),
  };
}

/** A host with endpoints a (port 2) and b (port 3) in network n, c (port 4) in a vlan network. */
function host() {
  const clock = new FakeClock();
  const endpoints = new Map(
    [endpoint('a', 'n'), endpoint('b', 'n'), endpoint('c', 'v')].map((e) => [e.id, e] as const),
  );
  const ports: Record<string, number | null> = { a: 2, b: 3, c: 4 };
  const mesh = { connected: true, complete: true, refuses: false };
  const sent: PacketOut[] = [];
  const registered: [string, readonly string[] | null][] = [];
  let handler: PacketHandler = () => undefined;
  let changes = 0;
  let repeats = 0;
  const snooper = new Snooper({
    journal: {
      endpoints,
      networks: new Map([
        ['n', network('n')],
        ['v', network('v', 'vlan')],
      ]),
    },
    mesh: {
      get connected() {
        return mesh.connected;
      },
      get complete() {
        return mesh.complete;
      },
      view: () => EMPTY_VIEW,
      registerMemberships: (id, groups) => {
        if (mesh.refuses) return Promise.reject(new Error('no'));
        registered.push([id, groups]);
        return Promise.resolve();
      },
    },
    packets: {
      on: (_kind, h) => {
        handler = h;
        return () => undefined;
      },
      send: (packet) => {
        sent.push(packet);
        return Promise.resolve();
      },
    },
    ofport: (id) => ports[id] ?? null,
    onChange: () => changes++,
    repeat: () => {
      repeats++;
      return Promise.resolve();
    },
    memory: {
      load: () => Promise.resolve({ networks: new Map(), heardAgoMs: Number.POSITIVE_INFINITY }),
      save: () => undefined,
      flush: () => Promise.resolve(),
    },
    clock,
    log: makeLog('agent', { level: 'silent' }),
  });
  const say = async (...args: Parameters<typeof report>): Promise<void> => {
    await handler(report(...args));
    await clock.advance(0);
  };
  return {
    clock,
    endpoints,
    ports,
    mesh,
    sent,
    registered,
    snooper,
    say,
    changes: () => changes,
    repeats: () => repeats,
  };
}

const members = (h: ReturnType<typeof host>): Record<string, string[]> | null => {
  const local = h.snooper.state()?.locals.get('n');
  return local === null || local === undefined
    ? null
    : Object.fromEntries([...local.groups].map(([g, ids]) => [g, [...ids]]));
};

describe('snooping', () => {
  it('knows nothing at first, asks everybody of its networks, then tells who wants what', async () => {
    const h = host();
    h.snooper.start();
    await h.clock.advance(100);
    expect(h.snooper.state()?.locals).toEqual(new Map([['n', null]]));
    expect(h.registered).toEqual([['n', null]]);
    expect(h.sent).toHaveLength(1);
    expect(h.sent[0]).toMatchObject({
      inPort: OFPP.CONTROLLER,
      actions: [
        { type: 'output', port: 2 },
        { type: 'output', port: 3 },
      ],
    });
    expect(readFrame(Buffer.from(h.sent[0]!.data))).toMatchObject({ source: BigInt(parseIp('10.0.0.1')) });
    await h.say(3, 'join');
    expect(members(h)).toBeNull();
    await h.clock.advance(7_000);
    expect(members(h)).toEqual({ [GROUP]: ['b'] });
    expect(h.registered).toEqual([
      ['n', null],
      ['n', [GROUP]],
    ]);
    await h.say(2, 'join');
    expect(members(h)).toEqual({ [GROUP]: ['b', 'a'] });
    await h.snooper.close();
  });

  it('asks who leaves, believes nobody’s port, and tells of a change at most once a second', async () => {
    const h = host();
    h.snooper.start();
    await h.clock.advance(10_000);
    h.sent.length = 0;
    h.registered.length = 0;
    await h.say(2, 'join');
    for (let i = 4; i < 20; i++) await h.say(2, 'join', `239.1.2.${i}`);
    expect(h.registered).toHaveLength(1);
    await h.clock.advance(2_000);
    expect(h.registered).toHaveLength(2);
    expect(h.registered[1]?.[1]).toHaveLength(17);
    await h.say(9, 'join', '239.9.9.9');
    await h.say(4, 'join', '239.9.9.9');
    expect(h.snooper.ignored).toBe(2);
    await h.say(2, 'leave');
    expect(h.sent.map((p) => p.actions)).toEqual([[{ type: 'output', port: 2 }]]);
    expect(members(h)).toHaveProperty([GROUP]);
    await h.clock.advance(3_000);
    expect(members(h)).not.toHaveProperty([GROUP]);
    h.endpoints.delete('a');
    await h.clock.advance(1_000);
    expect(members(h)).toEqual({});
    await h.snooper.close();
  });

  it('relies on others for ten seconds after the coordinator is gone, then floods', async () => {
    const h = host();
    h.snooper.start();
    await h.clock.advance(10_000);
    const before = h.changes();
    h.mesh.connected = false;
    await h.clock.advance(9_000);
    expect(h.snooper.state()).not.toBeNull();
    await h.clock.advance(2_000);
    expect(h.snooper.state()).toBeNull();
    expect(h.changes()).toBe(before + 1);
    const repeats = h.repeats();
    await h.clock.advance(60_000);
    expect(h.repeats()).toBe(repeats);
    h.mesh.connected = true;
    await h.clock.advance(11_000);
    expect(h.snooper.state()).not.toBeNull();
    expect(h.repeats()).toBeGreaterThan(repeats);
    await h.snooper.close();
  });

  it('tries again what was not taken, and forgets a network that has left', async () => {
    const h = host();
    h.mesh.refuses = true;
    h.snooper.start();
    await h.clock.advance(10_000);
    expect(h.registered).toEqual([]);
    h.mesh.refuses = false;
    await h.clock.advance(1_000);
    expect(h.registered).toEqual([['n', []]]);
    for (const id of ['a', 'b']) h.endpoints.delete(id);
    await h.clock.advance(2_000);
    expect(h.registered.at(-1)).toEqual(['n', null]);
    await h.snooper.close();
  });

  it('tells nothing of a network with a trusted endpoint, which may be a router', async () => {
    const h = host();
    h.endpoints.set('a', { ...endpoint('a', 'n'), trust: true });
    h.snooper.start();
    await h.clock.advance(10_000);
    expect(h.registered).toEqual([['n', null]]);
    h.endpoints.delete('a');
    await h.clock.advance(1_000);
    expect(h.registered.at(-1)).toEqual(['n', []]);
    await h.snooper.close();
  });

  it('knows of a network that comes while it listens that nobody has joined before', async () => {
    const h = host();
    for (const id of ['a', 'b']) h.endpoints.delete(id);
    h.snooper.start();
    await h.clock.advance(5_000);
    expect(members(h)).toEqual({});
    h.endpoints.set('a', endpoint('a', 'n'));
    await h.clock.advance(1_000);
    expect(members(h)).toEqual({});
    expect(h.registered).toEqual([['n', []]]);
    expect(h.sent).toHaveLength(1);
    await h.say(2, 'join');
    expect(members(h)).toEqual({ [GROUP]: ['a'] });
    await h.snooper.close();
  });

  it('is not known while the switch has no port for anybody', async () => {
    const h = host();
    h.ports['a'] = null;
    h.ports['b'] = null;
    h.snooper.start();
    await h.clock.advance(30_000);
    expect(members(h)).toBeNull();
    expect(h.sent).toEqual([]);
    h.ports['a'] = 2;
    await h.clock.advance(7_000);
    expect(members(h)).toEqual({});
    await h.snooper.close();
  });
});
