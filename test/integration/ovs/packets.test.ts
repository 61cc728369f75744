import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { OpenFlowClient } from '../../../agent/openflow/client.ts';
import { FlowDriver } from '../../../agent/openflow/driver.ts';
import { type Action, type Flow, type MatchField, OFPP } from '../../../agent/openflow/flow.ts';
import { formatMeter, type Meter } from '../../../agent/openflow/meter.ts';
import { Packets } from '../../../agent/openflow/packets.ts';
import type { PacketIn } from '../../../agent/openflow/punted.ts';
import { OvsDriver } from '../../../agent/ovs/driver.ts';
import { Ovsdb } from '../../../agent/ovs/ovsdb.ts';
import { planMeters } from '../../../agent/plan/meters.ts';
import { makeLog } from '../../../lib/log.ts';
import { startOvs, type TestOvs, until } from '../../harness/ovs.ts';

const KIND = 7;
const flow = (table: number, match: readonly MatchField[], actions: readonly Action[]): Flow => ({
  table,
  priority: 100,
  cookie: 0xabcdn,
  match,
  actions,
});
const frame = (last: number, size = 64): Buffer => {
  const bytes = Buffer.alloc(size, last);
  Buffer.from('0200000000010200000000ff88b5', 'hex').copy(bytes);
  return bytes;
};
/** What the kernel sends by itself on a new device is not this. */
const OURS: MatchField = { field: 'eth_type', value: 0x88b5n };
const punt = (more: Partial<Extract<Action, { type: 'controller' }>> = {}): Action => ({
  type: 'controller',
  maxLen: 0xffff,
  userdata: '0701020304',
  ...more,
});

