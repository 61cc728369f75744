/** How evenly connections are spread: by the program itself with frames made up for it, and by real connections. */
import { encode } from '../../agent/bpf/encode.ts';
import type { BpfModel, BpfService } from '../../agent/bpf/model.ts';
import { planMaps } from '../../agent/plan/maps.ts';
import { parseIp } from '../../lib/ip.ts';
import { formatMac, parseMac } from '../../lib/mac.ts';
import { driverIn, Mounts, Namespaces } from '../../test/harness/bpf.ts';
import { v4, vtep } from '../../test/harness/bpf-pair.ts';
import { packet } from '../../test/harness/transport.ts';
import { hundredth } from '../figures.ts';
import { Process } from './process.ts';

export interface Spread {
  readonly connections: number;
  readonly backends: number;
  /** The farthest from an even share, percent of that. */
  readonly farthestPercent: number;
  /** What chance alone does to a backend's share: one standard deviation, percent of an even share. */
  readonly chancePercent: number;
  readonly lost: number;
}

/** TC_ACT_REDIRECT (linux/pkt_cls.h): it is on its way. */
const REDIRECT = 7;
const [NET, LINK, PORTS] = [3, 1, 50_000];
const [ME, MAC, GATEWAY] = ['10.128.0.7', '02:58:0a:80:00:07', '02:57:65:66:74:01'];
const AT_ONCE = 500;

/** New connections of one client, each a SYN from a port of its own, given to the kernel's program (BPF_PROG_TEST_RUN). */
export async function spreadByProgram(connections: number, backends: number): Promise<Spread> {
  await using stack = new AsyncDisposableStack();
  const namespaces = stack.use(new Namespaces());
  const mounts = stack.use(await Mounts.make());
  const { driver } = driverIn(await namespaces.add('spread'), mounts);
  await driver.start();
  stack.defer(() => driver.close());
  // Where the ports of one virtual address are used up, the next one begins.
  const virtual = (n: number): string => `10.128.9.${1 + Math.floor(n / PORTS)}`;
  const services = Array.from({ length: Math.ceil(connections / PORTS) }, (_, i) => service(i, backends, virtual));
  const model: BpfModel = { ...BASE, services };
  await driver.apply(planMaps(encode(model), driver.observe() ?? new Map()).map((p) => p.step));

  const got = new Map<string, number>();
  for (let from = 0; from < connections; from += AT_ONCE) {
    const size = Math.min(AT_ONCE, connections - from);
    const frames = Array.from({ length: size }, (_, i) =>
      packet({
        to: GATEWAY,
        from: MAC,
        src: ME,
        dst: virtual(from + i),
        protocol: 'tcp',
        sport: 1 + ((from + i) % PORTS),
        dport: 80,
      }),
    );
    for (const { action, frame } of await Promise.all(frames.map((f) => driver.run('from_container', f, LINK))))
      if (action === REDIRECT) count(got, frame.slice(0, 12));
  }
  return spreadOf(got, connections, backends);
}

/**
 * Real connections, one after the other.
 * @param netns file of the caller's network namespace
 * @param to virtual address of a service whose backends answer with their names
 */
export async function spreadByCalls(
  netns: string,
  to: { readonly ip: string; readonly port: number },
  connections: number,
  backends: number,
): Promise<Spread> {
  await using caller = Process.calling(netns, to, connections);
  await caller.closed();
  const got = new Map<string, number>();
  for (const { by } of caller.calls) if (by !== null) count(got, by);
  return spreadOf(got, connections, backends);
}

function count(got: Map<string, number>, key: string): void {
  got.set(key, (got.get(key) ?? 0) + 1);
}

function spreadOf(got: ReadonlyMap<string, number>, connections: number, backends: number): Spread {
  const even = connections / backends;
  // Who got nothing is not in it.
  const shares = [...got.values(), ...Array.from({ length: Math.max(0, backends - got.size) }, () => 0)];
  const farthest = Math.max(...shares.map((n) => Math.abs(n - even)));
  const answered = shares.reduce((sum, n) => sum + n, 0);
  return {
    connections,
    backends,
    farthestPercent: hundredth((100 * farthest) / even),
    chancePercent: hundredth(100 * Math.sqrt((backends - 1) / connections)),
    lost: connections - answered,
  };
}

const service = (n: number, backends: number, virtual: (n: number) => string): BpfService => ({
  id: n + 1,
  index: NET,
  address: v4(virtual(n * PORTS)),
  protocol: 6,
  port: 80,
  affinity: 0,
  backends: Array.from({ length: backends }, (_, i) => ({
    address: v4(`10.128.1.${i + 1}`),
    mac: parseMac(formatMac(0x02aa_0000_0000n + BigInt(i + 1))),
    port: 8080,
  })),
});

const BASE: BpfModel = {
  config: {
    tunnelPort: 101,
    ttl: 64,
    dscp: 0,
    checksum: false,
    dontFragment: true,
    source4: null,
    source6: null,
    entry: 0n,
  },
  ports: [
    {
      ifindex: LINK,
      slow: 100,
      index: NET,
      mac: parseMac(MAC),
      ip4: parseIp(ME),
      ip6: null,
      linkLocal: null,
      express: true,
    },
  ],
  nets: [{ index: NET, device: 102, vni: 4097, mtu: 1450 }],
  fdb: [],
  blocks: [
    {
      index: NET,
      mac: parseMac('02:aa:00:00:00:00'),
      bits: 32,
      place: { kind: 'remote', ...vtep(v4('192.0.2.2')) },
      express: true,
    },
  ],
  sources: [],
  lists: [],
  groups: [],
  services: [],
};
