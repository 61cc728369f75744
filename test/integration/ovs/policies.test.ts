/**
 * Policies and routers of random meshes: what two hosts' real pipelines do with a connection's first packet, from each endpoint to each address,
 * is what the reference evaluators say. WEFT_POLICY_MESHES says how many (default 60), WEFT_POLICY_SEED which.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Memo, render } from '../../../agent/flows/memo.ts';
import { OpenFlowClient } from '../../../agent/openflow/client.ts';
import { FlowDriver } from '../../../agent/openflow/driver.ts';
import { appctl } from '../../../agent/ovs/appctl.ts';
import { keyed, planFlows } from '../../../agent/plan/flows.ts';
import { bridgeOf, TUNNEL_PORT } from '../../harness/mesh-models.ts';
import { startOvs, type TestOvs } from '../../harness/ovs.ts';
import { ELSEWHERE, HOSTS, type Mesh, type MeshEndpoint, mesh, packet } from '../../harness/policy-mesh.ts';
import { judged, passes, type RefPacket, rivals, stagedOf } from '../../reference/policy.ts';
import { receivers } from '../../reference/routing.ts';

const MESHES = Number(process.env['WEFT_POLICY_MESHES'] ?? 60);
const SEED = Number(process.env['WEFT_POLICY_SEED'] ?? 1);
const PORTS = 9;
const GATEWAY = '02:57:65:66:74:01';

/** The first of some actions with each of the others: it came before them. */
const pairsOf = ([first = '', ...others]: readonly string[]): string[] => others.map((other) => `${first} ${other}`);

interface Seen {
  /** Who gets it; null: nobody. */
  readonly by: MeshEndpoint | null;
  /** Its sender is told. */
  readonly rejected: boolean;
  /** Direction, policy and place. */
  readonly staged: readonly string[];
}

