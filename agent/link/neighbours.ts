/**
 * Peers' VTEPs are resolved before anything is sent to them: the first packet through a tunnel whose next hop is unknown is lost, or
 * waits a second. A datagram to the discard port (RFC 863) makes the kernel ask. The userspace datapath has a neighbour table of its
 * own (ovs-vswitchd(8), "tnl/neigh"), which learns from passing ARP replies only: what the kernel knows is told to it.
 */
import { createSocket, type Socket } from 'node:dgram';
import { setTimeout as pause } from 'node:timers/promises';
import { exec } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';

const DISCARD_PORT = 9;
const POLL_MS = 10;
const WAIT_MS = 1_000;
/** Below the 15 minutes after which Open vSwitch forgets a neighbour, and often enough for the kernel to ask again. */
const REFRESH_MS = 30_000;

export interface Hop {
  /** Where frames for a VTEP go: the VTEP itself, or a router. */
  readonly ip: string;
  readonly device: string;
}

export interface NeighbourOptions {
  /** This host's VTEP: probes leave from it. */
  readonly own: string;
  /** Tells the switch; null where the kernel's table is the switch's. */
  readonly teach: ((hop: Hop, mac: string) => Promise<void>) | null;
  readonly log: Log;
}

export class Neighbours {
  readonly #o: NeighbourOptions;
  /** VTEP → next hop, of those that have answered. */
  readonly #known = new Map<string, Hop>();
  #socket: Socket | null = null;
  #timer: NodeJS.Timeout | null = null;

  constructor(options: NeighbourOptions) {
    this.#o = options;
  }

  async start(): Promise<void> {
    const socket = createSocket(this.#o.own.includes(':') ? 'udp6' : 'udp4');
    socket.on('error', (error) => this.#o.log.warn({ err: error }, 'neighbour probe failed'));
    await new Promise<void>((resolve) => {
      socket.once('error', () => resolve());
      socket.bind(0, this.#o.own, () => resolve());
    });
    this.#socket = socket;
    this.#timer = setInterval(() => {
      for (const ip of this.#known.keys()) this.#probe(ip);
      this.relearn();
    }, REFRESH_MS);
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#socket?.close();
    this.#socket = null;
  }

  /** Tells the switch all that is known: it has started anew, or a peer's address may have moved. */
  relearn(): void {
    void this.#tell([...this.#known.values()]);
  }

  /** Resolves when kernel and switch know all of them, or after a second. @returns those that do not answer. */
  async resolve(vteps: Iterable<string>): Promise<string[]> {
    const unknown = [...new Set(vteps)].filter((ip) => !this.#known.has(ip) && ip !== this.#o.own);
    if (unknown.length === 0) return [];
    for (const ip of unknown) this.#probe(ip);
    const hops = new Map(await Promise.all(unknown.map(async (ip) => [ip, await nextHop(ip)] as const)));
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      const macs = await neighbourMacs();
      const missing = [...hops].filter(([, hop]) => !macs.has(hop.ip)).map(([ip]) => ip);
      if (missing.length === 0 || performance.now() > deadline) {
        const answered = [...hops].filter(([ip]) => !missing.includes(ip));
        await this.#tell(answered.map(([, hop]) => hop));
        for (const [ip, hop] of answered) this.#known.set(ip, hop);
        if (missing.length > 0) this.#o.log.warn({ vteps: missing }, 'peers do not answer on the underlay');
        return missing;
      }
      await pause(POLL_MS);
    }
  }

  /** A switch that is away is told when it is back. */
  async #tell(hops: readonly Hop[]): Promise<void> {
    try {
      await this.#teachAll(hops);
    } catch (error) {
      this.#o.log.warn({ err: error }, 'the switch was not told its neighbours');
    }
  }

  async #teachAll(hops: readonly Hop[]): Promise<void> {
    const { teach } = this.#o;
    if (teach === null || hops.length === 0) return;
    const macs = await neighbourMacs();
    for (const hop of hops) {
      const mac = macs.get(hop.ip);
      if (mac !== undefined) await teach(hop, mac);
    }
  }

  #probe(ip: string): void {
    this.#socket?.send(Buffer.of(0), DISCARD_PORT, ip, (error) => {
      if (error !== null) this.#o.log.debug({ err: error, vtep: ip }, 'neighbour probe failed');
    });
  }
}

async function nextHop(ip: string): Promise<Hop> {
  const r = await exec('ip', ['-j', 'route', 'get', ip]);
  const [route] = JSON.parse(r.code !== 0 || r.stdout.trim() === '' ? '[]' : r.stdout) as {
    gateway?: string;
    dev?: string;
  }[];
  return { ip: route?.gateway ?? ip, device: route?.dev ?? '' };
}

/** Addresses whose link-layer address the kernel knows. */
async function neighbourMacs(): Promise<Map<string, string>> {
  const r = await exec('ip', ['-j', 'neigh', 'show']);
  if (r.code !== 0) return new Map();
  const items = JSON.parse(r.stdout.trim() === '' ? '[]' : r.stdout) as { dst?: string; lladdr?: string }[];
  return new Map(items.flatMap((n) => (n.lladdr === undefined ? [] : [[n.dst ?? '', n.lladdr] as const])));
}
