/**
 * Endpoints that are no containers (`weft attach`, `weft detach`): a device of the host, such as a virtual machine's tap, or a network
 * namespace. They are journalled like Docker's, outlive the agent, and end when they are detached, or are gone for good.
 */
import { randomBytes } from 'node:crypto';
import type { AttachRequest } from '../../gen/weft/v1/agent.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { defaultMac, normalMac } from '../../lib/mac.ts';
import type { Network } from '../../lib/model.ts';
import type { AddressBook } from '../addresses.ts';
import type { Clock } from '../clock.ts';
import { type Attached, type Datapath, ipsOf, type Journal, type LocalEndpoint, type Mesh } from '../contract.ts';
import { transitOf } from '../gateway/assign.ts';
import { impliedMac } from '../implied-mac.ts';
import { refuseMac } from '../mac-use.ts';
import { takeAddresses } from './addresses.ts';
import { findAttached, networkOf, validName } from './find.ts';
import type { Places } from './places.ts';

const INTERFACE = 'weft0';
const INTEREST_MS = 5_000;
const NETWORK_MS = 5_000;
/** For the mesh to take the endpoint; it registers by itself later, too. */
const REGISTER_MS = 2_000;
/** Answers that no later try will change. */
const REFUSALS: ReadonlySet<string> = new Set(['ALREADY_EXISTS', 'PERMISSION_DENIED', 'NOT_FOUND', 'INVALID_ARGUMENT']);

export interface AttachmentsOptions {
  readonly journal: Journal;
  readonly mesh: Mesh;
  readonly datapath: Datapath;
  /** Everything that is wanted now is there; empty, or what failed. */
  readonly settled: () => Promise<string>;
  readonly addresses: AddressBook;
  /** As Docker's Join waits for peers. */
  readonly waiter: { wait(endpoint: LocalEndpoint): Promise<void> };
  readonly places: Places;
  readonly clock: Clock;
  readonly log: Log;
}

/** What is to be attached, looked at. */
interface Place {
  readonly attached: Attached;
  readonly sandbox: string | null;
  readonly interfaceName: string | null;
}

export class Attachments {
  readonly #o: AttachmentsOptions;
  /** Devices and names of calls under way. */
  readonly #busy = new Set<string>();

  constructor(options: AttachmentsOptions) {
    this.#o = options;
  }

  /** @returns when others reach it, as far as they are connected. @throws a reason for the user; then nothing is left behind */
  async attach(request: AttachRequest): Promise<{ endpoint: LocalEndpoint; network: Network }> {
    const { mesh } = this.#o;
    if (mesh.draining)
      throw new WeftError('FAILED_PRECONDITION', `host ${mesh.hostName} is being drained: it takes no new endpoints`, {
        hint: `attach on another host, or end it with weft host undrain ${mesh.hostName}`,
      });
    refuseControl(request.labels);
    const place = await this.#place(request);
    const network = await networkOf(this.#o, request.network, NETWORK_MS);
    const claims = [place.attached.kind === 'tap' ? place.attached.link : `${place.sandbox}/${place.interfaceName}`];
    return await this.#alone([...claims, `${network.id}/${place.attached.name}`], async () => {
      this.#refuseTaken(network, place);
      await mesh.interested(network.id, AbortSignal.timeout(INTEREST_MS));
      await this.#o.datapath.carries(network.id);
      return { endpoint: await this.#make(request, network, place), network };
    });
  }

  /** @param wanted id, unique prefix of one, or name. Resolves when nothing of it is left on this host. */
  async detach(wanted: string): Promise<LocalEndpoint> {
    const endpoint = findAttached(this.#o.journal, wanted);
    await this.remove(endpoint);
    const failure = await this.#o.settled();
    if (failure !== '') this.#o.log.warn({ endpoint: endpoint.id, failure }, 'detached; its port goes later');
    if (endpoint.attached?.kind === 'tap') await this.#o.places.giveBack(endpoint.attached);
    return endpoint;
  }

  /** The endpoint leaves the journal, its addresses are free. */
  async remove(endpoint: LocalEndpoint): Promise<void> {
    const { journal, addresses, datapath } = this.#o;
    if (journal.endpoints.get(endpoint.id) !== endpoint) return;
    await journal.write([
      { table: 'endpoint', key: endpoint.id, value: null },
      ...ipsOf(endpoint).map((ip) => addresses.used(endpoint.networkId, ip, 'requested')),
    ]);
    for (const ip of ipsOf(endpoint)) await addresses.release(endpoint.networkId, ip);
    await datapath.detach(endpoint.id);
  }

  async #place(r: AttachRequest): Promise<Place> {
    if ((r.interface === '') === (r.netns === ''))
      throw new WeftError('INVALID_ARGUMENT', 'one of interface and network namespace must be given, not both');
    if (r.interface !== '') {
      if (r.interfaceName !== '')
        throw new WeftError('INVALID_ARGUMENT', 'an interface keeps its name', { hint: 'leave --ifname out' });
      const { name: link, mtu, up } = await this.#device(r.interface);
      const attached: Attached = { kind: 'tap', name: validName(r.name, link), link, mtu, up };
      return { attached, sandbox: null, interfaceName: null };
    }
    const interfaceName = r.interfaceName === '' ? INTERFACE : r.interfaceName;
    const { path, inode, name } = await this.#o.places.namespace(r.netns, interfaceName);
    return { attached: { kind: 'netns', name: validName(r.name, name), inode }, sandbox: path, interfaceName };
  }

