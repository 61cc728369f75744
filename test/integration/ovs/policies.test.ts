/**
 * Policies of random meshes: the verdict of two hosts' real pipelines on a connection's first packet is that of the reference evaluator.
 * WEFT_POLICY_MESHES says how many (default 40), WEFT_POLICY_SEED which.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Memo, render } from '../../../agent/flows/memo.ts';
import { OpenFlowClient } from '../../../agent/openflow/client.ts';
import { FlowDriver } from '../../../agent/openflow/driver.ts';
import { appctl } from '../../../agent/ovs/appctl.ts';
import { keyed, planFlows } from '../../../agent/plan/flows.ts';
import { startOvs, type TestOvs } from '../../harness/ovs.ts';
import { bridgeOf, HOSTS, type Mesh, type MeshEndpoint, mesh, packet, TUNNEL_PORT } from '../../harness/policy-mesh.ts';
import { passes, type RefPacket } from '../../reference/policy.ts';

const MESHES = Number(process.env['WEFT_POLICY_MESHES'] ?? 40);
const SEED = Number(process.env['WEFT_POLICY_SEED'] ?? 1);
const PORTS = 9;

describe('policies', () => {
  let ovs: TestOvs;
  const bridges = new Map<string, { client: OpenFlowClient; driver: FlowDriver; memo: Memo }>();

  beforeAll(async () => {
    ovs = await startOvs();
    for (const [i, host] of HOSTS.entries()) {
      await ovs.vsctl('add-br', host, '--', 'set', 'bridge', host, 'datapath_type=netdev', 'fail_mode=secure');
      for (let n = 1; n <= PORTS; n++) {
        const port = ['set', 'interface', `p${i}${n}`, 'type=internal', `ofport_request=${n}`];
        await ovs.vsctl('add-port', host, `p${i}${n}`, '--', ...port);
      }
      const client = new OpenFlowClient({ path: ovs.mgmtSock(host) });
      client.start();
      await client.ready();
      bridges.set(host, { client, driver: new FlowDriver(client), memo: new Map() });
    }
  }, 60_000);
  afterAll(async () => {
    for (const { client } of bridges.values()) client.close();
    await ovs[Symbol.asyncDispose]();
  });

  /** Flows that are there become those of the mesh, in one bundle a host: a rendering with memory, as agents do it. */
  const install = async (m: Mesh): Promise<void> => {
    for (const host of HOSTS) {
      const { driver, memo } = bridges.get(host)!;
      const steps = planFlows(render(bridgeOf(m, host), memo), keyed(await driver.observe())).map((p) => p.step);
      await driver.apply({
        add: steps.filter((s) => s.kind === 'addFlow').map((s) => s.flow),
        remove: steps.filter((s) => s.kind === 'removeFlow').map((s) => s.flow),
      });
    }
  };

  /** Where a new connection's packet leaves, and as what; empty: nowhere. */
  const trace = async (host: string, flow: string): Promise<string> => {
    const text = await appctl(ovs.ctlSock, 'ofproto/trace', [
      host,
      flow,
      '--ct-next',
      'trk,new',
      '--ct-next',
      'trk,new',
    ]);
    return [...text.matchAll(/Datapath actions: (.*)/g)].map(([, actions]) => actions).join(' ; ');
  };

  const arrives = async (from: MeshEndpoint, to: MeshEndpoint, six: boolean, p: RefPacket): Promise<boolean> => {
    const ip = (e: MeshEndpoint): string => e.ips.find((text) => text.includes(':') === six) ?? '';
    const names = { tcp: 'tcp', udp: 'udp', sctp: 'sctp', icmp: 'icmp' };
    const ends = six ? `ipv6_src=${ip(from)},ipv6_dst=${ip(to)}` : `nw_src=${ip(from)},nw_dst=${ip(to)}`;
    const what =
      p.protocol === 'icmp'
        ? `icmp_type=${p.type},icmp_code=${p.code}`.replaceAll('icmp_', six ? 'icmpv6_' : 'icmp_')
        : `${p.protocol}_src=40000,${p.protocol}_dst=${p.port}`;
    const kind = `${names[p.protocol]}${six ? '6' : ''}`;
    const frame = `dl_src=${from.mac},dl_dst=${to.mac},${kind},${ends},nw_ttl=64,${what}`;
    const left = await trace(from.host, `in_port=${from.ofport},${frame}`);
    if (from.host === to.host) return sends(left, portName(to));
    if (!sends(left, `p${HOSTS.indexOf(from.host as 'h1')}${TUNNEL_PORT}`)) return false;
    const index = from.network === 'n1' ? 1 : 2;
    const come = await trace(to.host, `in_port=${TUNNEL_PORT},dl_vlan=${index},${frame}`);
    return sends(come, portName(to));
  };
  const portName = (e: MeshEndpoint): string => `p${HOSTS.indexOf(e.host as 'h1')}${e.ofport}`;
  const numbers = new Map<string, string>();
  /** The last of the datapath's actions is an output to that port. */
  const sends = (actions: string, port: string): boolean => {
    const number = numbers.get(port);
    return number !== undefined && new RegExp(`(^|[ ,;])${number}$`).test(actions);
  };

  it(`of ${MESHES} meshes are what the reference says`, async () => {
    for (const line of (await appctl(ovs.ctlSock, 'dpctl/show')).split('\n')) {
      const [, number, name] = /port (\d+): (\S+)/.exec(line) ?? [];
      if (number !== undefined && name !== undefined) numbers.set(name, number);
    }
    let [allowed, denied] = [0, 0];
    const meshes = fc.sample(mesh, { numRuns: MESHES, seed: SEED });
    const packets = fc.sample(packet, { numRuns: 64 * MESHES, seed: SEED });
    for (const [i, m] of meshes.entries()) {
      await install(m);
      let turn = 0;
      for (const from of m.endpoints)
        for (const to of m.endpoints) {
          if (from === to || from.network !== to.network) continue;
          for (const six of [false, true]) {
            const pick = (e: MeshEndpoint): string | undefined => e.ips.find((text) => text.includes(':') === six);
            const [a, b] = [pick(from), pick(to)];
            if (a === undefined || b === undefined) continue;
            const p = packets[(64 * i + turn++) % packets.length]!;
            const want = passes(m, [from, a], [to, b], p);
            const have = await arrives(from, to, six, p);
            if (want) allowed++;
            else denied++;
            expect(have, `mesh ${i} of seed ${SEED}: ${a} to ${b}, ${JSON.stringify(p)}`).toBe(want);
          }
        }
    }
    console.log(`${allowed} connections allowed, ${denied} denied`);
    expect(Math.min(allowed, denied)).toBeGreaterThan(MESHES);
  }, 600_000);
});
