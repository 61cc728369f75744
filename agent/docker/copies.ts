/** Which Docker network on this host is which mesh network: questions to the journal, and what is under way between two calls. */
import { WeftError } from '../../lib/errors.ts';
import type { Network } from '../../lib/model.ts';
import type { Journal, JournalWrite, LocalNetwork, Mesh } from '../contract.ts';
import { MAX_TAGGED_INDEX } from '../wiring.ts';

const MAX_INDEX = 65_535;

/** A `docker network rm` that could not be honoured, or a name that the mesh does not take. */
export interface Refused {
  readonly network: string;
  readonly message: string;
  /** It concerns a network of the catalogue, and ends with it. */
  readonly inCatalogue: boolean;
  readonly at: number;
}

export class Copies {
  readonly #journal: Journal;
  readonly #mesh: Mesh;
  #lastIndex = 0;
  readonly #bound = new Set<() => void>();
  /**
   * Copies that the agent itself is creating: each subnet to mesh id. Docker tells the driver no name and no label, and options would
   * show in `docker network inspect` (docker-compose refuses a network with options that are not in its file).
   */
  readonly creating = new Map<string, string>();
  /** Docker network ids that the agent itself is removing: their DeleteNetwork is not sent to the mesh. */
  readonly removing = new Set<string>();
  /** Mesh networks whose DeleteNetwork is being answered: Docker does not list them any more. */
  readonly deleting = new Set<string>();
  /** Mesh networks removed by Docker here, until the view shows it: not to be made again meanwhile. Id to monotonic ms. */
  readonly removed = new Map<string, number>();
  /** When a network was reserved, or got its name, here (monotonic ms): the view may be older. */
  readonly touchedAt = new Map<string, number>();
  /** When CreateNetwork was answered for it (monotonic ms): Docker may not list it yet. */
  readonly createdAt = new Map<string, number>();
  /** By mesh network id. */
  readonly refused = new Map<string, Refused>();

  constructor(options: { journal: Journal; mesh: Mesh }) {
    this.#journal = options.journal;
    this.#mesh = options.mesh;
  }

  byDockerId(dockerNetworkId: string): LocalNetwork | undefined {
    return this.#journal.networks.values().find((row) => row.dockerNetworkId === dockerNetworkId);
  }

  byId(networkId: string): LocalNetwork | undefined {
    return this.#journal.networks.get(networkId);
  }

  /** The newest record of a network: the catalogue's when it is there, else the journal's copy. */
  record(row: LocalNetwork): Network {
    const seen = this.#mesh.view().networks.get(row.networkId);
    return seen !== undefined && seen.revision >= row.network.revision ? seen : row.network;
  }

  /** A row for a network that this host has no copy of yet; an existing row keeps its index. */
  rowFor(network: Network, dockerNetworkId: string | null): LocalNetwork {
    const known = this.#journal.networks.get(network.id);
    return {
      networkId: network.id,
      dockerNetworkId,
      name: network.name,
      index: known?.index ?? this.#nextIndex(),
      network,
    };
  }

  /** The write that sets a row. */
  put(row: LocalNetwork): JournalWrite {
    return { table: 'network', key: row.networkId, value: row };
  }

  /** The writes that forget a network that the mesh no longer has: with its blocks and addresses. Endpoints have their own way. */
  forget(networkId: string): JournalWrite[] {
    const writes: JournalWrite[] = [{ table: 'network', key: networkId, value: null }];
    for (const [key, block] of this.#journal.blocks)
      if (block.networkId === networkId) writes.push({ table: 'block', key, value: null });
    for (const [key, address] of this.#journal.addresses)
      if (address.networkId === networkId) writes.push({ table: 'address', key, value: null });
    return writes;
  }

  /** The writes that forget blocks and addresses of networks that are gone; only when the view is complete. */
  orphans(): JournalWrite[] {
    if (!this.#mesh.complete) return [];
    const { networks } = this.#mesh.view();
    const gone = (id: string): boolean =>
      !networks.has(id) && !this.#journal.networks.has(id) && !this.touchedAt.has(id);
    const writes: JournalWrite[] = [];
    for (const [key, block] of this.#journal.blocks)
      if (gone(block.networkId)) writes.push({ table: 'block', key, value: null });
    for (const [key, address] of this.#journal.addresses)
      if (gone(address.networkId)) writes.push({ table: 'address', key, value: null });
    return writes;
  }

  /** Wakes those that wait for a network's name. */
  changed(): void {
    for (const wake of this.#bound) wake();
  }

  /**
   * Waits until the network has its name.
   * @throws UNAVAILABLE after `timeoutMs`; FAILED_PRECONDITION when it lost its name to another one
   */
  async untilBound(networkId: string, timeoutMs: number): Promise<Network> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const row = this.byId(networkId);
      const network = row === undefined ? this.#mesh.view().networks.get(networkId) : this.record(row);
      if (network === undefined)
        throw new WeftError('FAILED_PRECONDITION', 'this network is not on the mesh (any more)', {
          hint: 'was it made without -d weft (docker network inspect shows its driver)? Or another host made one of the same name, or removed it: look at docker network ls',
        });
      if (network.state === 'bound') return network;
      const left = deadline - performance.now();
      if (left <= 0)
        throw new WeftError('UNAVAILABLE', 'the network has not got its name in the mesh yet', {
          hint: 'is a coordinator connected (weft status)? Then try again',
        });
      await this.#nextChange(left);
    }
  }

  #nextChange(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#bound.delete(done);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      this.#bound.add(done);
    });
  }

  /**
   * Going round, so that an index (a conntrack zone) is not used again soon. Those that fit into a tag first: there are others only
   * once all of these are taken.
   */
  #nextIndex(): number {
    const used = new Set(this.#journal.networks.values().map((row) => row.index));
    if (this.#lastIndex === 0) this.#lastIndex = Math.max(0, ...used);
    const index =
      firstFree(used, 1, MAX_TAGGED_INDEX, this.#lastIndex) ??
      firstFree(used, MAX_TAGGED_INDEX + 1, MAX_INDEX, this.#lastIndex);
    if (index === null) throw new WeftError('RESOURCE_EXHAUSTED', `this host has ${MAX_INDEX} networks already`);
    this.#lastIndex = index;
    return index;
  }
}

/** The first after `last` that is not used, from the beginning again after the end. */
function firstFree(used: ReadonlySet<number>, from: number, to: number, last: number): number | null {
  const size = to - from + 1;
  const start = last >= from && last < to ? last + 1 - from : 0;
  for (let i = 0; i < size; i++) {
    const index = from + ((start + i) % size);
    if (!used.has(index)) return index;
  }
  return null;
}
