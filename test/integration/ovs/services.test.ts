/** Virtual addresses and the host's questions, traced through a real switch. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import { OpenFlowClient } from '../../../agent/openflow/client.ts';
import { FlowDriver } from '../../../agent/openflow/driver.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { SERVED, servicesModel } from '../../harness/flow-models.ts';
import { startOvs, type TestOvs } from '../../harness/ovs.ts';

const MAC = '02:58:0a:01:00:02';
const HOST = '02:57:65:66:74:01';
const LINK = '02:57:65:66:74:02';
const [TRANSIT, GATEWAY] = ['169.254.70.1', '169.254.64.1'];
const [TRANSIT6, GATEWAY6] = ['fd57:6566:7400::a9fe:4601', 'fd57:6566:7400::a9fe:4001'];

describe('services', () => {
  let ovs: TestOvs;
  let client: OpenFlowClient;

  beforeAll(async () => {
    ovs = await startOvs();
    await ovs.vsctl('add-br', 'br0', '--', 'set', 'bridge', 'br0', 'datapath_type=netdev', 'fail_mode=secure');
    for (const n of [1, 2, 3, 9]) {
      const port = ['set', 'interface', `p${n}`, 'type=internal', `ofport_request=${n}`];
      await ovs.vsctl('add-port', 'br0', `p${n}`, '--', ...port);
    }
    client = new OpenFlowClient({ path: ovs.mgmtSock('br0') });
    client.start();
    await client.ready();
    const flows = [...render({ ...servicesModel(SERVED), maxMeters: 0 }, new Map()).values()];
    const driver = new FlowDriver(client);
    await driver.apply({ add: flows, remove: await driver.observe() });
    expect((await driver.observe()).map(formatFlow).sort()).toEqual(flows.map(formatFlow).sort());
  }, 30_000);
  afterAll(async () => {
    client.close();
    await ovs[Symbol.asyncDispose]();
  });

  /** What leaves, and where to ("IN_PORT" as a number); empty: nothing does. */
  const trace = async (packet: string): Promise<{ fields: Record<string, string>; actions: string }> => {
    const text = await ovs.exec('ovs-appctl', '-t', ovs.ctlSock, 'ofproto/trace', 'br0', packet);
    const final = /Final flow: (.*)/.exec(text)?.[1] ?? '';
    const pairs = final.split(',').map((part) => part.trim().split('='));
    const fields = Object.fromEntries(pairs.filter((pair): pair is [string, string] => pair.length === 2));
    return { fields, actions: /Datapath actions: (.*)/.exec(text)?.[1] ?? '' };
  };
  const from2 = `in_port=2,dl_src=${MAC},dl_dst=${HOST}`;
  const fromHost = `in_port=9,dl_src=${LINK},dl_dst=${HOST}`;

  test('a virtual address answers a ping, in both families', async () => {
    const four = await trace(`${from2},icmp,nw_src=10.1.0.2,nw_dst=10.1.0.200,icmp_type=8,icmp_code=0`);
    expect(four.fields).toMatchObject({ nw_src: '10.1.0.200', nw_dst: '10.1.0.2', icmp_type: '0', dl_dst: MAC });
    expect(four.actions).not.toBe('drop');
    const six = await trace(
      `${from2},icmp6,ipv6_src=fd00:1::2,ipv6_dst=fd00:1::200,nw_ttl=64,icmpv6_type=128,icmpv6_code=0`,
    );
    expect(six.fields).toMatchObject({ ipv6_src: 'fd00:1::200', ipv6_dst: 'fd00:1::2', icmp_type: '129', dl_dst: MAC });
    expect(six.actions).not.toBe('drop');
  });

  test('it has no other ports, nor leads to the host', async () => {
    for (const packet of [
      `${from2},tcp,nw_src=10.1.0.2,nw_dst=10.1.0.200,tcp_dst=81`,
      `${from2},tcp,nw_src=10.1.0.2,nw_dst=10.1.0.200,tcp_dst=81,tcp_flags=ack`,
      `${from2},udp6,ipv6_src=fd00:1::2,ipv6_dst=fd00:1::200,udp_dst=81`,
    ])
      expect((await trace(packet)).actions).toBe('drop');
  });

  test('an endpoint is asked from its gateway, and only answers come back', async () => {
    const asked = await trace(`${fromHost},tcp,nw_src=${GATEWAY},nw_dst=${TRANSIT},tcp_dst=80,tcp_flags=syn`);
    expect(asked.fields).toMatchObject({ nw_src: '10.1.0.1', nw_dst: '10.1.0.2', dl_src: HOST, dl_dst: MAC });
    expect(asked.actions).not.toBe('drop');
    const to = `${from2},tcp,nw_src=10.1.0.2,nw_dst=10.1.0.1,tcp_src=80`;
    const answer = await trace(`${to},tcp_flags=syn|ack`);
    expect(answer.fields).toMatchObject({ nw_src: TRANSIT, nw_dst: GATEWAY, dl_src: HOST, dl_dst: LINK });
    expect(answer.actions).not.toBe('drop');
    expect((await trace(`${to},tcp_flags=rst|ack`)).actions).not.toBe('drop');
    expect((await trace(`${to},tcp_flags=syn`)).actions).toBe('drop');
    expect((await trace(`${from2},udp,nw_src=10.1.0.2,nw_dst=10.1.0.1,udp_src=80`)).actions).toBe('drop');
  });

  test('by IPv6 as well', async () => {
    const asked = await trace(`${fromHost},tcp6,ipv6_src=${GATEWAY6},ipv6_dst=${TRANSIT6},tcp_dst=80,tcp_flags=syn`);
    expect(asked.fields).toMatchObject({ ipv6_src: 'fd00:1::1', ipv6_dst: 'fd00:1::2', dl_src: HOST, dl_dst: MAC });
    const to = `${from2},tcp6,ipv6_src=fd00:1::2,ipv6_dst=fd00:1::1,tcp_src=80`;
    const answer = await trace(`${to},tcp_flags=syn|ack`);
    expect(answer.fields).toMatchObject({ ipv6_src: TRANSIT6, ipv6_dst: GATEWAY6, dl_dst: LINK });
    expect((await trace(`${to},tcp_flags=syn`)).actions).toBe('drop');
  });
});
