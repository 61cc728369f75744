/**
 * Peers' VTEPs are resolved before anything is sent to them: the first packet through a tunnel whose next hop is unknown is lost, or
 * waits a second. A datagram to the discard port (RFC 863) makes the kernel ask; the switch learns from the answer that passes by.
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

export class Neighbours {
  readonly #own: string;
  readonly #log: Log;
  readonly #known = new Set<string>();
  #socket: Socket | null = null;
  #timer: NodeJS.Timeout | null = null;

  /** @param own this host's VTEP: probes leave from it. */
  constructor(own: string, log: Log) {
    this.#own = own;
    this.#log = log;
  }

  async start(): Promise<void> {
    const socket = createSocket('udp4');
    socket.on('error', (error) => this.#log.warn({ err: error }, 'neighbour probe failed'));
    await new Promise<void>((resolve) => {
      socket.once('error', () => resolve());
      socket.bind(0, this.#own, () => resolve());
    });
    this.#socket = socket;
    this.#timer = setInterval(() => this.#refresh(), REFRESH_MS);
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#socket?.close();
    this.#socket = null;
  }

  /** Resolves when the kernel knows all of them, or after a second. @returns those that do not answer. */
  async resolve(vteps: Iterable<string>): Promise<string[]> {
    const unknown = [...new Set(vteps)].filter((ip) => !this.#known.has(ip) && ip !== this.#own);
    if (unknown.length === 0) return [];
    for (const ip of unknown) this.#probe(ip);
    const hops = new Map(await Promise.all(unknown.map(async (ip) => [ip, await nextHop(ip)] as const)));
    const deadline = performance.now() + WAIT_MS;
    for (;;) {
      const states = await neighbourStates();
      for (const ip of unknown) if (states.has(hops.get(ip) ?? ip)) this.#known.add(ip);
      const missing = unknown.filter((ip) => !this.#known.has(ip));
      if (missing.length === 0 || performance.now() > deadline) {
        if (missing.length > 0) this.#log.warn({ vteps: missing }, 'peers do not answer on the underlay');
        return missing;
      }
      await pause(POLL_MS);
    }
  }

  #refresh(): void {
    for (const ip of this.#known) this.#probe(ip);
  }

  #probe(ip: string): void {
    this.#socket?.send(Buffer.of(0), DISCARD_PORT, ip, (error) => {
      if (error !== null) this.#log.debug({ err: error, vtep: ip }, 'neighbour probe failed');
    });
  }
}

/** The neighbour that frames for the address go to: itself, or a router. */
async function nextHop(ip: string): Promise<string> {
  const r = await exec('ip', ['-j', 'route', 'get', ip]);
  if (r.code !== 0) return ip;
  const [route] = JSON.parse(r.stdout.trim() === '' ? '[]' : r.stdout) as { gateway?: string }[];
  return route?.gateway ?? ip;
}

/** Addresses whose link-layer address is known. */
async function neighbourStates(): Promise<Set<string>> {
  const r = await exec('ip', ['-j', 'neigh', 'show']);
  if (r.code !== 0) return new Set();
  const items = JSON.parse(r.stdout.trim() === '' ? '[]' : r.stdout) as { dst?: string; lladdr?: string }[];
  return new Set(items.filter((n) => n.lladdr !== undefined).map((n) => n.dst ?? ''));
}