  async #device(name: string) {
    for (const e of this.#o.journal.endpoints.values())
      if (e.attached?.kind === 'tap' && e.attached.link === name)
        throw new WeftError(
          'ALREADY_EXISTS',
          `interface ${name} is attached already, as ${e.attached.name} (${e.ip})`,
          {
            hint: `weft detach ${e.id.slice(0, 12)}`,
          },
        );
    return await this.#o.places.device(name);
  }

  #refuseTaken(network: Network, { attached }: Place): void {
    for (const e of this.#o.journal.endpoints.values())
      if (e.attached?.name === attached.name && e.networkId === network.id)
        throw new WeftError('ALREADY_EXISTS', `network ${network.name} has an endpoint ${attached.name} on this host`, {
          hint: 'give another --name, or detach that one first',
        });
  }

  async #make(request: AttachRequest, network: Network, place: Place): Promise<LocalEndpoint> {
    const { journal, clock } = this.#o;
    const id = randomBytes(32).toString('hex');
    const addresses = await takeAddresses(this.#o.addresses, network, request);
    try {
      const usual = defaultMac(addresses.ip, addresses.ip6, addresses.prefix6);
      const given = request.mac === '' ? null : normalMac(request.mac);
      const ips = ipsOf(addresses);
      const implied = impliedMac(this.#o, { network, ips, given, flag: '--mac' });
      const mac = given ?? implied ?? usual.mac;
      refuseMac(this.#o, { network, mac, usual, ips, endpointId: id, flag: '--mac' });
      const { attached, sandbox, interfaceName } = place;
      const endpoint: LocalEndpoint = {
        id,
        networkId: network.id,
        dockerNetworkId: null,
        ...addresses,
        mac,
        givenMac: mac !== usual.mac || usual.own,
        mtu: network.mtu,
        createdAt: new Date(clock.now()).toISOString(),
        sandbox,
        container: null,
        labels: { ...request.labels },
        aliases: [attached.name],
        interfaceName,
        ...transitOf(journal, { id }),
        attached,
      };
      await journal.write([
        { table: 'endpoint', key: id, value: endpoint },
        ...ipsOf(endpoint).map((ip) => this.#o.addresses.used(network.id, ip, 'endpoint')),
      ]);
      await this.#reachable(endpoint);
      return endpoint;
    } catch (error) {
      await this.#undo(id, network.id, ipsOf(addresses), place);
      throw error;
    }
  }

  async #reachable(endpoint: LocalEndpoint): Promise<void> {
    await this.#o.datapath.attach(endpoint.id);
    await Promise.all([this.#registered(endpoint.id), this.#o.waiter.wait(endpoint)]);
  }

  /** @throws when the mesh does not take it; who is only late is not waited for. */
  async #registered(id: string): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, REGISTER_MS);
    });
    const told = this.#o.mesh.registered(id).catch((error: unknown) => {
      if (REFUSALS.has(WeftError.from(error).code)) throw error;
    });
    try {
      await Promise.race([told, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #undo(id: string, networkId: string, ips: readonly string[], place: Place): Promise<void> {
    const endpoint = this.#o.journal.endpoints.get(id);
    if (endpoint !== undefined) {
      await this.remove(endpoint);
      await this.#o.settled();
      if (place.attached.kind === 'tap') await this.#o.places.giveBack(place.attached);
    } else for (const ip of ips) await this.#o.addresses.release(networkId, ip);
  }

  /** Two calls for one device, or one name, are not both right. */
  async #alone<T>(keys: readonly string[], work: () => Promise<T>): Promise<T> {
    const taken = keys.find((key) => this.#busy.has(key));
    if (taken !== undefined)
      throw new WeftError('ALREADY_EXISTS', `${taken} is being attached by another call just now`);
    for (const key of keys) this.#busy.add(key);
    try {
      return await work();
    } finally {
      for (const key of keys) this.#busy.delete(key);
    }
  }
}

/** Labels are shown on terminals, and written in logs. @throws INVALID_ARGUMENT */
function refuseControl(labels: Readonly<Record<string, string>>): void {
  const bad = Object.entries(labels).find((pair) => pair.some((text) => /\p{Cc}/u.test(text)));
  if (bad !== undefined)
    throw new WeftError(
      'INVALID_ARGUMENT',
      `the label ${middleCut(JSON.stringify(bad.join('=')))} has a control character`,
      {
        hint: 'leave it out',
      },
    );
}
