/** Gives endpoints ports of the host, as Docker asks, and takes them back: in the journal first, then in the kernel. */
import { readFile } from 'node:fs/promises';
import type { Journal, LocalEndpoint } from '../contract.ts';
import { hostIps } from './host-ips.ts';
import { allocatePorts, type PortWish, type TakenPort } from './ports.ts';
import { isFree, readListening } from './sockets.ts';

export interface PublisherOptions {
  readonly journal: Journal;
  /** What leads to services. */
  readonly services: () => readonly TakenPort[];
  /** The kernel has what the journal has. */
  readonly settled: () => Promise<void>;
}

/** Where nothing else is said (ip(7)). */
const EPHEMERAL = [32_768, 60_999] as const;

export class Publisher {
  readonly #o: PublisherOptions;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: PublisherOptions) {
    this.#o = options;
  }

  /**
   * The endpoint's container is led out by it, and these ports lead to it. All of them or none.
   * @throws ALREADY_EXISTS a port is taken; INVALID_ARGUMENT; UNAVAILABLE nftables cannot be set: nothing is kept
   */
  async publish(endpointId: string, wishes: readonly PortWish[]): Promise<void> {
    await this.#exclusive(async () => {
      const { journal } = this.#o;
      const e = journal.endpoints.get(endpointId);
      if (e === undefined) return; // removed meanwhile
      const ports = wishes.length === 0 ? [] : allocatePorts(wishes, await this.#state(e));
      await this.#put({ ...(journal.endpoints.get(endpointId) ?? e), external: { ports } });
    });
    if (wishes.length === 0) return;
    try {
      await this.#o.settled();
    } catch (error) {
      await this.revoke(endpointId);
      throw error;
    }
  }

  /** Another network leads its container out from now on, or none. */
  async revoke(endpointId: string): Promise<void> {
    const e = this.#o.journal.endpoints.get(endpointId);
    if (e?.external === undefined) return;
    const { external: _, ...rest } = e;
    await this.#put(rest);
  }

  #put(value: LocalEndpoint): Promise<void> {
    return this.#o.journal.write([{ table: 'endpoint', key: value.id, value }]);
  }

  async #state(e: LocalEndpoint): Promise<Parameters<typeof allocatePorts>[1]> {
    const listening = await readListening();
    const others = [...this.#o.journal.endpoints.values()].filter((other) => other.id !== e.id);
    return {
      taken: [...others.flatMap((other) => other.external?.ports ?? []), ...this.#o.services()],
      free: (port) => isFree(port, listening),
      hostIps: hostIps(),
      families: [...(e.ip === '' ? [] : [4 as const]), ...(e.ip6 === '' ? [] : [6 as const])],
      ephemeral: await readRange(),
    };
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#queue.then(work, work);
    this.#queue = next.catch(() => undefined);
    return next;
  }
}

async function readRange(): Promise<readonly [number, number]> {
  const text = await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').catch(() => '');
  const [first, last] = text.trim().split(/\s+/).map(Number);
  return first !== undefined && last !== undefined && first > 0 && last >= first ? [first, last] : EPHEMERAL;
}
