/** Coordinators of a test's own on a real etcd, in this process; agents and users over real connections. */
import { Client } from '@grpc/grpc-js';
import { Coordinator, type CoordinatorOptions } from '../../../coordinator/coordinator.ts';
import { type OpenedStore, type OpenOptions, openStore } from '../../../coordinator/store/index.ts';
import { fromStore } from '../../../coordinator/wiring.ts';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import { makeLog, silentLog } from '../../../lib/log.ts';
import { macOfIp } from '../../../lib/mac.ts';
import type { Endpoint, Host, Network } from '../../../lib/model.ts';
import { callStream, callUnary, channelCredentials, channelOptions, type Method } from '../../../lib/rpc.ts';
import { type Ca, createCa, issueCoordinator, issueHost, issueUser, type TlsMaterial } from '../../../lib/tls.ts';
import { freePorts, TestEtcd } from '../../harness/etcd.ts';
import { FakeAgent, type FakeAgentOptions } from '../../harness/fake-agent.ts';

export class Node {
  readonly name: string;
  readonly opened: OpenedStore;
  readonly coordinator: Coordinator;
  readonly address: string;

  constructor(name: string, opened: OpenedStore, coordinator: Coordinator, address: string) {
    this.name = name;
    this.opened = opened;
    this.coordinator = coordinator;
    this.address = address;
  }

  async close(): Promise<void> {
    await this.coordinator.close();
    await this.opened.close();
  }
}

export class Mesh implements AsyncDisposable {
  readonly etcd: TestEtcd;
  readonly ca: Ca;
  readonly user: TlsMaterial;
  readonly #nodes: Node[] = [];
  readonly #agents: FakeAgent[] = [];
  readonly #clients = new Map<string, Client>();
  readonly #certificates = new Map<string, TlsMaterial>();

  private constructor(etcd: TestEtcd, ca: Ca, user: TlsMaterial) {
    this.etcd = etcd;
    this.ca = ca;
    this.user = user;
  }

  static async start(): Promise<Mesh> {
    const etcd = await TestEtcd.start();
    const ca = await createCa({ name: 'test' });
    return new Mesh(etcd, ca, await issueUser(ca, 'tester'));
  }

  async coordinator(
    name: string,
    more: Partial<CoordinatorOptions> = {},
    open: Partial<OpenOptions> = {},
  ): Promise<Node> {
    const [port] = await freePorts(1);
    const address = `127.0.0.1:${port}`;
    const id = `id-${name}-${port}`;
    const log = process.env['WEFT_TEST_LOG'] === undefined ? silentLog() : makeLog(name, { level: 'debug' });
    const opened = await openStore({
      endpoints: [this.etcd.endpoint],
      coordinator: { id, name, address, version: '0.1.0' },
      log,
      leaseTtl: 2,
      ...open,
    });
    const coordinator = new Coordinator({
      self: { id, name, version: '0.1.0' },
      ...fromStore(opened, log),
      tls: await issueCoordinator(this.ca, name),
      vxlanPort: 4789,
      log,
      ...more,
    });
    await coordinator.listen([address]);
    const node = new Node(name, opened, coordinator, address);
    this.#nodes.push(node);
    return node;
  }

  async certificate(hostId: string): Promise<TlsMaterial> {
    const known = this.#certificates.get(hostId) ?? (await issueHost(this.ca, hostId));
    this.#certificates.set(hostId, known);
    return known;
  }

  async agent(node: Node, host: Host, more: Partial<FakeAgentOptions> = {}): Promise<FakeAgent> {
    const agent = await this.dial(node, host, more);
    await agent.until('in sync', () => agent.synced);
    return agent;
  }

  /** Without waiting for anything. */
  async dial(node: Node, host: Host, more: Partial<FakeAgentOptions> = {}): Promise<FakeAgent> {
    const agent = new FakeAgent({ address: node.address, tls: await this.certificate(host.id), host, ...more });
    this.#agents.push(agent);
    return agent;
  }

  #client(node: Node): Client {
    const known = this.#clients.get(node.address);
    if (known !== undefined) return known;
    const client = new Client(node.address, channelCredentials(this.user), channelOptions());
    this.#clients.set(node.address, client);
    return client;
  }

  call<Req, Res>(node: Node, method: Method<Req, Res>, request: Req): Promise<Res> {
    return callUnary(this.#client(node), method, request, { timeoutMs: 40_000 });
  }

  stream<Req, Res>(node: Node, method: Method<Req, Res>, request: Req, signal: AbortSignal): AsyncGenerator<Res> {
    return callStream(this.#client(node), method, request, { signal });
  }

  network(node: Node, name: string, subnet = ''): Promise<Network> {
    return this.call(node, ControlService.createNetwork, aNetwork(name, subnet));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const agent of this.#agents) agent.cut();
    for (const client of this.#clients.values()) client.close();
    await Promise.all(this.#nodes.map((node) => node.close().catch(() => {})));
    await this.etcd[Symbol.asyncDispose]();
  }
}

export const aNetwork = (name: string, subnet = '') => ({
  project: '',
  name,
  subnets: subnet === '' ? [] : [subnet],
  ipRange: '',
  gateways: [],
  ipv6: false,
  encap: '',
  vni: 0,
  mtu: 0,
  internal: false,
  encrypted: false,
  space: '',
  labels: {},
  options: {},
  uplink: '',
  vlanTag: 0,
  allowTrust: false,
  publishBy: '',
  egressIps: [],
  dnsOrder: '',
  policyDefault: '',
});

/** @param n 1… ; the id is made of it */
export const aHost = (n: number, more: Partial<Host> = {}): Host => ({
  id: n.toString(16).padStart(16, '0'),
  name: `h${n}`,
  vteps: [{ address: `192.0.2.${n}`, encaps: ['vxlan'], encrypted: false }],
  datapath: 'netdev',
  versions: { weft: '0.1.0' },
  draining: false,
  createdAt: '',
  capabilities: [],
  underlayMtu: 1500,
  backend: 'ovs-tunnel',
  express: false,
  probes: [],
  ...more,
});

export const anEndpoint = (
  networkId: string,
  hostId: string,
  n: number,
  ip: string,
  more: Partial<Endpoint> = {},
): Endpoint => ({
  id: n.toString(16).padStart(64, '0'),
  networkId,
  hostId,
  ips: [ip],
  mac: macOfIp(ip),
  givenMac: false,
  container: { id: n.toString(16).padStart(64, 'c'), name: `c${n}` },
  state: 'known',
  labels: {},
  createdAt: '2025-01-01T00:00:00Z',
  ofport: n,
  aliases: [`c${n}`],
  allowed: [],
  trusted: false,
  express: false,
  kind: 'container',
  ports: [],
  unhealthy: [],
  revision: 0n,
  ...more,
});

/** Waits for a condition. @throws when it has not come within `ms` */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 10_000): Promise<void> {
  const end = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`${what}: not within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
