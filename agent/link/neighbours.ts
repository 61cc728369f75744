/**
 * Peers' VTEPs are resolved before anything is sent to them: the first packet through a tunnel whose next hop is unknown is lost, or
 * waits a second. A datagram to the discard port (RFC 863) makes the kernel ask. The userspace datapath has a neighbour table of its
 * own (ovs-vswitchd(8), "tnl/neigh"), which learns from passing ARP replies only: what the kernel knows is told to it.
 *
 * They are asked again and again, and those that do not answer are told of: whose next hop is a router is taken to answer as long as
 * the router does.
 */
import { createSocket, type Socket } from 'node:dgram';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { Log } from '../../lib/log.ts';
import { type Hop, type Neighbour, neighbourTable, nextHop } from './neighbour-table.ts';

const DISCARD_PORT = 9;
const POLL_MS = 10;
const WAIT_MS = 1_000;
/** Below the 15 minutes after which Open vSwitch forgets a neighbour, and often enough for the kernel to ask again. */
const REFRESH_MS = 30_000;
/** While one does not answer. */
const MISSING_MS = 5_000;
/** After which the kernel has given up on a neighbour that it knew: delay_first_probe_time and three probes (arp(7)). */
const SETTLE_MS = 9_000;
/** Routes are looked up one by one. */
const MAX_ROUTES = 32;

export interface NeighbourOptions {
  /** This host's VTEP: probes leave from it. */
  readonly own: string;
  /** Tells the switch; null where the kernel's table is the switch's. */
  readonly teach: ((hop: Hop, mac: string) => Promise<void>) | null;
  /** VTEP → why it cannot be reached, end of a sentence. Called with all of them whenever they have changed. */
  readonly onMissing: (missing: ReadonlyMap<string, string>) => void;
  readonly log: Log;
  /** Milliseconds, for tests. */
  readonly refreshMs?: number;
  readonly settleMs?: number;
}

