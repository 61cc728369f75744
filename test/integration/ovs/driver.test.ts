import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { appctl, trace, waitForRevalidators } from '../../../agent/ovs/appctl.ts';
import { OvsDriver, type OvsStep } from '../../../agent/ovs/driver.ts';
import { Ovsdb } from '../../../agent/ovs/ovsdb.ts';
import { startOvs, type TestOvs, until } from '../../harness/ovs.ts';

const bridge: OvsStep = {
  kind: 'ensureBridge',
  name: 'br-weft',
  datapathType: 'netdev',
  failMode: 'secure',
  externalIds: { 'weft-owner': 'test' },
  otherConfig: { hwaddr: '02:00:00:00:00:01' },
};
const port = (name: string, more: Partial<Extract<OvsStep, { kind: 'addPort' }>> = {}): OvsStep => ({
  kind: 'addPort',
  bridge: 'br-weft',
  name,
  type: '',
  options: {},
  externalIds: {},
  ...more,
});

describe('OVSDB driver', () => {
  let ovs: TestOvs;
  let db: Ovsdb;
  let driver: OvsDriver;

  beforeAll(async () => {
    ovs = await startOvs();
    db = new Ovsdb({ path: ovs.dbSock });
    driver = new OvsDriver(db);
    db.start();
    await db.ready();
    await driver.apply([bridge]);
  });
  afterAll(async () => {
    await db[Symbol.asyncDispose]();
    await ovs[Symbol.asyncDispose]();
  });
  const veth = async (name: string): Promise<void> => {
    await ovs.exec('ip', 'link', 'add', name, 'type', 'veth', 'peer', 'name', `${name}p`);
  };

  it('makes a bridge, and sees it', async () => {
    const seen = driver.observe().bridges.get('br-weft');
    expect(seen).toMatchObject({
      datapathType: 'netdev',
      failMode: 'secure',
      externalIds: { 'weft-owner': 'test' },
      otherConfig: { hwaddr: '02:00:00:00:00:01' },
    });
    await until(
      'the local port is there',
      () => driver.observe().bridges.get('br-weft')?.ports.get('br-weft')?.macInUse === '02:00:00:00:00:01',
    );
    expect(driver.observe().bridges.get('br-weft')?.ports.get('br-weft')?.ofport).toBe(65534);
    expect(await driver.observeFresh()).toEqual(driver.observe());
    expect(driver.observe().datapathTypes).toContain('netdev');
  });

  it('adds a veth, repeats it, sets it, removes it', async () => {
    await veth('v1');
    const step = port('v1', { externalIds: { 'weft-endpoint': 'e1' } });
    const first = (await driver.apply([step])).ports.get('v1');
    expect(first?.error).toBeNull();
    expect(first?.ofport).toBeGreaterThan(0);
    expect((await driver.apply([step])).ports.get('v1')).toEqual(first);
    await driver.apply([
      { kind: 'setPort', bridge: 'br-weft', name: 'v1', mtuRequest: 1400, ingress: { rate: 1000, burst: 100 } },
    ]);
    expect(driver.observe().bridges.get('br-weft')?.ports.get('v1')).toMatchObject({
      externalIds: { 'weft-endpoint': 'e1' },
      mtuRequest: 1400,
      ingress: { rate: 1000, burst: 100 },
    });
    // Added again as at first: what the step does not have is cleared.
    await driver.apply([step]);
    expect(driver.observe().bridges.get('br-weft')?.ports.get('v1')).toMatchObject({
      mtuRequest: null,
      ingress: { rate: 0, burst: 0 },
    });
    await driver.apply([{ kind: 'delPort', bridge: 'br-weft', name: 'v1' }]);
    expect(driver.observe().bridges.get('br-weft')?.ports.has('v1')).toBe(false);
    await driver.apply([{ kind: 'delPort', bridge: 'br-weft', name: 'v1' }]);
    expect(await ovs.vsctl('list-ports', 'br-weft')).toBe('');
  });

  it('reports the device that is missing, with the others in place', async () => {
    await veth('v2');
    const { ports } = await driver.apply([port('v2'), port('nosuch0')]);
    expect(ports.get('v2')?.ofport).toBeGreaterThan(0);
    expect(ports.get('nosuch0')?.ofport).toBeNull();
    expect(ports.get('nosuch0')?.error).toMatch(/No such device/);
    await driver.apply([
      { kind: 'delPort', bridge: 'br-weft', name: 'v2' },
      { kind: 'delPort', bridge: 'br-weft', name: 'nosuch0' },
    ]);
  });

  it('takes the device up when it appears, and notices when it goes', async () => {
    await driver.apply([port('late0')]);
    await veth('late0');
    const seen = () => driver.observe().bridges.get('br-weft')?.ports.get('late0');
    await until('the port is up', () => (seen()?.ofport ?? -1) > 0 && seen()?.error === null);
    const first = { ofport: seen()?.ofport, ifindex: seen()?.ifindex };
    await ovs.exec('ip', 'link', 'del', 'late0');
    await until('the device is gone', () => seen()?.ifindex === 0);
    await veth('late0');
    await until('another device is seen', () => (seen()?.ifindex ?? 0) > 0);
    expect(seen()?.ifindex).not.toBe(first.ifindex);
    await driver.apply([{ kind: 'delPort', bridge: 'br-weft', name: 'late0' }]);
    const { ports } = await driver.apply([port('late0')]);
    expect(ports.get('late0')?.ofport).toBeGreaterThan(first.ofport!);
    await driver.apply([{ kind: 'delPort', bridge: 'br-weft', name: 'late0' }]);
  });

  it('the cache holds a transaction’s own effects, also without waiting for ovs-vswitchd', async () => {
    for (let i = 0; i < 50; i++) {
      const bridges = [...db.rows.Bridge.values()];
      const where = [['_uuid', '==', ['uuid', bridges[0]!.uuid]]];
      await db.transact([{ op: 'update', table: 'Bridge', where, row: { external_ids: ['map', [['n', String(i)]]] } }]);
      expect(db.rows.Bridge.get(bridges[0]!.uuid)?.externalIds).toEqual({ n: String(i) });
    }
    await driver.apply([bridge]);
  });

  it('a transaction that fails changes nothing, and says what failed', async () => {
    await expect(
      db.transact([
        { op: 'insert', table: 'Bridge', row: { name: 'x' } },
        { op: 'insert', table: 'Bridge', row: { nonsense: 1 } },
      ]),
    ).rejects.toMatchObject({ code: 'INTERNAL', message: expect.stringContaining('insert in Bridge') });
    await expect(
      db.transact([{ op: 'wait', table: 'Bridge', where: [], columns: ['name'], until: '==', rows: [], timeout: 0 }]),
    ).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(
      db.transact([
        { op: 'comment', table: '', comment: 'x' },
        { op: 'abort', table: '' },
      ]),
    ).rejects.toMatchObject({ code: 'INTERNAL' });
  });

  it('many at once', async () => {
    const names = Array.from({ length: 20 }, (_, i) => `m${i}`);
    for (const name of names) await veth(name);
    const results = await Promise.all(names.map((name) => driver.apply([port(name)])));
    const numbers = results.map(({ ports }, i) => ports.get(names[i]!)?.ofport);
    expect(new Set(numbers).size).toBe(20);
    await driver.apply(names.map((name) => ({ kind: 'delPort', bridge: 'br-weft', name })));
    expect([...driver.observe().bridges.get('br-weft')!.ports.keys()]).toEqual(['br-weft']);
  });

  it('speaks to ovs-vswitchd’s control socket', async () => {
    expect(await appctl(ovs.ctlSock, 'version')).toMatch(/Open vSwitch/);
    await waitForRevalidators(ovs.ctlSock);
    expect(await trace(ovs.ctlSock, 'br-weft', 'in_port=LOCAL,ip,nw_dst=10.0.0.1')).toMatch(/Datapath actions: drop/);
    await expect(appctl(ovs.ctlSock, 'no/such')).rejects.toMatchObject({
      code: 'INTERNAL',
      message: expect.stringContaining('not a valid command'),
    });
    await expect(appctl(`${ovs.ctlSock}x`, 'version')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  it('makes a tunnel port whose remote and key come from flows', async () => {
    const step = port('weft-vxlan', { type: 'vxlan', options: { remote_ip: 'flow', key: 'flow', dst_port: '4789' } });
    const { ports } = await driver.apply([step]);
    expect(ports.get('weft-vxlan')).toEqual({ ofport: expect.any(Number), error: null });
    expect(driver.observe().bridges.get('br-weft')?.ports.get('weft-vxlan')).toMatchObject({
      type: 'vxlan',
      options: { remote_ip: 'flow', key: 'flow', dst_port: '4789' },
    });
    await driver.apply([{ kind: 'delPort', bridge: 'br-weft', name: 'weft-vxlan' }]);
  });

  it('makes and removes a bridge with its ports in one call each, and moves a port between bridges', async () => {
    await veth('v3');
    await driver.apply([port('v3'), { ...bridge, name: 'br-two' }, port('v4', { bridge: 'br-two', type: 'internal' })]);
    expect([...driver.observe().bridges.get('br-two')!.ports.keys()].sort()).toEqual(['br-two', 'v4']);
    const { ports } = await driver.apply([port('v3', { bridge: 'br-two' })]);
    expect(ports.get('v3')?.ofport).toBeGreaterThan(0);
    expect(driver.observe().bridges.get('br-weft')?.ports.has('v3')).toBe(false);
    await driver.apply([{ kind: 'delBridge', name: 'br-two' }]);
    await driver.apply([{ kind: 'delBridge', name: 'br-two' }]);
    expect([...driver.observe().bridges.keys()]).toEqual(['br-weft']);
    await expect(driver.apply([port('v3', { bridge: 'br-two' })])).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(driver.apply([{ kind: 'setPort', bridge: 'br-weft', name: 'v3' }])).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
  });

  it('attaches a veth in milliseconds', async () => {
    const times: number[] = [];
    for (let i = 0; i < 10; i++) {
      await veth(`t${i}`);
      const start = performance.now();
      await driver.apply([port(`t${i}`)]);
      times.push(performance.now() - start);
    }
    times.sort((a, b) => a - b);
    console.log(`addPort p50 ${times[5]!.toFixed(2)} ms`);
    expect(times[0]).toBeLessThan(50);
    await driver.apply(times.map((_, i) => ({ kind: 'delPort', bridge: 'br-weft', name: `t${i}` })));
  });
});
