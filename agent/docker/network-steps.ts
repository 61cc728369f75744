/** Carries out one step of a networks plan: calls to Docker, to the mesh, and the journal's rows. */
import { familyOfText } from '../../lib/addr.ts';
import { type Code, WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { Drift, Network } from '../../lib/model.ts';
import type { Clock } from '../clock.ts';
import type { Journal, LocalNetwork, Mesh } from '../contract.ts';
import type { DockerApi, DockerNetwork } from './api.ts';
import type { Copies } from './copies.ts';
import { dockerName, type NetworkStep } from './networks.ts';
import { gatewayText, ipRangeText, subnetText } from './pools.ts';

/** Answers of the mesh that will not change by asking again. */
const REFUSALS: readonly Code[] = [
  'INVALID_ARGUMENT',
  'UNIMPLEMENTED',
  'FAILED_PRECONDITION',
  'PERMISSION_DENIED',
  'ALREADY_EXISTS',
];
/** A drift found at a moment, and healed at another or not yet (epoch ms). */
export type OnDrift = (drift: Drift, detectedAt: number, healedAt: number | null) => void;

export interface NetworksLoopOptions {
  readonly journal: Journal;
  readonly mesh: Mesh;
  readonly api: DockerApi;
  readonly copies: Copies;
  readonly clock: Clock;
  readonly heal: boolean;
  readonly onDrift: OnDrift;
  readonly log: Log;
}

export class NetworkSteps {
  readonly #journal: Journal;
  readonly #mesh: Mesh;
  readonly #api: DockerApi;
  readonly #copies: Copies;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #onDrift: OnDrift;
  /** Removed behind the agent's back, being made again: mesh id to the moment it was noticed. */
  readonly #missing = new Map<string, number>();

  constructor(options: NetworksLoopOptions) {
    this.#journal = options.journal;
    this.#mesh = options.mesh;
    this.#api = options.api;
    this.#copies = options.copies;
    this.#clock = options.clock;
    this.#log = options.log;
    this.#onDrift = options.onDrift;
  }

  /** Done when Docker has answered. @throws Docker's or the mesh's refusal */
  async apply(step: NetworkStep): Promise<void> {
    switch (step.kind) {
      case 'create':
        this.#log.info({ network: step.name, subnet: step.network.subnets[0] }, 'docker network: create');
        await this.#create(step.network);
        this.#healed(step.network);
        return;
      case 'remove':
        await this.#remove(step.dockerId, step.name, step.networkId, step.why);
        return;
      case 'bind':
        await this.#bind(step.docker, step.row);
        return;
      case 'adopt':
        this.#log.info({ network: step.network.name, dockerId: step.dockerId }, 'docker network: recognised');
        await this.#journal.write([this.#copies.put(this.#copies.rowFor(step.network, step.dockerId))]);
        this.#copies.changed();
        return;
      case 'refresh':
        await this.#journal.write([this.#copies.put({ ...step.row, name: step.network.name, network: step.network })]);
        this.#copies.changed();
        return;
      case 'forget':
        if (step.missing) this.#missing.set(step.row.networkId, this.#clock.now());
        await this.#forget(step.row);
        return;
    }
  }

  async #create(network: Network): Promise<void> {
    for (const subnet of network.subnets) this.#copies.creating.set(subnet, network.id);
    try {
      await this.#api.createNetwork(specOf(network));
    } finally {
      for (const subnet of network.subnets) this.#copies.creating.delete(subnet);
    }
  }

  #healed(network: Network): void {
    const detectedAt = this.#missing.get(network.id);
    if (detectedAt === undefined) return;
    this.#missing.delete(network.id);
    this.#onDrift(missingDrift(network), detectedAt, this.#clock.now());
  }

  async #remove(dockerId: string, name: string, networkId: string, why: string): Promise<void> {
    const found = await this.#api.network(dockerId);
    if (found !== null && found.endpoints.length > 0)
      throw new WeftError(
        'FAILED_PRECONDITION',
        `Docker network ${name} is not as the mesh has it (${why}), and containers use it here: ${found.endpoints.map((e) => e.containerName).join(', ')}`,
      );
    this.#log.info({ network: name, dockerId, why }, 'docker network: remove');
    this.#copies.removing.add(dockerId);
    try {
      await this.#api.removeNetwork(dockerId);
    } finally {
      this.#copies.removing.delete(dockerId);
    }
    if (this.#mesh.complete && !this.#mesh.view().networks.has(networkId))
      await this.#journal.write(this.#copies.forget(networkId));
    this.#copies.changed();
  }

  async #forget(row: LocalNetwork): Promise<void> {
    if (this.#mesh.view().networks.has(row.networkId)) {
      // The row stays (its index is in the datapath); the next plan creates the copy.
      await this.#journal.write([this.#copies.put({ ...row, dockerNetworkId: null })]);
      return;
    }
    const reserved = row.network.state === 'reserved';
    if (!reserved && !this.#mesh.complete) return;
    await this.#journal.write(this.#copies.forget(row.networkId));
    this.#copies.changed();
    if (reserved) await this.#mesh.removeNetwork(row.networkId).catch(() => undefined); // its lease ends anyway
  }

  /** docker network create gave it a name: the mesh hears it now. */
  async #bind(docker: DockerNetwork, row: LocalNetwork): Promise<void> {
    const bind = (
      networkId: string,
      joins: string | undefined,
    ): Promise<{ network: Network; won: boolean; winnerHost: string }> =>
      this.#mesh.bindNetwork({
        networkId,
        name: docker.name,
        labels: docker.labels,
        options: docker.options,
        internal: docker.internal,
        attachable: docker.attachable,
        gateway: gatewayText(row.network, 4),
        gateway6: gatewayText(row.network, 6),
        auxAddresses: row.network.auxAddresses,
        joins: joins ?? '',
        ipv6: row.network.ipv6,
      });
    let result: Awaited<ReturnType<typeof bind>>;
    let why = 'its reservation had ended';
    try {
      result = await bind(row.networkId, row.joins);
      why = `${result.winnerHost === '' ? 'the mesh' : `host ${result.winnerHost}`} made the network of this name first`;
    } catch (error) {
      const { code, message } = WeftError.from(error);
      if (REFUSALS.includes(code)) return await this.#unbindable(docker, row, message);
      if (code !== 'NOT_FOUND') throw error;
      // The reservation ended (no coordinator for long): the same subnet anew, and then an ordinary copy of it.
      const [again, other] = await this.#reserveAgain(row);
      result = { ...(await bind(again, other)), won: false };
    }
    if (result.won) {
      this.#log.info({ network: docker.name, subnet: result.network.subnets[0] }, 'docker network: its name is bound');
      this.#copies.touchedAt.set(row.networkId, this.#clock.monotonic());
      const { joins: _, ...kept } = row;
      await this.#journal.write([this.#copies.put({ ...kept, name: result.network.name, network: result.network })]);
      this.#copies.changed();
      return;
    }
    this.#log.warn(
      { network: docker.name, why },
      'docker network: made again as a copy of the network that has its name',
    );
    await this.#journal.write(this.#copies.forget(row.networkId));
    this.#copies.changed();
    await this.#remove(docker.id, docker.name, row.networkId, why);
  }

  /** A reservation for each subnet, as Docker asked for them: the second one joins the first. */
  async #reserveAgain({ network }: LocalNetwork): Promise<[string, string | undefined]> {
    const ids: string[] = [];
    for (const pool of network.subnets) {
      const family = familyOfText(pool);
      const subPool = ipRangeText(network, family);
      const made = await this.#mesh.reserveNetwork({ pool, subPool, ipv6: family === 6, options: {} });
      ids.push(made.id);
    }
    return [ids[0] ?? '', ids[1]];
  }

  /** The mesh does not take it: it cannot stay either, for no container could use it. */
  async #unbindable(docker: DockerNetwork, row: LocalNetwork, why: string): Promise<void> {
    const message = `Docker network ${docker.name} cannot be a network of the mesh, and was removed: ${why}`;
    this.#log.error({ network: docker.name, why }, 'docker network: refused by the mesh');
    this.#copies.refused.set(row.networkId, {
      network: docker.name,
      message,
      inCatalogue: false,
      at: this.#clock.monotonic(),
    });
    await this.#journal.write(this.#copies.forget(row.networkId));
    this.#copies.changed();
    await this.#remove(docker.id, docker.name, row.networkId, why);
    await this.#mesh.removeNetwork(row.networkId).catch(() => undefined); // its lease ends anyway
  }
}

export const missingDrift = (network: Network): Drift => ({
  kind: 'dockerNetwork',
  object: dockerName(network),
  change: 'missing',
  want: network.subnets.join(','),
  have: '',
});

const specOf = (network: Network) => ({
  name: dockerName(network),
  pools: ([4, 6] as const).map((family) => ({
    subnet: subnetText(network, family),
    ipRange: ipRangeText(network, family),
    gateway: gatewayText(network, family),
  })),
  auxAddresses: network.auxAddresses,
  options: network.options,
  labels: network.labels,
  internal: network.internal,
  attachable: network.attachable,
});
