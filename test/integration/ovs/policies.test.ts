/**
 * Policies of random meshes: the verdict of two hosts' real pipelines on a connection's first packet is that of the reference evaluator.
 * WEFT_POLICY_MESHES says how many (default 60), WEFT_POLICY_SEED which.
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
import { judged, type RefPacket, rivals, stagedOf } from '../../reference/policy.ts';

const MESHES = Number(process.env['WEFT_POLICY_MESHES'] ?? 60);
const SEED = Number(process.env['WEFT_POLICY_SEED'] ?? 1);
const PORTS = 9;

/** The first of some actions with each of the others: it came before them. */
const pairsOf = ([first = '', ...others]: readonly string[]): string[] => others.map((other) => `${first} ${other}`);

interface Seen {
  readonly verdict: string;
  /** Direction, policy and place. */
  readonly staged: readonly string[];
}

describe('policies', () => {
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
  const seen = async (from: MeshEndpoint, to: MeshEndpoint, six: boolean, p: RefPacket): Promise<Seen> => {
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
    const exit = from.host === to.host ? portName(to) : `p${HOSTS.indexOf(from.host as 'h1')}${TUNNEL_PORT}`;
    if (from.host === to.host || !sends(left.actions, exit))
      return { verdict: verdictOf(left.actions, exit), staged: left.staged };
    const index = from.network === 'n1' ? 1 : 2;
    const come = await trace(to.host, `in_port=${TUNNEL_PORT},dl_vlan=${index},${frame}`);
    return { verdict: verdictOf(come.actions, portName(to)), staged: [...left.staged, ...come.staged] };
  };
  const verdictOf = (actions: string, port: string): string =>
    sends(actions, port) ? 'allow' : actions.includes('controller(') ? 'reject' : 'drop';
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
    let [allowed, denied, staged] = [0, 0, 0];
    const contested = new Map<string, number>();
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
            const egress = judged(m, 'egress', from, b, p);
            const want = egress === 'allow' ? judged(m, 'ingress', to, a, p) : egress;
            const have = await seen(from, to, six, p);
            const where = `mesh ${i} of seed ${SEED}: ${a} to ${b}, ${JSON.stringify(p)}`;
            const others = [rivals(m, 'egress', from, b, p), egress === 'allow' ? rivals(m, 'ingress', to, a, p) : []];
            for (const pair of others.flatMap(pairsOf)) contested.set(pair, (contested.get(pair) ?? 0) + 1);
            if (want === 'allow') allowed++;
            else denied++;
            expect(have.verdict, where).toBe(want);
            const would = [
              ['egress', stagedOf(m, 'egress', from, b, p)],
              ['ingress', egress === 'allow' ? stagedOf(m, 'ingress', to, a, p) : null],
            ] as const;
            const counted = would.flatMap(([direction, one]) =>
              one === null ? [] : [one.rules.map((name) => `${direction} ${name}`)],
            );
            expect(have.staged.length, where).toBe(counted.length);
            for (const [at, names] of counted.entries()) expect(names, where).toContain(have.staged[at]);
            staged += counted.length;
          }
        }
    }
    console.log([...contested].map(([pair, times]) => `${pair} ${times}`).join(', '));
    console.log(`${allowed} connections allowed, ${denied} denied; ${staged} times a staged rule would differ`);
    expect(Math.min(allowed, denied)).toBeGreaterThan(MESHES);
    // One that is out of order is seen.
    for (const pair of ['drop reject', 'drop allow', 'reject allow'])
      expect(contested.get(pair), pair).toBeGreaterThan(0);
    expect(staged).toBeGreaterThan(MESHES / 2);
  }, 600_000);
});
