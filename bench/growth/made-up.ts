/** Endpoints that are only told of: hosts that are not there register them, and the lab's hosts render what they need to reach them. */
import { randomBytes } from 'node:crypto';
import { macOfIp } from '../../lib/mac.ts';
import type { Endpoint, Host } from '../../lib/model.ts';
import { issueHost, newHostId, readCa } from '../../lib/tls.ts';
import { FakeAgent } from '../../test/harness/fake-agent.ts';
import { until, weftJson, weftOk } from '../../test/harness/lab.ts';
import { labStatus } from '../../test/harness/lab-direct.ts';

/** Of a /26, without the network's first addresses and its last. */
const PER_BLOCK = 60;

export class MadeUp implements AsyncDisposable {
  readonly #networkId: string;
  readonly #hosts: readonly FakeAgent[];
  readonly #made: { readonly host: FakeAgent; readonly ids: string[] }[] = [];

  private constructor(networkId: string, hosts: readonly FakeAgent[]) {
    this.#networkId = networkId;
    this.#hosts = hosts;
  }

  /** @param hosts how many; their VTEPs are of TEST-NET-1 (RFC 5737): what is sent to them goes nowhere. */
  static async connect(networkId: string, hosts: number): Promise<MadeUp> {
    const { coordinators, tls } = await labStatus();
    const ca = await readCa(tls.ca.replace(/\/[^/]*$/, ''));
    const agents: FakeAgent[] = [];
    for (let i = 1; i <= hosts; i++) {
      const id = newHostId();
      agents.push(
        await FakeAgent.connect({
          address: coordinators[0]?.address ?? '',
          tls: await issueHost(ca, id, `made-up-${i}`),
          host: hostOf(id, i),
          hello: { interest: [networkId] },
        }),
      );
    }
    return new MadeUp(networkId, agents);
  }

  get endpoints(): number {
    return this.#made.reduce((sum, m) => sum + m.ids.length, 0);
  }

  get blocks(): number {
    return this.#made.length;
  }

  /** Registers until there are so many, a block at a time, the hosts in turns. */
  async growTo(total: number): Promise<void> {
    while (this.endpoints < total) await this.addBlock(Math.min(PER_BLOCK, total - this.endpoints));
  }

  /** One block more, with so many endpoints in it. */
  async addBlock(endpoints: number): Promise<void> {
    const host = this.#hosts[this.#made.length % this.#hosts.length];
    if (host === undefined) throw new Error('no host is made up');
    const block = await host.block(this.#networkId);
    const [a, b, c, d] = (block.cidr.split('/')[0] ?? '').split('.').map(Number);
    const batch = Array.from({ length: endpoints }, (_, i) =>
      endpointOf(this.#networkId, host.host.id, `${a}.${b}.${c}.${(d ?? 0) + i + 2}`),
    );
    await host.register(batch);
    this.#made.push({ host, ids: batch.map((e) => e.id) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { host, ids } of this.#made) await host.register([], ids);
    for (const agent of this.#hosts) await agent.close();
    for (const { host } of this.#hosts) {
      await until(
        `${host.name} is down`,
        async () => (await weftJson<{ state: string }>('host', 'inspect', host.name)).state === 'down',
      );
      await weftOk('host', 'rm', host.name);
    }
  }
}

const hostOf = (id: string, n: number): Host => ({
  id,
  name: `made-up-${n}`,
  vteps: [{ address: `192.0.2.${n}`, encaps: ['vxlan'], encrypted: false }],
  datapath: 'netdev',
  versions: { weft: '0.1.0' },
  draining: false,
  createdAt: '',
  capabilities: ['encap/vxlan'],
  underlayMtu: 1500,
  backend: 'kernel-tunnel',
  express: true,
  probes: [],
});

const endpointOf = (networkId: string, hostId: string, ip: string): Endpoint => ({
  id: randomBytes(32).toString('hex'),
  networkId,
  hostId,
  ips: [ip],
  mac: macOfIp(ip),
  givenMac: false,
  container: { id: randomBytes(32).toString('hex'), name: `made-up-${ip}` },
  state: 'known',
  labels: { 'com.example.role': 'worker' },
  createdAt: '2025-01-01T00:00:00Z',
  ofport: 1,
  aliases: [],
  allowed: [],
  trusted: false,
  express: true,
  kind: 'container',
  ports: [],
  unhealthy: [],
  revision: 0n,
});