describe('policies and routers', () => {
  let ovs: TestOvs;
  const bridges = new Map<string, { client: OpenFlowClient; driver: FlowDriver; memo: Memo }>();
  /** Staged ones: direction, policy and place by host, network and number. */
  const rules = new Map<string, string>();

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
    rules.clear();
    for (const host of HOSTS) {
      const { driver, memo } = bridges.get(host)!;
      const model = bridgeOf(m, host);
      for (const { index, policies } of model.networks)
        for (const { id, direction, staged } of policies?.rules ?? [])
          if (staged !== undefined) rules.set(`${host} ${index} ${id}`, `${direction} ${staged.policy} ${staged.rule}`);
      const steps = planFlows(render(model, memo), keyed(await driver.observe())).map((p) => p.step);
      await driver.apply({
        add: steps.filter((s) => s.kind === 'addFlow').map((s) => s.flow),
        remove: steps.filter((s) => s.kind === 'removeFlow').map((s) => s.flow),
      });
    }
  };

  /** Where a new connection's packet leaves, and as what; empty: nowhere. */
  const trace = async (host: string, flow: string): Promise<{ actions: string; staged: string[] }> => {
    const text = await appctl(ovs.ctlSock, 'ofproto/trace', [
      host,
      flow,
      '--ct-next',
      'trk,new',
      '--ct-next',
      'trk,new',
    ]);
    const actions = [...text.matchAll(/Datapath actions: (.*)/g)].map(([, one]) => one).join(' ; ');
    const hits = [...text.matchAll(/ 38\. reg0=(\w+),reg12=(\w+),/g)];
    return { actions, staged: hits.map(([, index, id]) => rules.get(`${host} ${Number(index)} ${Number(id)}`) ?? '?') };
  };

  /** What becomes of it, and which staged rules count it. */
  const seen = async (m: Mesh, from: MeshEndpoint, ip: string, p: RefPacket): Promise<Seen> => {
    const six = ip.includes(':');
    const own = from.ips.find((text) => text.includes(':') === six) ?? '';
    const near = m.endpoints.find((e) => e.network === from.network && e.ips.includes(ip));
    const names = { tcp: 'tcp', udp: 'udp', sctp: 'sctp', icmp: 'icmp' };
    const ends = six ? `ipv6_src=${own},ipv6_dst=${ip}` : `nw_src=${own},nw_dst=${ip}`;
    const what =
      p.protocol === 'icmp'
        ? `icmp_type=${p.type},icmp_code=${p.code}`.replaceAll('icmp_', six ? 'icmpv6_' : 'icmp_')
        : `${p.protocol}_src=40000,${p.protocol}_dst=${p.port}`;
    const kind = `${names[p.protocol]}${six ? '6' : ''}`;
    const frame = (src: string, dst: string, ttl: string): string =>
      `dl_src=${src},dl_dst=${dst},${kind},${ends},nw_ttl=${ttl},${what}`;
    const left = await trace(from.host, `in_port=${from.ofport},${frame(from.mac, near?.mac ?? GATEWAY, '64')}`);
    const here = m.endpoints.find((e) => e.host === from.host && sends(left.actions, portName(e)));
    const rejected = left.actions.includes('controller(');
    if (here !== undefined) return { by: here, rejected: false, staged: left.staged };
    if (!sends(left.actions, `p${HOSTS.indexOf(from.host as 'h1')}${TUNNEL_PORT}`))
      return { by: null, rejected, staged: left.staged };
    // As it is by then.
    const [, src = from.mac] = /eth\(src=([0-9a-f:]+)/.exec(left.actions) ?? [];
    const [, dst = near?.mac] = /eth\([^)]*dst=([0-9a-f:]+)/.exec(left.actions) ?? [];
    const [, index = ''] = /push_vlan\([^)]*vid=(\d+)/.exec(left.actions) ?? [];
    const [, ttl = '64'] = /(?:ttl|hlimit)=(\d+)/.exec(left.actions) ?? [];
    expect(ttl, left.actions).toBe(src === from.mac ? '64' : '63');
    const other = HOSTS.find((host) => host !== from.host)!;
    const come = await trace(other, `in_port=${TUNNEL_PORT},dl_vlan=${index},${frame(src, dst ?? GATEWAY, ttl)}`);
    return {
      by: m.endpoints.find((e) => e.host === other && sends(come.actions, portName(e))) ?? null,
      rejected: come.actions.includes('controller('),
      staged: [...left.staged, ...come.staged],
    };
  };
  const portName = (e: MeshEndpoint): string => `p${HOSTS.indexOf(e.host as 'h1')}${e.ofport}`;
  const numbers = new Map<string, string>();
  /** The last of the datapath's actions is an output to that port. */
  const sends = (actions: string, port: string): boolean => {
    const number = numbers.get(port);
    return number !== undefined && new RegExp(`(^|[ ,;])${number}$`).test(actions);
  };

  it(
    `of ${MESHES} meshes are what the references say`,
    async () => {
      for (const line of (await appctl(ovs.ctlSock, 'dpctl/show')).split('\n')) {
        const [, number, name] = /port (\d+): (\S+)/.exec(line) ?? [];
        if (number !== undefined && name !== undefined) numbers.set(name, number);
      }
      const count = { bridged: 0, routed: 0, denied: 0, nowhere: 0, staged: 0 };
      const contested = new Map<string, number>();
      const meshes = fc.sample(mesh, { numRuns: MESHES, seed: SEED });
      const packets = fc.sample(packet, { numRuns: 64 * MESHES, seed: SEED });
      for (const [i, m] of meshes.entries()) {
        await install(m);
        let turn = 0;
        for (const from of m.endpoints)
          for (const ip of [...m.endpoints.flatMap((e) => e.ips), ...ELSEWHERE]) {
            const own = from.ips.find((text) => text.includes(':') === ip.includes(':'));
            if (own === undefined || from.ips.includes(ip)) continue;
            const p = packets[(64 * i + turn++) % packets.length]!;
            const may = receivers(m, from, ip);
            // Nobody sends to himself by the wire.
            const want = may.filter((to) => to !== from && passes(m, [from, own], [to, ip], p));
            const have = await seen(m, from, ip, p);
            const about = `mesh ${i} of seed ${SEED}: ${own} in ${from.network} to ${ip}, ${JSON.stringify(p)}`;
            if (have.by !== null) expect(want, about).toContain(have.by);
            // Of several hops it may have been one that nothing gets through to.
            else expect(want.length, about).toBeLessThan(Math.max(1, may.length));
            if (may.length === 0) count.nowhere++;
            else if (have.by === null) count.denied++;
            else if (have.by.network === from.network) count.bridged++;
            else count.routed++;
            const [only] = may;
            if (only === undefined || only === from || may.length > 1) continue;
            // Which rule it was is seen by what it says, and by whom it counts.
            const egress = judged(m, 'egress', from, ip, p);
            const verdict = egress === 'allow' ? judged(m, 'ingress', only, own, p) : egress;
            if (have.by === null) expect(have.rejected ? 'reject' : 'drop', about).toBe(verdict);
            const would = [
              ['egress', stagedOf(m, 'egress', from, ip, p)],
              ['ingress', egress === 'allow' ? stagedOf(m, 'ingress', only, own, p) : null],
            ] as const;
            const counted = would.flatMap(([direction, one]) =>
              one === null ? [] : [one.rules.map((name) => `${direction} ${name}`)],
            );
            expect(have.staged.length, about).toBe(counted.length);
            for (const [at, names] of counted.entries()) expect(names, about).toContain(have.staged[at]);
            count.staged += counted.length;
            const others = [
              rivals(m, 'egress', from, ip, p),
              egress === 'allow' ? rivals(m, 'ingress', only, own, p) : [],
            ];
            for (const pair of others.flatMap(pairsOf)) contested.set(pair, (contested.get(pair) ?? 0) + 1);
          }
      }
      console.log([...contested].map(([pair, times]) => `${pair} ${times}`).join(', '));
      console.log(JSON.stringify(count));
      for (const [, some] of Object.entries(count)) expect(some).toBeGreaterThan(MESHES / 2);
      // One that is out of order is seen.
      for (const pair of ['drop reject', 'drop allow', 'reject allow'])
        expect(contested.get(pair), pair).toBeGreaterThan(0);
    },
    60_000 + 5_000 * MESHES,
  );
});