export class Neighbours {
  readonly #o: NeighbourOptions;
  /** VTEPs of peers, as of the last view. */
  #wanted: ReadonlySet<string> = new Set();
  /** VTEP → next hop, of those that have answered. */
  readonly #known = new Map<string, Hop>();
  /** Those that have not, and are not waited for any more. */
  readonly #silent = new Set<string>();
  #missing: ReadonlyMap<string, string> = new Map();
  #socket: Socket | null = null;
  #timer: NodeJS.Timeout | null = null;
  #checking = false;
  #closed = false;

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
    this.#checkIn(this.#o.refreshMs ?? REFRESH_MS);
  }

  close(): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#socket?.close();
    this.#socket = null;
  }

  /** Tells the switch all that is known: it has started anew, or a peer's address may have moved. */
  relearn(): void {
    void this.#tell([...this.#known.values()]);
  }

  /**
   * Resolves when kernel and switch know `peers`, or after a second; those that did not answer are not waited for again.
   * @param others looked for as well, but not waited for. What is in neither is forgotten.
   */
  async resolve(peers: Iterable<string>, others: Iterable<string> = []): Promise<void> {
    const notOwn = (ips: Iterable<string>): string[] => [...ips].filter((ip) => ip !== this.#o.own);
    const [awaited, rest] = [notOwn(peers), notOwn(others)];
    this.#wanted = new Set([...awaited, ...rest]);
    for (const ip of this.#known.keys()) if (!this.#wanted.has(ip)) this.#known.delete(ip);
    for (const ip of this.#silent) if (!this.#wanted.has(ip)) this.#silent.delete(ip);
    this.#show(new Map([...this.#missing].filter(([ip]) => this.#wanted.has(ip))));
    this.#find(rest).catch((error: unknown) => this.#o.log.warn({ err: error }, 'peers not looked for'));
    await this.#find(awaited);
  }

  async #find(vteps: readonly string[]): Promise<void> {
    const unknown = vteps.filter((ip) => !this.#known.has(ip) && !this.#silent.has(ip));
    if (unknown.length === 0) return;
    for (const ip of unknown) this.#probe(ip);
    const hops = new Map(await Promise.all(unknown.map(async (ip) => [ip, await nextHop(ip)] as const)));
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      const table = (await neighbourTable()) ?? new Map<string, Neighbour>();
      const silent = [...hops].filter(([, hop]) => hop === null || table.get(hop.ip)?.answers !== true);
      if (silent.length > 0 && performance.now() < deadline) {
        await pause(POLL_MS);
        continue;
      }
      for (const [ip] of silent) this.#silent.add(ip);
      await this.#learn([...hops].filter(([ip]) => !this.#silent.has(ip)));
      if (silent.length === 0) return;
      this.#o.log.warn({ vteps: silent.map(([ip]) => ip) }, 'peers do not answer on the underlay');
      if (!this.#checking) this.#checkIn(0);
      return;
    }
  }

  #checkIn(ms: number): void {
    if (this.#closed) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.#check(), ms);
  }

  /** Asks all of them, waits until the kernel has an opinion, and looks. */
  async #check(): Promise<void> {
    this.#checking = true;
    for (const ip of this.#wanted) this.#probe(ip);
    await pause(this.#o.settleMs ?? SETTLE_MS, undefined, { ref: false });
    if (this.#closed) return;
    try {
      await this.#look();
    } catch (error) {
      this.#o.log.warn({ err: error }, 'neighbours could not be looked at');
    }
    this.#checking = false;
    this.relearn();
    this.#checkIn(this.#silent.size > 0 ? MISSING_MS : (this.#o.refreshMs ?? REFRESH_MS));
  }

  async #look(): Promise<void> {
    const table = await neighbourTable();
    if (table === null) return;
    const missing = new Map<string, string>();
    let routes = 0;
    for (const ip of this.#wanted) {
      let hop = this.#known.get(ip) ?? null;
      if (hop !== null && table.get(hop.ip)?.answers === true) continue;
      if (++routes > MAX_ROUTES) {
        missing.set(ip, 'it does not answer');
        continue;
      }
      hop = await nextHop(ip);
      const reason = this.#reason(ip, hop, table);
      if (reason !== null) missing.set(ip, reason);
      else if (hop !== null) await this.#learn([[ip, hop]]);
    }
    for (const ip of missing.keys()) {
      if (!this.#wanted.has(ip)) continue;
      this.#silent.add(ip);
      this.#known.delete(ip);
    }
    this.#show(missing);
  }

  /** Null: it can be reached. */
  #reason(ip: string, hop: Hop | null, table: ReadonlyMap<string, Neighbour>): string | null {
    const { own } = this.#o;
    if (ip.includes(':') !== own.includes(':')) return `this host's own, ${own}, is not of the same family`;
    if (hop === null) return 'there is no route to it';
    if (table.get(hop.ip)?.answers === true) return null;
    return hop.ip === ip
      ? `it does not answer on ${hop.device}`
      : `its next hop ${hop.ip} does not answer on ${hop.device}`;
  }

  #show(missing: ReadonlyMap<string, string>): void {
    const changed = !isDeepStrictEqual(missing, this.#missing);
    this.#missing = missing;
    if (changed) this.#o.onMissing(missing);
  }

  async #learn(answered: readonly (readonly [string, Hop | null])[]): Promise<void> {
    const hops: Hop[] = [];
    for (const [ip, hop] of answered) {
      if (hop === null) continue;
      hops.push(hop);
      this.#known.set(ip, hop);
      this.#silent.delete(ip);
    }
    await this.#tell(hops);
  }

  /** A switch that is away is told when it is back. */
  async #tell(hops: readonly Hop[]): Promise<void> {
    const { teach } = this.#o;
    if (teach === null || hops.length === 0) return;
    try {
      const table = await neighbourTable();
      for (const hop of hops) {
        const mac = table?.get(hop.ip)?.mac;
        if (mac !== undefined && mac !== null) await teach(hop, mac);
      }
    } catch (error) {
      this.#o.log.warn({ err: error }, 'the switch was not told its neighbours');
    }
  }

  #probe(ip: string): void {
    this.#socket?.send(Buffer.of(0), DISCARD_PORT, ip, (error) => {
      if (error !== null) this.#o.log.debug({ err: error, vtep: ip }, 'neighbour probe failed');
    });
  }
}
