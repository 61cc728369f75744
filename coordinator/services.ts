/**
 * Services, as far as hosts have to do with them: nobody may have the virtual address, so whoever has its block, or holds it, is asked
 * first. An address that nobody gave is picked outside all blocks; only where there is none, out of one.
 */
import { codeOf, WeftError } from '../lib/errors.ts';
import type { Block, Network, Service } from '../lib/model.ts';
import { AGREED_MS, type AgreementDeps, askHost, flushed, TRIES, whoMustAgree } from './agreement.ts';
import { occupiedAddresses, pickInBlocks, serviceClash } from './alloc/service-clash.ts';
import type { NewService } from './contract.ts';

/** Addresses that are tried before there is said to be none. */
const MAX_PICKS = 64;

/** What a host is told that the address is for; no container can be called so, and keep the address. */
const purpose = (name: string): string => `service ${name}`;

/** What has been found out about addresses that were picked out of blocks. */
class Picks {
  /** Family to address: those that are to be asked for. */
  readonly present = new Map<4 | 6, string>();
  /** Those that somebody has. */
  readonly #passed = new Set<string>();
  /** Hosts that did not answer, by id; their names. */
  readonly #silent = new Map<string, string>();
  readonly #deps: AgreementDeps;
  readonly #network: Network;
  #tries = 0;

  constructor(deps: AgreementDeps, network: Network) {
    this.#deps = deps;
    this.#network = network;
  }

  /** @throws RESOURCE_EXHAUSTED */
  next(family: 4 | 6): void {
    const { state, fanout } = this.#deps;
    const { id, name } = this.#network;
    const silent = ({ hostId }: Block): boolean => {
      if (!this.#silent.has(hostId) && !fanout.connected(hostId)) this.silent(hostId);
      return this.#silent.has(hostId);
    };
    const blocks = state.blocks.get(id)?.values() ?? [];
    const pass = { block: silent, ip: this.#passed };
    const ip = pickInBlocks(this.#network, family, blocks, occupiedAddresses(state, id), pass);
    this.#tries++;
    if (ip !== null && this.#tries <= MAX_PICKS) {
      this.present.set(family, ip);
      return;
    }
    const names = [...this.#silent.values()].sort().join(', ');
    const unasked = names === '' ? '' : `; ${names} could not be asked`;
    throw new WeftError(
      'RESOURCE_EXHAUSTED',
      `Network ${name} has no IPv${family} address left for a service: all are in blocks of hosts${unasked}.`,
      {
        hint: names === '' ? 'end containers, or make a larger network' : 'start these hosts, or give an address: --ip',
      },
    );
  }

  pass(family: 4 | 6): void {
    const ip = this.present.get(family);
    if (ip !== undefined) this.#passed.add(ip);
    this.present.delete(family);
  }

  silent(hostId: string): void {
    this.#silent.set(hostId, this.#deps.state.hosts.get(hostId)?.name ?? hostId);
  }
}

export class Services {
  readonly #deps: AgreementDeps;

  constructor(deps: AgreementDeps) {
    this.#deps = deps;
  }

  /**
   * @param wanted as checkService made it
   * @throws ALREADY_EXISTS name, address or port of the hosts is another's; FAILED_PRECONDITION who must agree is not connected;
   * RESOURCE_EXHAUSTED no address is left, or no more services may be made
   */
  async create(network: Network, wanted: NewService, signal: AbortSignal): Promise<Service> {
    const { state, store } = this.#deps;
    const picks = new Picks(this.#deps, network);
    if (serviceClash(state, network, wanted) !== null) await flushed(this.#deps, network.id, wanted.ips, signal);
    for (let attempt = 1; ; ) {
      const clash = serviceClash(state, network, wanted);
      if (clash !== null) throw clash;
      const began = performance.now();
      const agreed = new Map<string, string>();
      for (const ip of wanted.ips) await this.#agree(network, wanted.name, ip, agreed, signal);
      await this.#agreePicked(network, wanted.name, picks, agreed, signal);
      if (agreed.size > 0) await store.caughtUp();
      if (performance.now() - began >= AGREED_MS && attempt++ < TRIES) continue;
      try {
        const ips = [...wanted.ips, ...picks.present.values()];
        const outcome = await store.createService({ ...wanted, ips }, agreed);
        if ('made' in outcome) return outcome.made;
        picks.next(outcome.crowded);
      } catch (error) {
        const code = codeOf(error);
        // What was picked may have become another's; what was given is judged anew.
        if (code === 'ALREADY_EXISTS' && picks.present.size > 0)
          for (const family of picks.present.keys()) picks.pass(family);
        else if (code !== 'ABORTED' || attempt++ >= TRIES) throw error;
      }
    }
  }

  async #agree(
    network: Network,
    name: string,
    ip: string,
    agreed: Map<string, string>,
    signal: AbortSignal,
  ): Promise<void> {
    const host = whoMustAgree(this.#deps, network.id, ip);
    if (host === null) return;
    await askHost(this.#deps, network, ip, { name: purpose(name), host, forHostId: '' }, signal);
    agreed.set(ip, host);
  }

  /** Those that are not given are passed by. */
  async #agreePicked(
    network: Network,
    name: string,
    picks: Picks,
    agreed: Map<string, string>,
    signal: AbortSignal,
  ): Promise<void> {
    for (const [family, ip] of picks.present)
      try {
        await this.#agree(network, name, ip, agreed, signal);
      } catch (error) {
        if (signal.aborted) throw error;
        const host = whoMustAgree(this.#deps, network.id, ip);
        if (codeOf(error) !== 'ALREADY_EXISTS' && host !== null) picks.silent(host);
        picks.pass(family);
      }
  }
}
