/** Compares Docker's endpoints with the journal, from time to time and when Docker was away, and puts the journal right. */
import { setTimeout as delay } from 'node:timers/promises';
import { canonicalIp } from '../../lib/addr.ts';
import type { Log } from '../../lib/log.ts';
import { defaultMac } from '../../lib/mac.ts';
import type { Drift } from '../../lib/model.ts';
import type { AddressBook } from '../addresses.ts';
import type { Clock } from '../clock.ts';
import {
  type Datapath,
  ipsOf,
  type Journal,
  type JournalWrite,
  type LocalAddress,
  type LocalEndpoint,
} from '../contract.ts';
import { transitOf } from '../gateway/assign.ts';
import type { DockerApi, DockerEndpoint } from './api.ts';
import type { Copies } from './copies.ts';
import type { EndpointDriver } from './endpoints.ts';
import type { Identity } from './identity.ts';
import { confirmed, driftOf, type EndpointsPlan, isEmpty, planEndpoints } from './reconcile.ts';

const PERIOD_MS = 7_000;
/** Between two looks that must agree. */
const CONFIRM_MS = 1_500;
const IN_FLIGHT_MS = 60_000;
/** An address of an earlier life of the agent. */
const ABANDONED_MS = 60_000;
/** One that this very process gave out: Docker would have to be slower than any container's start. */
const ABANDONED_SAME_LIFE_MS = 600_000;
const INSPECT_MS = 5_000;

export interface EndpointAuditOptions {
  readonly journal: Journal;
  readonly api: DockerApi;
  readonly addresses: AddressBook;
  readonly copies: Copies;
  readonly driver: EndpointDriver;
  readonly identity: Identity;
  readonly datapath: Datapath;
  readonly clock: Clock;
  readonly log: Log;
  /** False: only `drift` looks, nothing is put right. */
  readonly heal: boolean;
  readonly onDrift: (drift: Drift, detectedAt: number, healedAt: number | null) => void;
}

export class EndpointAudit {
  readonly #o: EndpointAuditOptions;
  readonly #started: { readonly wall: number; readonly mono: number };
  /** Since when this process sees an address unused (monotonic ms). */
  readonly #unusedSince = new Map<string, number>();
  readonly #abort = new AbortController();
  #loop: Promise<void> | null = null;

  constructor(options: EndpointAuditOptions) {
    this.#o = options;
    this.#started = { wall: options.clock.now(), mono: options.clock.monotonic() };
  }

