/** Who asks the resolver: known by the address that a question comes from. */
import { networkInterfaces } from 'node:os';
import { containsIp, parseHostCidr, tryParseIp } from '../../lib/ip.ts';
import type { Journal, LocalEndpoint } from '../contract.ts';
import type { Asker } from '../dns/answer.ts';
import { isTransit } from './addresses.ts';

/** Interfaces come and go with Docker's networks; they are not read for every question. */
const READ_MS = 2_000;

/** An interface of the host, with an IPv4 address: address/prefix. */
export interface HostInterface {
  readonly name: string;
  readonly cidr: string;
}

export class Askers {
  readonly #journal: Pick<Journal, 'endpoints'>;
  readonly #underlay: () => string;
  readonly #read: () => readonly HostInterface[];
  readonly #now: () => number;
  #byTransit: ReadonlyMap<string, Asker> | null = null;
  #interfaces: { readonly at: number; readonly list: readonly HostInterface[] } | null = null;

  /** @param o.underlay this host's VTEP. @param o.now monotonic milliseconds */
  constructor(o: {
    journal: Pick<Journal, 'endpoints'>;
    underlay: () => string;
    now: () => number;
    interfaces?: () => readonly HostInterface[];
  }) {
    this.#journal = o.journal;
    this.#underlay = o.underlay;
    this.#now = o.now;
    this.#read = o.interfaces ?? hostInterfaces;
  }

  /** The journal has changed. */
  forget(): void {
    this.#byTransit = null;
  }

  /**
   * An endpoint asks for its container, which may have several. The host itself and containers on its other Docker networks ask the
   * world only. Whoever is on the underlay, or beyond a router, is nobody: null.
   */
  find(source: string): Asker | null {
    const ip = tryParseIp(source);
    if (ip === null) return null;
    if (isTransit(ip)) {
      this.#byTransit ??= askersOf(this.#journal.endpoints.values());
      const asker = this.#byTransit.get(source);
      if (asker !== undefined) return asker;
    }
    const now = this.#now();
    if (this.#interfaces === null || now - this.#interfaces.at > READ_MS)
      this.#interfaces = { at: now, list: this.#read() };
    return isLocal(ip, this.#interfaces.list, this.#underlay()) ? { networks: [] } : null;
  }
}

/** By transit address. Endpoints of one sandbox are one asker; without a sandbox an endpoint is one by itself. Pure. */
export function askersOf(endpoints: Iterable<LocalEndpoint>): Map<string, Asker> {
  const out = new Map<string, Asker>();
  for (const group of Map.groupBy(endpoints, (e) => e.sandbox ?? e.id).values()) {
    const networks = group.map((e) => e.networkId);
    for (const { transit, networkId } of group)
      if (transit !== undefined)
        out.set(transit, { networks: [networkId, ...networks.filter((id) => id !== networkId)] });
  }
  return out;
}

/** True for the host's own addresses, and for those behind its interfaces other than the underlay's. Pure. */
export function isLocal(ip: number, interfaces: readonly HostInterface[], underlay: string): boolean {
  const all = interfaces.map(({ name, cidr }) => ({ name, ...parseHostCidr(cidr) }));
  if (all.some((i) => i.ip === ip)) return true;
  const outside = new Set(interfaces.filter((i) => i.cidr.split('/')[0] === underlay).map((i) => i.name));
  return !isTransit(ip) && all.some((i) => !outside.has(i.name) && containsIp(i, ip));
}

function hostInterfaces(): HostInterface[] {
  return Object.entries(networkInterfaces()).flatMap(([name, addresses = []]) =>
    addresses.flatMap(({ family, cidr }) => (family === 'IPv4' && cidr !== null ? [{ name, cidr }] : [])),
  );
}
