import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import { OpenFlowClient } from '../../../agent/openflow/client.ts';
import { FlowDriver } from '../../../agent/openflow/driver.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { IPV6_MODEL } from '../../harness/flow-models.ts';
import { startOvs, type TestOvs } from '../../harness/ovs.ts';

const A = { mac: '02:58:0a:80:00:02', ll: 'fe80::58:aff:fe80:2' };

describe('neighbour discovery and probes, traced through a real switch', () => {
  let ovs: TestOvs;
  let client: OpenFlowClient;

  beforeAll(async () => {
    ovs = await startOvs();
    await ovs.vsctl('add-br', 'br0', '--', 'set', 'bridge', 'br0', 'datapath_type=netdev', 'fail_mode=secure');
    await ovs.vsctl('set', 'bridge', 'br0', 'other_config:disable-in-band=true');
    const tunnel = ['type=vxlan', 'options:remote_ip=flow', 'options:key=flow', 'ofport_request=1'];
    await ovs.vsctl('add-port', 'br0', 'tun', '--', 'set', 'interface', 'tun', ...tunnel);
    for (const n of [2, 3, 4])
      await ovs.vsctl(
        'add-port',
        'br0',
        `p${n}`,
        '--',
        'set',
        'interface',
        `p${n}`,
        'type=internal',
        `ofport_request=${n}`,
      );
    client = new OpenFlowClient({ path: ovs.mgmtSock('br0') });
    client.start();
    await client.ready();
    const flows = [...render(IPV6_MODEL, new Map()).values()];
    const driver = new FlowDriver(client);
    await driver.apply({ add: flows, remove: await driver.observe() });
    // What the switch has is what was rendered.
    expect((await driver.observe()).map(formatFlow).sort()).toEqual(flows.map(formatFlow).sort());
  }, 30_000);
  afterAll(async () => {
    client.close();
    await ovs[Symbol.asyncDispose]();
  });

  const trace = (packet: string): Promise<string> =>
    ovs.exec('ovs-appctl', '-t', ovs.ctlSock, 'ofproto/trace', 'br0', packet);
  const finalOf = (text: string): string => /Final flow: (.*)/.exec(text)?.[1] ?? '';
  const actionsOf = (text: string): string => /Datapath actions: (.*)/.exec(text)?.[1] ?? '';

  /** A solicitation from port 2. */
  const ns = (target: string, source = 'fd00::2', sll = A.mac): Promise<string> =>
    trace(
      `in_port=2,dl_src=${A.mac},dl_dst=33:33:ff:00:00:01,icmp6,ipv6_src=${source},ipv6_dst=ff02::1:ff00:1,nw_ttl=255,icmpv6_type=135,icmpv6_code=0,nd_target=${target}${sll === '' ? '' : `,nd_sll=${sll}`}`,
    );
  const advertised = (final: string): Record<string, string> =>
    Object.fromEntries(
      final
        .split(',')
        .map((part) => part.split('='))
        .filter((pair): pair is [string, string] => pair.length === 2)
        .map(([key, value]) => [key.trim(), value]),
    );

  test.each([
    ['an endpoint here', 'fd00::3', '02:42:00:00:00:03'],
    ['an address of another host’s block', 'fd00::41', '02:59:00:00:00:41'],
    ['an address out of it, with an entry', 'fd00::49', '02:58:0a:80:00:39'],
    ['the link-local address of an endpoint here', 'fe80::42:ff:fe00:3', '02:42:00:00:00:03'],
    ['a link-local address of another host’s block', 'fe80::58:aff:fe80:2a', '02:58:0a:80:00:2a'],
    ['the link-local address of an entry', 'fe80::58:aff:fe80:39', '02:58:0a:80:00:39'],
  ])('%s is answered for', async (_what, target, mac) => {
    for (const source of ['fd00::2', A.ll]) {
      const text = await ns(target, source);
      expect(advertised(finalOf(text))).toMatchObject({
        dl_src: mac,
        dl_dst: A.mac,
        ipv6_src: target,
        ipv6_dst: source,
        icmp_type: '136',
        nd_target: target,
        nd_tll: mac,
      });
      expect(actionsOf(text)).toMatch(/(^|,)\d+$/);
      expect(text).toContain('set_field:1610612736->nd_reserved');
    }
  });

  test('nobody answers for its own address, an address of nobody, another network', async () => {
    for (const target of ['fd00::2', A.ll, 'fd00::5', 'fd00::ffff:ffff:ffff:ffff', 'fd01::41', 'fd01::2'])
      expect(actionsOf(await ns(target)), target).toBe('drop');
  });

  test('duplicate address detection: known endpoints answer to all, holders of blocks are asked, others stay silent', async () => {
    for (const target of ['fd00::3', 'fd00::49', 'fe80::42:ff:fe00:3']) {
      const final = advertised(finalOf(await ns(target, '::', '')));
      expect(final, target).toMatchObject({ dl_dst: '33:33:00:00:00:01', ipv6_dst: 'ff02::1', icmp_type: '136' });
    }
    for (const target of ['fd00::41', 'fe80::58:aff:fe80:2a']) {
      const text = await ns(target, '::', '');
      expect(finalOf(text)).toContain('tun_dst=192.0.2.2');
      expect(finalOf(text)).toContain('icmp_type=135');
    }
    for (const target of ['fd00::2', A.ll, 'fd00::5'])
      expect(actionsOf(await ns(target, '::', '')), target).toBe('drop');
  });

  test('IPv6 alone: alias and own MAC are one', async () => {
    const source = '02:59:00:00:00:02';
    const ask = (target: string): Promise<string> =>
      trace(
        `in_port=4,dl_src=${source},dl_dst=33:33:ff:00:00:01,icmp6,ipv6_src=fd01::2,ipv6_dst=ff02::1:ff00:1,nw_ttl=255,icmpv6_type=135,icmpv6_code=0,nd_target=${target},nd_sll=${source}`,
      );
    expect(advertised(finalOf(await ask('fd01::7f')))).toMatchObject({ nd_tll: '02:59:00:00:00:7f' });
    expect(advertised(finalOf(await ask('fe80::59:ff:fe00:7f')))).toMatchObject({ nd_tll: '02:59:00:00:00:7f' });
    expect(actionsOf(await trace(`in_port=4,dl_src=${source},dl_dst=ff:ff:ff:ff:ff:ff,ip,nw_src=10.0.0.1`))).toBe(
      'drop',
    );
  });

  test('frames for an alias MAC: to the block’s host, and there to the endpoint, with its own MAC', async () => {
    const out = await trace(
      `in_port=2,dl_src=${A.mac},dl_dst=02:59:00:00:00:41,udp6,ipv6_src=fd00::2,ipv6_dst=fd00::41,udp_src=1,udp_dst=2`,
    );
    expect(finalOf(out)).toContain('tun_dst=192.0.2.2');
    const arrived = await trace(
      `in_port=1,tun_id=4096,tun_src=192.0.2.2,dl_src=02:58:0a:80:00:2a,dl_dst=02:59:00:00:00:03,udp6,ipv6_src=fd00::41,ipv6_dst=fd00::3,udp_src=1,udp_dst=2`,
    );
    expect(finalOf(arrived)).toContain('dl_dst=02:42:00:00:00:03');
    expect(actionsOf(arrived)).toMatch(/^set\(eth\(dst=02:42:00:00:00:03\)\),\d+$|^set\(eth\(.*\)\),\d+$/);
  });

  test('what is not true of an endpoint is dropped', async () => {
    const icmp6 = (type: number, more: string, source = 'fd00::2'): string =>
      `in_port=2,dl_src=${A.mac},dl_dst=33:33:00:00:00:01,icmp6,ipv6_src=${source},ipv6_dst=ff02::1,nw_ttl=255,icmpv6_type=${type},icmpv6_code=0${more}`;
    const dropped: readonly (readonly [string, string])[] = [
      [
        'another’s address',
        `in_port=2,dl_src=${A.mac},dl_dst=02:42:00:00:00:03,udp6,ipv6_src=fd00::3,ipv6_dst=fd00::41`,
      ],
      ['another’s link-local address', icmp6(128, '', 'fe80::1')],
      [
        'another’s MAC',
        'in_port=2,dl_src=02:00:00:00:00:01,dl_dst=02:42:00:00:00:03,udp6,ipv6_src=fd00::2,ipv6_dst=fd00::3',
      ],
      ['a router advertisement', icmp6(134, '', A.ll)],
      ['a redirect', icmp6(137, '', A.ll)],
      ['a solicitation with another’s MAC in it', icmp6(135, ',nd_target=fd00::3,nd_sll=02:00:00:00:00:01')],
      ['an advertisement for another’s address', icmp6(136, `,nd_target=fd00::3,nd_tll=${A.mac}`)],
      ['an advertisement with another’s MAC in it', icmp6(136, ',nd_target=fd00::2,nd_tll=02:00:00:00:00:01')],
      ['no address, and no question', icmp6(128, '', '::')],
    ];
    for (const [what, packet] of dropped) expect(actionsOf(await trace(packet)), what).toBe('drop');
    const passed: readonly (readonly [string, string])[] = [
      ['its own advertisement', icmp6(136, `,nd_target=fd00::2,nd_tll=${A.mac}`)],
      ['a report of group membership', icmp6(143, '', '::')],
      ['a report from its link-local address', icmp6(143, '', A.ll)],
      ['a router solicitation', icmp6(133, '', A.ll)],
    ];
    for (const [what, packet] of passed) expect(actionsOf(await trace(packet)), what).not.toBe('drop');
  });

  test('the same of IPv4 (RFC 5227): probes of known addresses are answered, of blocks sent to their holder', async () => {
    const arp = (op: number, spa: string, tpa: string, sha = A.mac): Promise<string> =>
      trace(
        `in_port=2,dl_src=${A.mac},dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=${op},arp_spa=${spa},arp_tpa=${tpa},arp_sha=${sha},arp_tha=00:00:00:00:00:00`,
      );
    for (const [tpa, mac] of [
      ['10.128.0.3', '02:42:00:00:00:03'],
      ['10.128.0.57', '02:58:0a:80:00:39'],
    ] as const)
      expect(advertised(finalOf(await arp(1, '0.0.0.0', tpa)))).toMatchObject({
        arp_op: '2',
        arp_spa: tpa,
        arp_sha: mac,
      });
    const asked = finalOf(await arp(1, '0.0.0.0', '10.128.0.40'));
    expect(asked).toContain('tun_dst=192.0.2.2');
    expect(asked).toContain('arp_op=1');
    for (const own of ['10.128.0.2', '10.128.0.99']) expect(actionsOf(await arp(1, '0.0.0.0', own)), own).toBe('drop');
    expect(actionsOf(await arp(2, '10.128.0.2', '0.0.0.0'))).not.toBe('drop');
    expect(actionsOf(await arp(2, '10.128.0.3', '0.0.0.0'))).toBe('drop');
    expect(actionsOf(await arp(1, '0.0.0.0', '10.128.0.3', '02:00:00:00:00:01'))).toBe('drop');
  });
});
