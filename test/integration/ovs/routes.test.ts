/** Real packets of real network stacks through the bridges of two hosts, whose three networks a router joins. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { LocalEndpoint, LocalNetwork } from '../../../agent/contract.ts';
import { type Memo, render } from '../../../agent/flows/memo.ts';
import { renderMeters } from '../../../agent/flows/punt.ts';
import { OpenFlowClient } from '../../../agent/openflow/client.ts';
import { FlowDriver } from '../../../agent/openflow/driver.ts';
import { Packets } from '../../../agent/openflow/packets.ts';
import { keyed, planFlows } from '../../../agent/plan/flows.ts';
import { planMeters } from '../../../agent/plan/meters.ts';
import { answerRejected } from '../../../agent/policies/rejecter.ts';
import { answerUnrouted } from '../../../agent/routing/unrouted.ts';
import { parseCidr } from '../../../lib/addr.ts';
import { makeLog } from '../../../lib/log.ts';
import { formatMac } from '../../../lib/mac.ts';
import { networkOf } from '../../harness/fake-network.ts';
import { startOvs, type TestOvs, until } from '../../harness/ovs.ts';
import {
  bridgeOf,
  gatewaysOf,
  HOSTS,
  type HostName,
  MTUS,
  type Placed,
  placed,
  portOf,
  type Routed,
  subnetsOf,
  TUNNEL_PORT,
} from '../../harness/route-models.ts';

const run = promisify(execFile);
/** Not a wrapper of somebody's. */
const PYTHON = '/usr/bin/python3';
const BEHIND = '192.168.7.1';
const a = placed('a', 'h1', 1, 2, 2);
const b = placed('b', 'h1', 2, 2, 3);
const given = placed('given', 'h1', 2, 3, 4, { mac: '02:42:00:00:00:03', also: BEHIND });
const far = placed('far', 'h2', 2, 18, 2);
const farGiven = placed('far-given', 'h2', 2, 19, 3, { mac: '02:42:00:00:00:04', also: BEHIND });
const small = placed('small', 'h2', 3, 18, 4);
const home = placed('home', 'h2', 1, 18, 5);
const MESH: Routed = {
  endpoints: [a, b, given, far, farGiven, small, home],
  statics: [
    { to: '192.168.0.0/16', hops: [{ network: 2, ip: given.ip }] },
    {
      to: `${BEHIND}/32`,
      hops: [
        { network: 2, ip: given.ip },
        { network: 2, ip: farGiven.ip },
      ],
    },
  ],
};

const SERVER = `
import socket, sys, threading
def serve(port):
    s = socket.create_server(('::', port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=200)
    while True:
        c, peer = s.accept()
        c.sendall(sys.argv[1].encode()); c.close()
for port in (80, 81): threading.Thread(target=serve, args=(port,)).start()
`;
/** Who answers there, by the name it says; or the error; so many times. */
const CLIENT = `
import socket, sys
for i in range(int(sys.argv[4])):
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3])) as s: print(s.recv(100).decode())
    except OSError as e: print(type(e).__name__)
`;

