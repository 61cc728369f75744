import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { OpenFlowClient } from '../../../agent/openflow/client.ts';
import { FlowDriver, type FlowUpdate } from '../../../agent/openflow/driver.ts';
import type { Flow } from '../../../agent/openflow/flow.ts';
import { OvsDriver, type OvsStep } from '../../../agent/ovs/driver.ts';
import { Ovsdb } from '../../../agent/ovs/ovsdb.ts';
import { startOvs, type TestOvs, until } from '../../harness/ovs.ts';

const bridge: OvsStep = {
  kind: 'ensureBridge',
  name: 'br0',
  datapathType: 'netdev',
  failMode: 'secure',
  externalIds: {},
  otherConfig: {},
};
const flow = (port: number, cookie = 7n): Flow => ({
  table: 3,
  priority: 10,
  cookie,
  match: [{ field: 'in_port', value: BigInt(port) }],
  actions: [{ type: 'output', port: port + 1 }],
});

describe('connections', () => {
  let ovs: TestOvs;
  let db: Ovsdb;
  let ports: OvsDriver;
  let client: OpenFlowClient;
  let flows: FlowDriver;

  beforeEach(async () => {
    ovs = await startOvs();
    db = new Ovsdb({ path: ovs.dbSock });
    ports = new OvsDriver(db);
    client = new OpenFlowClient({ path: ovs.mgmtSock('br0') });
    flows = new FlowDriver(client);
    // The bridge is not there yet: the client waits for it.
    client.start();
    db.start();
    await db.ready();
    await ports.apply([bridge]);
    await client.ready();
  });
  afterEach(async () => {
    client.close();
    db.close();
    await ovs[Symbol.asyncDispose]();
  });

  it('come back after ovs-vswitchd was restarted, and say so', async () => {
    const ups: string[] = [];
    client.onUp(() => ups.push('up'));
    client.onDown((reason) => ups.push(reason.code));
    await flows.apply({ add: [flow(1)], remove: [] });
    await ovs.kill('ovs-vswitchd');
    await until('the client has noticed', () => !client.connected);
    await expect(flows.apply({ add: [flow(2)], remove: [] })).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(flows.observe()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    // The database takes the transaction, but nobody applies it.
    await expect(ports.apply([bridge], { timeoutMs: 200 })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('ovs-vswitchd does not answer'),
    });
    await ovs.start('ovs-vswitchd');
    await client.ready();
    expect(await flows.observe()).toEqual([]);
    expect(ups).toEqual(['up', 'UNAVAILABLE', 'up']);
    await flows.apply({ add: [flow(1)], remove: [] });
    await ports.apply([bridge]);
    expect(await flows.observe()).toHaveLength(1);
  });

  it('come back after ovsdb-server was restarted, with a fresh cache', async () => {
    const seen: string[] = [];
    db.onUp(() => seen.push('up'));
    db.onDown((reason) => seen.push(reason.code));
    await ovs.kill('ovsdb-server');
    await until('the client has noticed', () => !db.connected);
    await expect(ports.apply([bridge])).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    expect(ports.observe().bridges.has('br0')).toBe(true);
    await ovs.start('ovsdb-server');
    await ovs.vsctl('add-br', 'br1', '--', 'set', 'bridge', 'br1', 'datapath_type=netdev');
    await db.ready();
    await until('br1 is seen', () => ports.observe().bridges.has('br1'));
    await ports.apply([{ kind: 'delBridge', name: 'br1' }]);
    expect(seen).toEqual(['up', 'UNAVAILABLE', 'up']);
  });

  it('do not forget calls that are under way when the daemon dies', async () => {
    process.kill(ovs.pid('ovs-vswitchd'), 'SIGSTOP');
    const calls = Promise.allSettled([
      flows.observe(),
      flows.apply({ add: [flow(1)], remove: [] }),
      ports.apply([bridge]),
    ]);
    await ovs.kill('ovs-vswitchd');
    await ovs.kill('ovsdb-server');
    for (const result of await calls) {
      expect(result).toMatchObject({ status: 'rejected', reason: { code: 'UNAVAILABLE' } });
    }
  });

  it('a silent daemon counts as dead', async () => {
    const probing = new OpenFlowClient({ path: ovs.mgmtSock('br0'), idleMs: 50 });
    const database = new Ovsdb({ path: ovs.dbSock, idleMs: 50 });
    probing.start();
    database.start();
    await Promise.all([probing.ready(), database.ready()]);
    const down = new Promise<string>((resolve) => probing.onDown((reason) => resolve(reason.message)));
    const databaseDown = new Promise<string>((resolve) => database.onDown((reason) => resolve(reason.message)));
    // Alive but idle for several probes: stays connected.
    await flows.apply({ add: [], remove: [] });
    await until('probes were answered', async () => {
      await flows.observe();
      return true;
    });
    process.kill(ovs.pid('ovs-vswitchd'), 'SIGSTOP');
    process.kill(ovs.pid('ovsdb-server'), 'SIGSTOP');
    expect(await down).toMatch(/not answered/);
    expect(await databaseDown).toMatch(/not answered/);
    process.kill(ovs.pid('ovsdb-server'), 'SIGCONT');
    process.kill(ovs.pid('ovs-vswitchd'), 'SIGCONT');
    await Promise.all([probing.ready(), database.ready()]);
    probing.close();
    database.close();
  });

  it('tell of what others change: rows', async () => {
    let changes = 0;
    db.onChange(() => changes++);
    // ovs-vswitchd may still be writing what became of the new bridge; an empty step itself tells nothing.
    await until('an empty step brings no change', async () => {
      const before = changes;
      await ports.apply([]);
      return changes === before;
    });
    const quiet = changes;
    await ovs.vsctl('set', 'bridge', 'br0', 'external_ids:who=me');
    await until('the change is seen', () => ports.observe().bridges.get('br0')?.externalIds['who'] === 'me');
    expect(changes).toBeGreaterThan(quiet);
    await ports.apply([bridge]);
    expect(ports.observe().bridges.get('br0')?.externalIds).toEqual({});
  });

  it('tell of what others change: flows, and not of what we change', async () => {
    const updates: FlowUpdate[] = [];
    const stop = flows.watchFlows((some) => updates.push(...some));
    await flows.apply({ add: [flow(1), flow(2)], remove: [] });
    await flows.apply({ add: [flow(1, 8n)], remove: [flow(2)] });
    await client.barrier();
    expect(updates).toEqual([]);
    const start = performance.now();
    await ovs.ofctl('add-flow', 'br0', 'table=9,priority=5,ip,nw_dst=10.0.0.1,actions=drop');
    await until('the addition is told', () => updates.length === 1);
    expect(performance.now() - start).toBeLessThan(1000);
    expect(updates[0]).toEqual({
      event: 'added',
      table: 9,
      priority: 5,
      cookie: 0n,
      match: [
        { field: 'eth_type', value: 0x0800n },
        { field: 'ipv4_dst', value: 0x0a000001n },
      ],
    });
    await ovs.ofctl('mod-flows', 'br0', 'table=3,actions=drop');
    await until('the change is told', () => updates.length === 2);
    expect(updates[1]).toMatchObject({ event: 'modified', table: 3, cookie: 8n });
    await ovs.ofctl('del-flows', 'br0');
    await until('the removals are told', () => updates.length >= 4);
    expect(updates.slice(2).map((update) => update.event)).toEqual(['removed', 'removed']);
    // It goes on with the next connection.
    await ovs.kill('ovs-vswitchd');
    await until('the client has noticed', () => !client.connected);
    await ovs.start('ovs-vswitchd');
    await client.ready();
    await client.barrier();
    await ovs.ofctl('add-flow', 'br0', 'actions=drop');
    await until('the next addition is told', () => updates.length === 5);
    stop();
    await ovs.ofctl('del-flows', 'br0');
    await client.barrier();
    expect(updates).toHaveLength(5);
  });

  it('foreign flows with what we do not know are seen, and can be removed', async () => {
    await ovs.ofctl('add-flow', 'br0', 'table=1,actions=sample(probability=12345,collector_set_id=1)');
    await ovs.ofctl('add-flow', 'br0', 'table=2,tun_gbp_id=5,actions=note:01.02.03');
    await ovs.ofctl('add-flow', 'br0', 'table=3,actions=write_actions(output:1)');
    const seen = await flows.observe();
    const kinds = seen.map((f) => [f.table, f.match.map((m) => m.field), f.actions.map((a) => a.type)] as const);
    expect(kinds.sort(([a], [b]) => a - b)).toEqual([
      [1, [], ['raw']],
      [2, ['raw'], ['raw']],
      [3, [], ['raw_instruction']],
    ]);
    await flows.apply({ add: [], remove: seen });
    expect(await flows.observe()).toEqual([]);
  });

  it('a switch without watching, a path without socket: no harm', async () => {
    const nobody = new OpenFlowClient({ path: `${ovs.dir}/nothing`, backoffMs: [1, 5] });
    nobody.start();
    await expect(nobody.ready(50)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    await expect(new FlowDriver(nobody).apply({ add: [flow(1)], remove: [] })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
    nobody.close();
    const database = new Ovsdb({ path: `${ovs.dir}/nothing`, backoffMs: [1, 5] });
    database.start();
    await expect(database.ready(50)).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    database.close();
  });
});
