/**
 * `weft trace` over random meshes: the way that it finds through two hosts' real pipelines ends as the reference evaluator says, and where a
 * policy ends it, the words say which. WEFT_TRACE_MESHES says how many (default 12), WEFT_POLICY_SEED which.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Memo, render } from '../../../agent/flows/memo.ts';
import type { BridgeModel } from '../../../agent/flows/model.ts';
import { OpenFlowClient } from '../../../agent/openflow/client.ts';
import { FlowDriver } from '../../../agent/openflow/driver.ts';
import { appctl } from '../../../agent/ovs/appctl.ts';
import { keyed, planFlows } from '../../../agent/plan/flows.ts';
import { traceHere } from '../../../agent/trace/walk.ts';
import { type Ends, endsOf } from '../../../coordinator/trace/parties.ts';
import { type Found, follow } from '../../../coordinator/trace/way.ts';
import { Endpoint, Host, Network, TracePacket } from '../../../gen/weft/v1/types.ts';
import { bridgeOf, TUNNEL_PORT, VTEPS } from '../../harness/mesh-models.ts';
import { startOvs, type TestOvs } from '../../harness/ovs.ts';
import { HOSTS, type Mesh, type MeshEndpoint, mesh, packet } from '../../harness/policy-mesh.ts';
import { traceHost } from '../../harness/trace-host.ts';
import { passes, type RefPacket } from '../../reference/policy.ts';

const MESHES = Number(process.env['WEFT_TRACE_MESHES'] ?? 12);
const SEED = Number(process.env['WEFT_POLICY_SEED'] ?? 1);
const PORTS = 9;
const NUMBERS = { tcp: 6, udp: 17, sctp: 132 } as const;

describe.each(['kernel-tunnel', 'ovs-tunnel'] as const)('weft trace, %s', (backend) => {
  let ovs: TestOvs;
  const bridges = new Map<string, { client: OpenFlowClient; driver: FlowDriver; memo: Memo }>();

  beforeAll(async () => {
    ovs = await startOvs();
    for (const [i, host] of HOSTS.entries()) {
      await ovs.vsctl('add-br', host, '--', 'set', 'bridge', host, 'datapath_type=netdev', 'fail_mode=secure');
      for (let n = 1; n <= PORTS; n++) {
        const tunnel = n === TUNNEL_PORT && backend === 'ovs-tunnel';
        const ends = [`options:local_ip=${VTEPS[host]}`, 'options:remote_ip=flow', 'options:key=flow'];
        const type = tunnel ? ['type=vxlan', ...ends] : ['type=internal'];
        const port = ['set', 'interface', `p${i}${n}`, ...type, `ofport_request=${n}`];
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

  const tunnels: Pick<BridgeModel, 'tunnels'> | object =
    backend === 'ovs-tunnel' ? { tunnels: { kind: 'ovs', ports: { vxlan: TUNNEL_PORT } } } : {};
  const install = async (m: Mesh): Promise<void> => {
    for (const host of HOSTS) {
      const { driver, memo } = bridges.get(host)!;
      const steps = planFlows(render({ ...bridgeOf(m, host), ...tunnels }, memo), keyed(await driver.observe())).map(
        (p) => p.step,
      );
      await driver.apply({
        add: steps.filter((s) => s.kind === 'addFlow').map((s) => s.flow),
        remove: steps.filter((s) => s.kind === 'removeFlow').map((s) => s.flow),
      });
    }
  };

  /** The mesh as a coordinator has it. */
  const stateOf = (m: Mesh): Parameters<typeof follow>[0] => ({
    hosts: new Map(
      HOSTS.map((id) => [id, Host.fromPartial({ id, name: id, vteps: [{ address: VTEPS[id], encaps: ['vxlan'] }] })]),
    ),
    networks: new Map(
      [...m.networks].map(([id, { subnets }]) => [id, Network.fromPartial({ id, name: id, subnets: [...subnets] })]),
    ),
    endpoints: new Map(
      [...m.networks.keys()].map((id) => [
        id,
        new Map(
          m.endpoints
            .filter((e) => e.network === id)
            .map((e) => [
              e.id,
              Endpoint.fromPartial({ id: e.id, networkId: id, hostId: e.host, ips: [...e.ips], mac: e.mac }),
            ]),
        ),
      ]),
    ),
    services: new Map(),
    blocks: new Map(),
    externals: new Map(),
  });

  const traced = (m: Mesh, from: MeshEndpoint, to: MeshEndpoint, family: 4 | 6, p: RefPacket): Promise<Found> => {
    const state = stateOf(m);
    const ends: Ends = endsOf(state, { source: from.id, destination: to.id, family }, null);
    const icmp = p.protocol === 'icmp';
    const sent = TracePacket.fromPartial({
      sourceIp: ends.from,
      destinationIp: ends.to,
      protocol: p.protocol === 'icmp' ? (family === 4 ? 1 : 58) : NUMBERS[p.protocol],
      sourcePort: icmp ? 0 : 40_000,
      destinationPort: icmp ? 0 : p.port,
      icmpType: icmp ? p.type : 0,
      icmpCode: icmp ? p.code : 0,
      ttl: 64,
      length: 60,
    });
    return follow(state, ends, sent, (host, now, begin) => {
      const name = host.name as (typeof HOSTS)[number];
      const sources = traceHost(
        m,
        name,
        (flow, states) => {
          const next = states.flatMap((one) => ['--ct-next', one]);
          return appctl(ovs.ctlSock, 'ofproto/trace', [name, flow, ...next]);
        },
        backend,
      );
      if (begin.$case === 'tunnel') return traceHere(sources, { kind: 'tunnel', tunnel: begin.value }, now);
      return traceHere(sources, { kind: 'endpoint', id: from.id }, now);
    });
  };

  it(`of ${MESHES} meshes are what the reference says`, async () => {
    const counts = new Map<string, number>();
    const meshes = fc.sample(mesh, { numRuns: MESHES, seed: SEED });
    const packets = fc.sample(packet, { numRuns: 64 * MESHES, seed: SEED });
    for (const [i, m] of meshes.entries()) {
      await install(m);
      let turn = 0;
      for (const from of m.endpoints)
        for (const to of m.endpoints) {
          if (from === to || from.network !== to.network) continue;
          for (const family of [4, 6] as const) {
            const pick = (e: MeshEndpoint): string | undefined =>
              e.ips.find((text) => text.includes(':') === (family === 6));
            const [a, b] = [pick(from), pick(to)];
            if (a === undefined || b === undefined) continue;
            const p = packets[(64 * i + turn++) % packets.length]!;
            const found = await traced(m, from, to, family, p);
            const what = `mesh ${i} of seed ${SEED}: ${a} to ${b}, ${JSON.stringify(p)}: ${found.verdict}, ${found.reason}`;
            expect(found.verdict === 'delivered', what).toBe(passes(m, [from, a], [to, b], p));
            counts.set(found.verdict, (counts.get(found.verdict) ?? 0) + 1);
            if (found.verdict === 'delivered') {
              expect(found.host, what).toBe(to.host);
              continue;
            }
            const by =
              /^policy p\d, (in|e)gress rule \d of network n[12]$|the default of network n[12]$|labels of .* are not known/;
            expect(found.reason, what).toMatch(by);
            const last = found.hops.findLast((h) => h.stage.startsWith('policy'));
            expect(last?.what, what).toMatch(found.verdict === 'rejected' ? /: reject, / : /: drop, /);
          }
        }
    }
    console.log([...counts].map(([verdict, n]) => `${n} ${verdict}`).join(', '));
    expect(Math.min(counts.get('delivered') ?? 0, counts.get('dropped') ?? 0)).toBeGreaterThan(MESHES / 2);
  }, 600_000);
});