describe('routing', () => {
  let ovs: TestOvs;
  const bridges = new Map<HostName, { client: OpenFlowClient; driver: FlowDriver; memo: Memo; packets: Packets }>();
  const closing: (() => unknown)[] = [];
  const servers: ChildProcess[] = [];
  const space = (e: Placed): string => `wovs-${process.pid}-${e.name}`;
  const inside = async (e: Placed, ...argv: string[]): Promise<string> => {
    const { stdout } = await run('nsenter', [`--net=/run/netns/${space(e)}`, ...argv]).catch(
      (error: { stdout?: string; stderr?: string }) => ({ stdout: `${error.stdout ?? ''}${error.stderr ?? ''}` }),
    );
    return stdout;
  };

  beforeAll(async () => {
    ovs = await startOvs();
    const log = makeLog('agent', { level: 'error' });
    for (const [i, host] of HOSTS.entries()) {
      await ovs.vsctl('add-br', host, '--', 'set', 'bridge', host, 'datapath_type=netdev', 'fail_mode=secure');
      const peer = `options:peer=t${1 - i}`;
      await ovs.vsctl(
        'add-port',
        host,
        `t${i}`,
        '--',
        'set',
        'interface',
        `t${i}`,
        'type=patch',
        peer,
        `ofport_request=${TUNNEL_PORT}`,
      );
    }
    for (const e of MESH.endpoints) {
      const link = `v-${e.name}`;
      await run('ip', ['netns', 'add', space(e)]);
      await ovs.exec('ip', 'link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', space(e));
      const mtu = String(MTUS[e.network - 1]);
      const commands = [
        ['link', 'set', 'lo', 'up'],
        ['link', 'set', 'eth0', 'address', formatMac(portOf(e).mac), 'mtu', mtu, 'up'],
        ['addr', 'add', `${e.ip}/24`, 'dev', 'eth0'],
        ['addr', 'add', `${e.ip6}/64`, 'dev', 'eth0', 'nodad'],
        ['route', 'add', 'default', 'via', gatewaysOf(e.network)[0]!],
        ['-6', 'route', 'add', 'default', 'via', gatewaysOf(e.network)[1]!],
        ...(e.also === '' ? [] : [['addr', 'add', `${e.also}/32`, 'dev', 'lo']]),
      ];
      for (const command of commands) await run('ip', ['-n', space(e), ...command]);
      await inside(e, 'ethtool', '-K', 'eth0', 'tx', 'off');
      await ovs.exec('ip', 'link', 'set', link, 'mtu', mtu, 'up');
      await ovs.vsctl('add-port', e.host, link, '--', 'set', 'interface', link, `ofport_request=${e.ofport}`);
      servers.push(spawn('nsenter', [`--net=/run/netns/${space(e)}`, PYTHON, '-c', SERVER, e.name]));
    }
    for (const host of HOSTS) {
      const client = new OpenFlowClient({ path: ovs.mgmtSock(host) });
      const second = new OpenFlowClient({ path: ovs.mgmtSock(host), packetIns: true });
      for (const c of [client, second]) {
        c.start();
        await c.ready();
        closing.push(() => c.close());
      }
      const packets = new Packets({ client: second, log });
      packets.start();
      closing.push(() => packets.close());
      const here = MESH.endpoints.filter((e) => e.host === host);
      const endpoints = new Map(
        here.map((e): [string, LocalEndpoint] => [
          e.name,
          { id: e.name, networkId: String(e.network), mac: formatMac(portOf(e).mac) } as LocalEndpoint,
        ]),
      );
      const networks = new Map(
        [1, 2, 3].map((index): [string, LocalNetwork] => {
          const id = String(index);
          const network = networkOf({ id, name: id, subnets: subnetsOf(index), gateways: gatewaysOf(index) });
          return [id, { networkId: id, dockerNetworkId: null, name: id, index, network }];
        }),
      );
      const ofport = (id: string): number | null => here.find((e) => e.name === id)?.ofport ?? null;
      answerUnrouted(packets, { journal: { endpoints, networks }, ofport });
      answerRejected(packets);
      bridges.set(host, { client, driver: new FlowDriver(client), memo: new Map(), packets });
    }
    await install(MESH);
    for (const e of MESH.endpoints)
      await until(`${e.name} serves`, async () => (await call(e, '127.0.0.1', 80)) === e.name);
  }, 60_000);
  afterAll(async () => {
    for (const child of servers) child.kill('SIGKILL');
    for (const close of closing.reverse()) await close();
    await ovs[Symbol.asyncDispose]();
    for (const e of MESH.endpoints) await run('ip', ['netns', 'del', space(e)]).catch(() => undefined);
  });

  /** Flows that are there become those of the mesh, in one bundle a host. */
  const install = async (mesh: Routed): Promise<void> => {
    for (const host of HOSTS) {
      const { driver, memo } = bridges.get(host)!;
      const model = bridgeOf(mesh, host);
      await driver.applyMeters(planMeters(renderMeters(model), await driver.observeMeters()).map((p) => p.step));
      const desired = render(model, memo);
      const steps = planFlows(desired, keyed(await driver.observe())).map((p) => p.step);
      await driver.apply({
        add: steps.filter((s) => s.kind === 'addFlow').map((s) => s.flow),
        remove: steps.filter((s) => s.kind === 'removeFlow').map((s) => s.flow),
      });
      expect(planFlows(desired, keyed(await driver.observe()))).toEqual([]);
    }
  };
  const ping = (from: Placed, to: string, ...more: string[]): Promise<string> =>
    inside(from, 'ping', '-n', '-c', '1', '-W', '2', ...more, to);
  const calls = async (from: Placed, to: string, port: number, seconds: number, count: number): Promise<string[]> =>
    (await inside(from, PYTHON, '-c', CLIENT, to, String(port), String(seconds), String(count))).trim().split('\n');
  const call = async (from: Placed, to: string, port: number, seconds = 5): Promise<string> =>
    (await calls(from, to, port, seconds, 1)).join();
  const addresses = (e: Placed): string[] => [e.ip, e.ip6];

  it('leads from every network to every other, whatever host, whatever MAC', async () => {
    for (const from of MESH.endpoints)
      for (const to of MESH.endpoints) {
        if (from === to) continue;
        for (const ip of addresses(to)) {
          const text = await ping(from, ip);
          expect(text, `${from.name} to ${to.name}, ${ip}`).toContain(' 0% packet loss');
          // Each way one less, where there is a router between them.
          expect(text).toContain(from.network === to.network ? 'ttl=64' : 'ttl=63');
        }
      }
    for (const to of [b, far]) for (const ip of addresses(to)) expect(await call(a, ip, 80)).toBe(to.name);
  }, 60_000);

  it('answers pings of its gateways, and says where a packet ends', async () => {
    for (const ip of [1, 2, 3].flatMap(gatewaysOf)) expect(await ping(a, ip), ip).toContain(' 0% packet loss');
    expect(await ping(a, far.ip, '-t', '1')).toContain(`From ${gatewaysOf(1)[0]} icmp_seq=1 Time to live exceeded`);
    expect(await ping(a, far.ip6, '-t', '1')).toMatch(
      new RegExp(`From ${gatewaysOf(1)[1]} icmp_seq=1 Time exceeded: Hop limit`),
    );
    expect(await ping(a, far.ip, '-t', '2')).toContain(' 0% packet loss');
    expect(await ping(a, far.ip6, '-t', '2')).toContain(' 0% packet loss');
  });

  it('says that nobody is there: the sender’s gateway of this host’s addresses, the other host of its own', async () => {
    expect(await ping(a, '10.2.0.9')).toContain(`From ${gatewaysOf(1)[0]} icmp_seq=1 Destination Host Unreachable`);
    expect(await ping(a, 'fd00:2::9')).toContain(
      `From ${gatewaysOf(1)[1]} icmp_seq=1 Destination unreachable: Address`,
    );
    expect(await ping(a, '10.2.0.29')).toContain(`From ${gatewaysOf(2)[0]} icmp_seq=1 Destination Host Unreachable`);
    expect(await ping(a, 'fd00:2::1d')).toContain(`From ${gatewaysOf(2)[1]} icmp_seq=1 Destination unreachable`);
    // All of a subnet, and what has no alias.
    expect(await ping(a, '10.2.0.255')).toContain('100% packet loss');
    expect(await ping(a, 'fd00:2::5:0:0:2')).toContain('100% packet loss');
  });

  it('says what is too big for the network that it leads to', async () => {
    expect(await ping(a, small.ip, '-M', 'do', '-s', '1300')).toContain('mtu = 1300');
    expect(await ping(a, small.ip6, '-M', 'do', '-s', '1300')).toMatch(/mtu[ :=]+1300/);
    expect(await ping(home, small.ip, '-M', 'do', '-s', '1272')).toContain(' 0% packet loss');
    // What is learned by that is used.
    expect(await ping(a, small.ip, '-s', '1400')).toContain(' 0% packet loss');
    expect(await call(a, small.ip, 80)).toBe(small.name);
  });

  it('takes static routes, and spreads connections over several hops', async () => {
    expect(await call(a, '192.168.9.9', 80, 1)).toMatch(/Timeout/);
    const names = await calls(a, BEHIND, 80, 5, 60);
    expect(new Set(names)).toEqual(new Set([given.name, farGiven.name]));
    // Half of them each, but for chance: less than a sixth once in 10^8.
    for (const hop of [given, farGiven]) expect(names.filter((name) => name === hop.name).length).toBeGreaterThan(9);
    // A call has many packets: one that got to the other hop would have been refused.
  }, 60_000);

  it('judges in each network what leaves it, and what comes to it', async () => {
    const rule = (direction: 'ingress' | 'egress', peer: string, id: number) => ({
      id,
      priority: 30_000,
      action: 'allow' as const,
      direction,
      subjects: null,
      peers: [parseCidr(peer)],
      ports: [{ protocol: 'tcp' as const, first: 80, last: 80 }],
    });
    const shut = (...rules: ReturnType<typeof rule>[]) => ({
      policies: { rules, shut: true, pending: [], open: false, staged: false },
    });
    const into = shut(rule('ingress', '10.1.0.0/24', 7));
    for (const more of [{ 2: into }, { 1: shut(rule('egress', '10.2.0.0/24', 8)), 2: into }]) {
      await install({ ...MESH, more });
      for (const to of [b, far, given, farGiven]) {
        expect(await call(a, to.ip, 80), to.name).toBe(to.name);
        expect(await call(a, to.ip, 81, 0.5), to.name).toMatch(/Timeout/);
        expect(await call(a, to.ip6, 80, 0.5), to.name).toMatch(/Timeout/);
        expect(await call(to, a.ip, 80, 0.5), to.name).toMatch(/Timeout/);
      }
      expect(await call(home, b.ip, 80)).toBe(b.name);
    }
    await install({ ...MESH, more: { 1: shut(rule('egress', '10.2.0.0/24', 8)) } });
    for (const to of [b, far]) {
      expect(await call(a, to.ip, 80)).toBe(to.name);
      expect(await call(a, to.ip, 81, 0.5)).toMatch(/Timeout/);
    }
    // What was only routed is nobody's connection.
    const rejecting = { ...rule('ingress', '10.1.0.0/24', 9), action: 'reject' as const };
    await install({
      ...MESH,
      more: { 2: { policies: { rules: [rejecting], shut: false, pending: [], open: false, staged: false } } },
    });
    for (const to of [b, far]) {
      expect(await call(a, to.ip, 80)).toBe('ConnectionRefusedError');
      expect(await call(a, to.ip, 81)).toBe(to.name);
    }
    await install(MESH);
  }, 120_000);
});
