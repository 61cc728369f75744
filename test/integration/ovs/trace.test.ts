/**
 * One packet of every kind through the rendered pipeline, as ofproto/trace (ovs-vswitchd(8)) says it goes: the tables and priorities that
 * it meets, and what the datapath is told to do with it. Written down in trace-BACKEND.txt; `vitest -u` writes them anew.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import { OpenFlowClient } from '../../../agent/openflow/client.ts';
import { FlowDriver } from '../../../agent/openflow/driver.ts';
import { startOvs, type TestOvs, until } from '../../harness/ovs.ts';
import { KERNEL_TUNNELS, networks, OVS_TUNNELS, PORTS, packets, viaKernel, viaOvs } from './trace-cases.ts';

const BRIDGE = 'br-weft';
const BACKENDS = [
  { name: 'ovs-tunnel', tunnels: OVS_TUNNELS, by: viaOvs },
  { name: 'kernel-tunnel', tunnels: KERNEL_TUNNELS, by: viaKernel },
] as const;

describe.each(BACKENDS)('$name', ({ name, tunnels, by }) => {
  let ovs: TestOvs;
  /** Datapath port number → name. */
  let names: ReadonlyMap<string, string>;

  beforeAll(async () => {
    ovs = await startOvs();
    const types: Readonly<Record<string, string>> =
      tunnels.kind === 'ovs' ? { tun: 'vxlan', geneve: 'geneve', gre: 'gre' } : {};
    const ports = Object.entries(PORTS).flatMap(([number, port]) => {
      const type = types[port] ?? 'internal';
      const options =
        type === 'internal' ? [] : ['options:remote_ip=flow', 'options:key=flow', 'options:local_ip=192.0.2.1'];
      const settings = [`type=${type}`, `ofport_request=${number}`, ...options];
      return ['--', 'add-port', BRIDGE, port, '--', 'set', 'interface', port, ...settings];
    });
    await ovs.vsctl(
      'add-br',
      BRIDGE,
      '--',
      'set',
      'bridge',
      BRIDGE,
      'datapath_type=netdev',
      'fail_mode=secure',
      'protocols=OpenFlow14',
      ...ports,
    );
    if (tunnels.kind === 'ovs') await underlay();
    const client = new OpenFlowClient({ path: ovs.mgmtSock(BRIDGE) });
    client.start();
    await client.ready();
    const flows = [...render({ tunnels, networks, maxMeters: 0 }, new Map()).values()];
    await new FlowDriver(client).apply({ add: flows, remove: [] });
    client.close();
    names = new Map(
      [...(await appctl('dpif/show')).matchAll(/^\s+(\S+) \d+\/(\d+):/gm)].map(([, port = '', n = '']) => [n, port]),
    );
  });
  afterAll(() => ovs?.[Symbol.asyncDispose]());

  /** Where Open vSwitch's own tunnels in user space leave by: a bridge with the VTEP's address, and neighbours that it knows. */
  async function underlay(): Promise<void> {
    await ovs.vsctl(
      'add-br',
      'phy',
      '--',
      'set',
      'bridge',
      'phy',
      'datapath_type=netdev',
      '--',
      'add-port',
      'phy',
      'nic',
      '--',
      'set',
      'interface',
      'nic',
      'type=internal',
    );
    await ovs.exec('ip', 'addr', 'add', '192.0.2.1/24', 'dev', 'phy');
    await ovs.exec('ip', 'link', 'set', 'phy', 'up');
    for (const n of [2, 3, 9]) await appctl('tnl/neigh/set', 'phy', `192.0.2.${n}`, `02:77:c0:00:02:0${n}`);
    await until('the route is known', async () => (await appctl('ovs/route/show')).includes('192.0.2.0/24'));
  }

  const appctl = (...args: string[]): Promise<string> => ovs.exec('ovs-appctl', '-t', ovs.ctlSock, ...args);

  async function traced(packet: string): Promise<string> {
    const text = await appctl('ofproto/trace', BRIDGE, packet);
    const [, actions = ''] = /^Datapath actions: (.*)$/m.exec(text) ?? [];
    // Weft's flows, by their cookies: the underlay's bridge is none of ours.
    const met = [...text.matchAll(/^\s*(\d+)\. .*?(?:priority (\d+), cookie 0x57656674|No match)/gm)].map(
      ([, table, priority]) => `${table}:${priority ?? '-'}`,
    );
    return `  ${met.join(' ')}\n  ${readable(actions)}`;
  }

  /** Port numbers of the datapath, which differ from run to run, as names; what is put before a frame in a tunnel, in short. */
  function readable(full: string): string {
    const header =
      /tnl_push\(tnl_port\(\w+\),header\(.*?ipv4\(src=([\d.]+),dst=([\d.]+).*?((?:vxlan|geneve|gre)\(.*?)\),out_port\(\w+\)\),\w+/g;
    const actions = full.replaceAll(header, 'tunnel($3,$1->$2)');
    let depth = 0;
    let out = '';
    for (const part of actions.split(/([(),])/)) {
      if (part === '(') depth++;
      if (part === ')') depth--;
      out += depth === 0 && /^\d+$/.test(part) ? (names.get(part) ?? part) : part;
    }
    return out;
  }

  it('every packet goes as written down', async () => {
    let text = '';
    for (const [what, packet] of packets(by)) text += `${what}\n  ${packet}\n${await traced(packet)}\n\n`;
    await expect(text).toMatchFileSnapshot(`trace-${name}.txt`);
  });
});