  start(): void {
    this.#loop = this.#run();
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        if (this.#o.heal) await this.heal();
        this.#o.identity.sweep();
      } catch (error) {
        // Docker away or only half answering: nothing is concluded from that.
        if (!signal.aborted) this.#o.log.debug({ err: error }, 'endpoints not compared with Docker');
      }
      await delay(PERIOD_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  /** What two looks agree on, put right. @throws when Docker does not answer all that is asked */
  async heal(): Promise<Drift[]> {
    const plan = await this.#look();
    if (isEmpty(plan)) return [];
    const detectedAt = this.#o.clock.now();
    for (const endpoint of plan.stale) await this.#remove(endpoint);
    await this.#freeUnused(plan.unused);
    for (const endpoint of plan.lost) await this.#rebuild(endpoint);
    this.#o.datapath.kick();
    const drift = driftOf(plan);
    for (const item of drift) this.#o.onDrift(item, detectedAt, this.#o.clock.now());
    return drift;
  }

  /** The same look, nothing changed. */
  async drift(): Promise<Drift[]> {
    return driftOf(await this.#look());
  }

  async #look(): Promise<EndpointsPlan> {
    const first = await this.#plan();
    if (isEmpty(first)) return first;
    await delay(CONFIRM_MS, undefined, { signal: this.#abort.signal });
    return confirmed(first, await this.#plan());
  }

  async #plan(): Promise<EndpointsPlan> {
    const { journal, api } = this.#o;
    const ids = new Set<string>();
    for (const row of journal.networks.values()) if (row.dockerNetworkId !== null) ids.add(row.dockerNetworkId);
    for (const e of journal.endpoints.values()) if (e.dockerNetworkId !== null) ids.add(e.dockerNetworkId);
    const docker = new Map<string, readonly DockerEndpoint[] | null>();
    for (const id of ids) docker.set(id, (await api.network(id))?.endpoints ?? null);
    const now = this.#o.clock.monotonic();
    return planEndpoints({
      docker,
      endpoints: journal.endpoints,
      addresses: journal.addresses,
      inFlight: (id) => this.#inFlight(id, now),
      abandoned: (key, address) => this.#abandoned(key, address, now),
    });
  }

  #inFlight(endpointId: string, now: number): boolean {
    const createdAt = this.#o.driver.createdAt(endpointId);
    const joined = this.#o.journal.endpoints.get(endpointId)?.sandbox !== null;
    return createdAt !== null && !joined && now - createdAt < IN_FLIGHT_MS;
  }

  #abandoned(key: string, address: LocalAddress, now: number): boolean {
    if (address.since < this.#started.wall) return now - this.#started.mono >= ABANDONED_MS;
    const since = this.#unusedSince.get(`${key}@${address.since}`);
    if (since !== undefined) return now - since >= ABANDONED_SAME_LIFE_MS;
    for (const old of this.#unusedSince.keys()) if (old.startsWith(`${key}@`)) this.#unusedSince.delete(old);
    this.#unusedSince.set(`${key}@${address.since}`, now);
    return false;
  }

  async #remove(endpoint: LocalEndpoint): Promise<void> {
    const { journal, log, addresses } = this.#o;
    const now = journal.endpoints.get(endpoint.id);
    if (now === undefined) return;
    log.warn(
      { endpoint: endpoint.id, ips: ipsOf(endpoint), container: now.container?.name },
      'Docker no longer has the endpoint: removed',
    );
    await this.#o.driver.deleteEndpoint({ NetworkID: endpoint.dockerNetworkId ?? '', EndpointID: endpoint.id });
    for (const ip of ipsOf(endpoint)) await addresses.release(endpoint.networkId, ip);
  }

  async #freeUnused(keys: readonly string[]): Promise<void> {
    for (const key of keys) {
      const row = this.#o.journal.addresses.get(key);
      if (row === undefined) continue;
      this.#o.log.info({ network: row.networkId, ip: row.ip }, 'address that nothing uses: freed');
      await this.#o.addresses.release(row.networkId, row.ip);
    }
  }

  /** The journal was lost: Docker knows the endpoint, its container and its namespace. */
  async #rebuild(seen: DockerEndpoint): Promise<void> {
    const { journal, copies, api, addresses, clock, log } = this.#o;
    const row = copies.byDockerId(seen.dockerNetworkId);
    const info = await api.inspectContainer(seen.containerId!, INSPECT_MS);
    if (row === undefined || info === null || journal.endpoints.has(seen.id) || ipsOf(seen).length === 0) return;
    const network = copies.record(row);
    const { ip, prefix, prefix6 } = seen;
    const ip6 = seen.ip6 === '' ? '' : canonicalIp(seen.ip6);
    const usual = defaultMac(ip, ip6, prefix6);
    const endpoint: LocalEndpoint = {
      id: seen.id,
      networkId: row.networkId,
      dockerNetworkId: seen.dockerNetworkId,
      ip,
      prefix,
      ip6,
      prefix6,
      mac: seen.mac,
      givenMac: seen.mac !== usual.mac || usual.own,
      mtu: network.mtu,
      createdAt: new Date(clock.now()).toISOString(),
      sandbox: info.sandbox,
      container: null,
      labels: {},
      aliases: [],
      interfaceName: null,
      ...transitOf(journal, { id: seen.id }),
    };
    const { networkId } = row;
    const writes: JournalWrite[] = [
      { table: 'endpoint', key: seen.id, value: endpoint },
      ...ipsOf(endpoint).map((of) => addresses.used(networkId, of, 'endpoint')),
    ];
    log.warn(
      { endpoint: seen.id, ips: ipsOf(seen), container: seen.containerName },
      'endpoint of Docker that the journal lacked: rebuilt',
    );
    await journal.write(writes);
    this.#o.identity.look(seen.dockerNetworkId);
  }
}
