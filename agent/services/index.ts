/** Services on this host, put together: who is behind them, whether its own endpoints answer, and what it cannot do. */
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Conflict, Probe, View } from '../../lib/model.ts';
import type { Datapath, Journal, LocalEndpoint, LocalNetwork, Mesh } from '../contract.ts';
import { MAX_TAGGED_INDEX } from '../wiring.ts';
import { answers } from './check.ts';
import { Health, type HealthCounts } from './health.ts';
import { type HostServices, indexServices, NO_HOST_SERVICES, NO_SERVICES, type ServiceIndex } from './members.ts';
import { publishedServices } from './published.ts';

export type { HostServices } from './members.ts';

export interface ServiceSideOptions {
  readonly journal: Journal;
  readonly mesh: () => Pick<Mesh, 'hostId' | 'hostName' | 'view' | 'onView' | 'reportConflicts'> & {
    recordsChanged(): void;
  };
  readonly datapath: () => Pick<Datapath, 'kick'>;
  /** Ports that lead to services may be others now. */
  readonly onPublished: () => void;
  /** Of the probe "services": are virtual addresses translated on this host, and why not? */
  readonly probes: readonly Probe[];
  /** The way from the host to its endpoints has IPv6. */
  readonly ipv6: boolean;
  /** Open vSwitch is there. */
  readonly sees: () => boolean;
  readonly clock: Clock;
  readonly log: Log;
}

const NOBODY: ReadonlySet<string> = new Set<string>([]);

export class ServiceSide {
  readonly #o: ServiceSideOptions;
  readonly #health: Health;
  /** Why this host translates no virtual addresses; null: it does. */
  readonly #lacks: string | null;
  #index: ServiceIndex = NO_SERVICES;
  #services: HostServices = NO_HOST_SERVICES;
  /** VTEPs. */
  #missing: ReadonlySet<string> = NOBODY;
  /** Hosts behind them. */
  #unreached: ReadonlySet<string> = NOBODY;
  #stop: (() => void)[] = [];
  readonly #listeners = new Set<() => void>();

  constructor(options: ServiceSideOptions) {
    this.#o = options;
    const probe = options.probes.find((p) => p.name === 'services');
    this.#lacks = probe?.result === 'yes' ? null : (probe?.reason ?? '');
    this.#health = new Health({
      journal: options.journal,
      view: () => options.mesh().view(),
      ipv6: options.ipv6,
      ask: answers,
      sees: options.sees,
      onChange: () => this.#judged(),
      clock: options.clock,
      log: options.log,
    });
  }

  /** Ports of this host lead to services. */
  get leads(): boolean {
    return this.#lacks === null;
  }

  /** Before the first pass and the first session: both ask who is healthy. */
  start(): void {
    this.#health.start();
    const changed = (): void => this.#changed();
    this.#stop = [this.#o.journal.onChange(changed), this.#o.mesh().onView(changed)];
    this.#report();
  }

  close(): void {
    for (const stop of this.#stop.splice(0)) stop();
    this.#health.close();
  }

  /** Virtual addresses that this host's endpoints reach, and what its ports lead to; the same object as long as they are the same. */
  services(): HostServices {
    if (this.#lacks !== null) return NO_HOST_SERVICES;
    const index = this.#indexed();
    if (index === this.#services.index) return this.#services;
    const transits = [...this.#o.journal.endpoints.values()].flatMap((e) => e.transit ?? []);
    this.#services = { index, published: publishedServices(index, transits) };
    return this.#services;
  }

  #indexed(): ServiceIndex {
    const { journal } = this.#o;
    const { hostId, view } = this.#seen();
    const unhealthy = (e: LocalEndpoint): readonly string[] => this.#health.unhealthy(e);
    const endpoints = journal.endpoints.values();
    const unreached = this.#behind(view);
    const leads = (row: LocalNetwork): boolean => this.#leads(row);
    const sources = { hostId, view, endpoints, networks: journal.networks, leads, unhealthy, unreached };
    this.#index = indexServices(sources, this.#index);
    return this.#index;
  }

  /** Frames of the network get to other hosts from here. */
  #leads({ index, network: { encap } }: LocalNetwork): boolean {
    const able = this.#o.probes.some(({ name, result }) => name === `encap/${encap}` && result === 'yes');
    return able && index <= MAX_TAGGED_INDEX;
  }

  /** VTEPs that do not answer: who is behind them is passed over while others are there. */
  missing(vteps: Iterable<string>): void {
    this.#missing = new Set(vteps);
    this.#changed();
    for (const listener of this.#listeners) listener();
  }

  unhealthy(e: LocalEndpoint): readonly string[] {
    return this.#health.unhealthy(e);
  }

  /** Ids of hosts whose VTEP does not answer; the same object as long as they are the same. */
  unreached(): ReadonlySet<string> {
    return this.#behind(this.#seen().view);
  }

  /** Called after the health of an endpoint of this host, or what is reached, changed. @returns ends that */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  get counts(): HealthCounts {
    return this.#health.counts;
  }

  #behind({ interests }: View): ReadonlySet<string> {
    if (this.#missing.size === 0) return NOBODY;
    const peers = [...interests.values()].flatMap((n) => [...n.peers.values()]);
    const behind = peers.filter((p) => p.vteps.some((v) => this.#missing.has(v.address)));
    const now = new Set(behind.map((p) => p.hostId));
    if (now.symmetricDifference(this.#unreached).size > 0) this.#unreached = now;
    return this.#unreached;
  }

  #seen(): { hostId: string; view: View } {
    const mesh = this.#o.mesh();
    return { hostId: mesh.hostId, view: mesh.view() };
  }

  #changed(): void {
    if (this.#health.look()) this.#o.mesh().recordsChanged();
    this.#report();
    const before = this.#services;
    if (this.services() === before) return;
    this.#o.datapath().kick();
    this.#o.onPublished();
  }

  /** This host's own clients first; the others hear of it from the coordinator. */
  #judged(): void {
    for (const listener of this.#listeners) listener();
    this.#o.datapath().kick();
    this.#o.onPublished();
    this.#o.mesh().recordsChanged();
  }

  #report(): void {
    if (this.#lacks === null) return;
    const mesh = this.#o.mesh();
    mesh.reportConflicts('services', unreached(mesh.hostName, mesh.view(), this.#o.journal, this.#lacks));
  }
}

/** Services that containers of this host cannot reach. @param why a sentence */
export function unreached(
  host: string,
  view: View,
  journal: Pick<Journal, 'endpoints' | 'networks'>,
  why: string,
): Conflict[] {
  const ids = new Set([...journal.endpoints.values()].map((e) => e.networkId));
  return [...ids].sort().flatMap((id) => {
    const network = view.networks.get(id)?.name ?? journal.networks.get(id)?.name ?? '';
    return [...(view.interests.get(id)?.services.values() ?? [])]
      .filter((s) => s.ips.length > 0)
      .map((s) => s.name)
      .sort()
      .map((name) => ({
        host,
        network,
        message: `service ${name} of network ${network} is not reachable from containers of this host: ${why}`,
      }));
  });
}