describe('packets between switch and agent', () => {
  let ovs: TestOvs;
  let db: Ovsdb;
  let main: OpenFlowClient;
  let second: OpenFlowClient;
  let driver: FlowDriver;
  let packets: Packets;
  const ports = new Map<string, number>();
  let seen: PacketIn[] = [];
  const log = makeLog('agent', { level: 'error' });

  beforeAll(async () => {
    ovs = await startOvs();
    db = new Ovsdb({ path: ovs.dbSock });
    db.start();
    await db.ready();
    const bridge = new OvsDriver(db);
    await bridge.apply([
      {
        kind: 'ensureBridge',
        name: 'br0',
        datapathType: 'netdev',
        failMode: 'secure',
        externalIds: {},
        otherConfig: {},
      },
    ]);
    for (const name of ['va', 'vb']) {
      await ovs.exec('ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}p`);
      for (const end of [name, `${name}p`]) await ovs.exec('ip', 'link', 'set', end, 'up');
      const step = { kind: 'addPort' as const, bridge: 'br0', name, type: '' as const, options: {}, externalIds: {} };
      const { ports: there } = await bridge.apply([step]);
      ports.set(name, there.get(name)!.ofport!);
    }
    main = new OpenFlowClient({ path: ovs.mgmtSock('br0') });
    second = new OpenFlowClient({ path: ovs.mgmtSock('br0'), packetIns: true });
    main.start();
    second.start();
    await Promise.all([main.ready(), second.ready()]);
    driver = new FlowDriver(main);
    packets = new Packets({ client: second, log });
    packets.start();
  });
  afterAll(async () => {
    await packets.close();
    main.close();
    second.close();
    db.close();
    await ovs[Symbol.asyncDispose]();
  });
  beforeEach(async () => {
    await driver.apply({ add: [], remove: await driver.observe() });
    await driver.applyMeters(planMeters(new Map(), await driver.observeMeters()).map((p) => p.step));
    seen = [];
    packets.on(KIND, (packet) => void seen.push(packet));
  });
  const port = (name: string): number => ports.get(name)!;
  /** Sends a frame into a port, from the outside, `count` times. */
  const inject = async (name: string, bytes: Buffer, count = 1): Promise<void> => {
    const script =
      'import socket,sys,time\ns=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)\ns.bind((sys.argv[1],0))\n' +
      'for i in range(int(sys.argv[3])):\n s.send(bytes.fromhex(sys.argv[2]))\n if i % 20 == 19: time.sleep(0.002)';
    await ovs.exec('python3', '-c', script, `${name}p`, bytes.toString('hex'), String(count));
  };
  const count = async (match: (f: Flow) => boolean): Promise<bigint> =>
    (await driver.observe()).filter(match).reduce((sum, f) => sum + f.packets, 0n);

  it('packet-in arrives with registers, port, cookie, userdata; only where it was asked for', async () => {
    let onMain = 0;
    const stop = main.onMessage(() => onMain++);
    await driver.apply({
      add: [
        flow(
          0,
          [OURS, { field: 'in_port', value: BigInt(port('va')) }],
          [
            { type: 'set_field', field: 'reg0', value: 0x1234n },
            { type: 'set_field', field: 'tun_id', value: 77n },
            { type: 'goto', table: 52 },
          ],
        ),
        flow(52, [], [punt()]),
      ],
      remove: [],
    });
    await inject('va', frame(1));
    await until('a packet-in', () => seen.length === 1);
    const [packet] = seen;
    expect(packet).toMatchObject({ table: 52, cookie: 0xabcdn, reason: 1, fullLength: 64 });
    expect(packet?.data.equals(frame(1))).toBe(true);
    expect(packet?.userdata.toString('hex')).toBe('0701020304');
    expect(packet?.fields.get('reg0')).toBe(0x1234n);
    expect(packet?.fields.get('tun_id')).toBe(77n);
    expect(packet?.fields.get('in_port')).toBe(BigInt(port('va')));
    await main.barrier();
    expect(onMain).toBe(0);
    stop();
  });

  it('a frame comes whole: Open vSwitch has no buffers, so it takes no notice of maxLen', async () => {
    await driver.apply({ add: [flow(0, [OURS], [punt({ maxLen: 40 })])], remove: [] });
    await inject('va', frame(2, 200));
    await until('a packet-in', () => seen.length === 1);
    expect(seen[0]).toMatchObject({ fullLength: 200 });
    expect(seen[0]?.data.equals(frame(2, 200))).toBe(true);
  });

  it('packet-out leaves by a port, and through tables', async () => {
    await driver.apply({
      add: [
        flow(0, [], []),
        flow(9, [{ field: 'reg0', value: 5n }], [{ type: 'output', port: port('vb') }]),
        flow(0, [OURS, { field: 'in_port', value: BigInt(port('va')) }], [punt()]),
      ],
      remove: [],
    });
    await packets.send({
      inPort: OFPP.CONTROLLER,
      actions: [
        { type: 'set_field', field: 'reg0', value: 5n },
        { type: 'resubmit', table: 9 },
      ],
      data: frame(3),
    });
    await packets.send({ inPort: port('va'), actions: [{ type: 'output', port: port('vb') }], data: frame(3) });
    const received = async (): Promise<number> =>
      Number((await ovs.exec('cat', '/proc/net/dev')).match(/\bvbp:\s*\d+\s+(\d+)/)?.[1] ?? 0);
    const before = await received();
    await packets.send({ inPort: port('va'), actions: [{ type: 'output', port: port('vb') }], data: frame(3) });
    await until('the frame has left', async () => (await received()) > before);
    expect(await count((f) => f.table === 9)).toBe(1n);
    expect(seen).toEqual([]);
  });

  it('meters are made, seen, changed and removed, and name what was refused', async () => {
    const one: Meter = { id: 1, unit: 'packets', rate: 100, burst: 50 };
    const two: Meter = { id: 7, unit: 'kbit', rate: 1000, burst: 2000 };
    const want = (...list: Meter[]) => new Map(list.map((m) => [m.id, m]));
    const bring = async (...list: Meter[]): Promise<string[]> => {
      const planned = planMeters(want(...list), await driver.observeMeters());
      await driver.applyMeters(planned.map((p) => p.step));
      expect(planMeters(want(...list), await driver.observeMeters())).toEqual([]);
      return planned.map((p) => `${p.change} ${p.object}`);
    };
    expect(await bring(one, two)).toEqual(['missing meter=1', 'missing meter=7']);
    const text = (await ovs.ofctl('dump-meters', 'br0')).split('\n').map((line) => line.trim());
    expect(text.join(' ').replace(/\s+/g, ' ')).toContain(
      'meter=1 pktps burst stats bands= type=drop rate=100 burst_size=50',
    );
    expect(formatMeter(one)).toBe('meter=1 pktps burst bands=type=drop rate=100 burst_size=50');
    expect(await bring({ ...one, rate: 200 }, two)).toEqual(['differs meter=1']);
    await driver.apply({
      add: [
        flow(
          3,
          [],
          [
            { type: 'meter', meter: 7 },
            { type: 'output', port: 1 },
          ],
        ),
      ],
      remove: [],
    });
    expect(await bring({ ...one, rate: 200 })).toEqual(['extra meter=7']);
    // A meter that goes takes its flows along.
    expect(await driver.observe()).toEqual([]);
    await expect(driver.applyMeters([{ kind: 'addMeter', meter: one }])).rejects.toMatchObject({
      message: expect.stringMatching(/exists.*meter=1/),
    });
    const lost = flow(3, [], [{ type: 'meter', meter: 99 }]);
    await expect(driver.apply({ add: [lost], remove: [] })).rejects.toMatchObject({ code: 'INTERNAL' });
    await bring();
  });

  it('a meter limits, as instruction and in the controller action, and counts what it drops', async () => {
    await driver.applyMeters([
      { kind: 'addMeter', meter: { id: 1, unit: 'packets', rate: 10, burst: 100 } },
      { kind: 'addMeter', meter: { id: 2, unit: 'packets', rate: 10, burst: 20 } },
    ]);
    const out: Action = { type: 'output', port: port('vb') };
    await driver.apply({
      add: [
        flow(0, [OURS, { field: 'in_port', value: BigInt(port('va')) }], [{ type: 'meter', meter: 1 }, out]),
        flow(0, [OURS, { field: 'in_port', value: BigInt(port('vb')) }], [punt({ meter: 2 })]),
      ],
      remove: [],
    });
    const stats = async (id: number) => (await driver.meterStats()).get(id);
    await inject('va', frame(4), 1000);
    await until('a thousand were counted', async () => ((await stats(1))?.packets ?? 0n) >= 900n);
    const first = await stats(1);
    const passed = Number((first?.packets ?? 0n) - (first?.dropped ?? 0n));
    expect(passed).toBeGreaterThanOrEqual(90);
    expect(passed).toBeLessThan(300);
    await inject('vb', frame(5), 1000);
    await until('the punt meter has counted', async () => ((await stats(2))?.packets ?? 0n) >= 100n);
    await delay(200);
    expect(seen.length).toBeGreaterThan(0);
    expect(seen.length).toBeLessThan(200);
  });

  it('learn learns: a packet from a MAC makes the flow to it, at most so many', async () => {
    const whole = (field: 'reg0' | 'eth_dst' | 'eth_src' | 'in_port', nBits: number) => ({ field, ofs: 0, nBits });
    await driver.apply({
      add: [
        flow(
          0,
          [OURS],
          [
            { type: 'set_field', field: 'reg0', value: 3n },
            {
              type: 'learn',
              table: 48,
              priority: 300,
              idleTimeout: 60,
              cookie: 0xfeedn,
              limit: 4,
              specs: [
                { to: 'match', dst: whole('reg0', 32), from: whole('reg0', 32) },
                { to: 'match', dst: whole('eth_dst', 48), from: whole('eth_src', 48) },
                { to: 'load', dst: { field: 'reg2', ofs: 0, nBits: 16 }, from: whole('in_port', 16) },
              ],
            },
          ],
        ),
      ],
      remove: [],
    });
    for (let i = 0; i < 8; i++) {
      const bytes = frame(6);
      bytes[11] = i;
      await inject('va', bytes);
    }
    await until('all were seen', async () => (await count((f) => f.table === 0)) >= 8n);
    const learned = (await driver.observe()).filter((f) => f.table === 48);
    expect(learned).toHaveLength(4);
    expect(learned[0]).toMatchObject({ priority: 300, cookie: 0xfeedn, idleTimeout: 60 });
    expect(learned[0]?.actions).toEqual([
      { type: 'load', field: 'reg2', ofs: 0, nBits: 16, value: BigInt(port('va')) },
    ]);
    expect(learned.map((f) => f.match.find((m) => m.field === 'eth_dst')).every((m) => m !== undefined)).toBe(true);
  });

  it('a slow handler costs packets, which are counted, and nothing else', async () => {
    const slow = new Packets({ client: second, capacity: 10, log });
    let handled = 0;
    const gate = Promise.withResolvers<void>();
    slow.on(KIND, async () => {
      await gate.promise;
      handled++;
    });
    slow.start();
    await driver.apply({ add: [flow(0, [OURS], [punt()])], remove: [] });
    await inject('va', frame(7), 60);
    await until('packets were dropped', () => slow.counters.dropped > 0);
    await until('all have come', () => seen.length === slow.counters.received && seen.length >= 50);
    expect(slow.counters.received - slow.counters.dropped).toBeLessThanOrEqual(11);
    await driver.apply({ add: [], remove: await driver.observe() });
    gate.resolve();
    await until('the queue is empty', () => handled === slow.counters.received - slow.counters.dropped);
    await slow.close();
  });
});
