/**
 * IGMP and MLD of this host's endpoints: listens to their reports (punted by the switch), asks them, tells the datapath which ports
 * get which groups, and the mesh which groups this host wants. When it is away, or does not know, everybody gets everything.
 */
import type { Clock } from '../../lib/clock.ts';
import { formatIp, tryParseIp } from '../../lib/ip.ts';
import { formatIp6 } from '../../lib/ip6.ts';
import type { Log } from '../../lib/log.ts';
import type { View } from '../../lib/model.ts';
import type { Journal, LocalNetwork } from '../contract.ts';
import { isTrusted } from '../express.ts';
import { SNOOP_TIMEOUT_S } from '../flows/multicast.ts';
import { PUNT } from '../flows/punt.ts';
import { OFPP } from '../openflow/flow.ts';
import type { Packets } from '../openflow/packets.ts';
import type { PacketIn } from '../openflow/punted.ts';
import type { Snooped } from '../plan/multicast.ts';
import { readFrame } from './frame.ts';
import type { LocalGroups } from './membership.ts';
import type { MembershipMemory } from './memory.ts';
import { type Ask, SnoopedNetwork } from './network.ts';
import { queryFrame } from './queries.ts';
import { Registrations } from './registrations.ts';
import { readMessage } from './reports.ts';

/** Between looks at what is due. A leave takes effect at most so much later. */
const TICK_MS = 500;
/** How long other hosts' memberships may be relied on after the coordinator was last heard: it hides a coordinator's restart. */
const GRACE_MS = 10_000;

export interface SnooperMesh {
  readonly connected: boolean;
  readonly complete: boolean;
  view(): View;
  registerMemberships(networkId: string, groups: readonly string[] | null): Promise<unknown>;
}

export interface SnooperOptions {
  readonly journal: Pick<Journal, 'endpoints' | 'networks'>;
  readonly mesh: SnooperMesh;
  readonly packets: Pick<Packets, 'on' | 'send'>;
  /** OpenFlow port of an endpoint; null while it has none. */
  readonly ofport: (endpointId: string) => number | null;
  /** What `state` returns has changed. */
  readonly onChange: () => void;
  /** Repeats the flows that end by themselves while nobody does (the agent may be killed at any time). */
  readonly repeat: () => Promise<void>;
  readonly memory: Pick<MembershipMemory, 'load' | 'save' | 'flush'>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Between repetitions of flows that end after 30 s. */
const REPEAT_MS = 10_000;

const NONE: LocalGroups = { groups: new Map(), everything: new Set() };

export class Snooper {
  readonly #o: SnooperOptions;
  readonly #networks = new Map<string, SnoopedNetwork>();
  readonly #registrations: Registrations;
  readonly #stopping = new AbortController();
  #ports = new Map<number, string>();
  #unsubscribe: (() => void) | null = null;
  #heardAt = Number.NEGATIVE_INFINITY;
  #current = false;
  #looked = false;
  #repeatAt = 0;
  #ignored = 0;

  constructor(options: SnooperOptions) {
    this.#o = options;
    this.#registrations = new Registrations((id, groups) => options.mesh.registerMemberships(id, groups), options.log);
  }

  /** Reports that could not be read, or came from nobody's port. */
  get ignored(): number {
    return this.#ignored;
  }

  /** What the last agent knew, if it has ended just now. Before the first `state`. */
  async recall(): Promise<void> {
    const now = this.#o.clock.monotonic();
    const { networks, heardAgoMs } = await this.#o.memory.load(this.#o.clock.now(), SNOOP_TIMEOUT_S * 1000);
    // A coordinator that went before the restart has gone for as long as it has.
    this.#heardAt = now - heardAgoMs;
    for (const [id, endpoints] of networks) {
      const network = new SnoopedNetwork(now);
      network.remember(endpoints, now);
      this.#networks.set(id, network);
    }
  }

  start(): void {
    this.#unsubscribe = this.#o.packets.on(PUNT.membership, (packet) => this.#punted(packet));
    this.#tick();
  }

  close(): Promise<void> {
    this.#stopping.abort();
    this.#unsubscribe?.();
    this.#save();
    return this.#o.memory.flush();
  }

  /** The switch is there again, after it was not. */
  switchUp(): void {
    const now = this.#o.clock.monotonic();
    for (const network of this.#networks.values()) network.restart(now);
  }

  /** What may be relied on now. Null: nothing, all of it is to be flooded. */
  state(): Snooped | null {
    if (!this.#isCurrent(this.#o.clock.monotonic())) return null;
    // What comes while somebody listens has nobody who joined before.
    const coming: LocalGroups | null = this.#looked ? NONE : null;
    const locals = new Map<string, LocalGroups | null>();
    for (const id of this.#o.journal.networks.keys())
      if (this.#snoops(id)) locals.set(id, this.#networks.has(id) ? this.#networks.get(id)!.groups() : coming);
    return { locals };
  }

  #tick(): void {
    if (this.#stopping.signal.aborted) return;
    const now = this.#o.clock.monotonic();
    try {
      this.#look(now);
    } catch (error) {
      this.#o.log.error({ err: error }, 'multicast snooping failed');
    }
    this.#o.clock.setTimer(TICK_MS, () => this.#tick(), this.#stopping.signal);
  }

  #look(now: number): void {
    const current = this.#isCurrent(now);
    let changed = current !== this.#current;
    this.#current = current;
    const endpoints = Map.groupBy(this.#o.journal.endpoints.values(), (e) => e.networkId);
    for (const [id, network] of this.#networks) {
      if (endpoints.has(id) && this.#snoops(id)) continue;
      network.setEndpoints(new Set());
      this.#networks.delete(id);
      this.#registrations.remove(id);
      changed = true;
    }
    for (const [id, list] of endpoints) {
      if (!this.#snoops(id)) continue;
      const network = this.#networks.get(id) ?? new SnoopedNetwork(now, this.#looked);
      if (!this.#networks.has(id)) changed = true;
      this.#networks.set(id, network);
      const ready = new Set(list.map((e) => e.id).filter((e) => this.#o.ofport(e) !== null));
      const set = network.setEndpoints(ready);
      const tick = network.tick(now);
      changed = set.changed || tick.changed || changed;
      if (set.ask !== null) void this.#ask(id, set.ask);
      // Nobody there yet: the first query would be lost.
      if (tick.ask !== null && ready.size > 0)
        void this.#ask(id, tick.ask).then((sent) => {
          if (sent) network.sent(now);
        });
      this.#registrations.set(id, this.#wanted(id, network));
    }
    this.#looked = true;
    if (changed) {
      this.#o.onChange();
      this.#save();
    }
    if (this.#o.mesh.connected) void this.#registrations.flush(now);
    if (this.#current && now >= this.#repeatAt) {
      this.#repeatAt = now + REPEAT_MS;
      this.#save();
      this.#o.repeat().catch((error: unknown) => this.#o.log.debug({ err: error }, 'flows not repeated'));
    }
  }

  #isCurrent(now: number): boolean {
    const { connected, complete } = this.#o.mesh;
    if (connected && complete) this.#heardAt = now;
    return now - this.#heardAt <= GRACE_MS;
  }

  #save(): void {
    const known = new Map<string, { groups: LocalGroups; endpoints: ReadonlySet<string> }>();
    for (const [id, network] of this.#networks) {
      const groups = network.groups();
      if (groups !== null) known.set(id, { groups, endpoints: network.endpoints });
    }
    this.#o.memory.save(known, this.#o.clock.now(), this.#o.clock.monotonic() - this.#heardAt);
  }

  /** A vlan network is a physical one: its own switches and routers see to its groups. */
  #snoops(networkId: string): boolean {
    const network = this.#o.journal.networks.get(networkId)?.network;
    return network !== undefined && network.encap !== 'vlan';
  }

  #punted(packet: PacketIn): void {
    const endpoint = this.#endpointOf(Number(packet.fields.get('in_port') ?? 0n));
    const network = this.#networks.get(endpoint?.networkId ?? '');
    const datagram = readFrame(packet.data);
    const message = datagram === null ? null : readMessage(datagram);
    if (endpoint === undefined || network === undefined || message === null) {
      this.#ignored++;
      return;
    }
    if (message.kind === 'query') return;
    const { family } = message;
    const changes = message.changes.map((c) => ({ ...c, text: groupText(family, c.group) }));
    const now = this.#o.clock.monotonic();
    const { changed, asks } = network.report(endpoint.id, family, changes, now);
    for (const ask of asks) void this.#ask(endpoint.networkId, ask);
    if (!changed) return;
    this.#o.onChange();
    this.#registrations.set(endpoint.networkId, this.#wanted(endpoint.networkId, network));
    if (this.#o.mesh.connected) void this.#registrations.flush(now);
  }

  /** Null while it is not known, or where an endpoint is trusted (it may be a router), or wants more than can be told apart. */
  #wanted(networkId: string, network: SnoopedNetwork): readonly string[] | null {
    const local = network.groups();
    if (local === null || local.everything.size > 0) return null;
    const record = this.#o.journal.networks.get(networkId)?.network;
    for (const id of network.endpoints) {
      const endpoint = this.#o.journal.endpoints.get(id);
      if (endpoint !== undefined && isTrusted(endpoint, record)) return null;
    }
    return [...local.groups.keys()].sort();
  }

  #endpointOf(port: number) {
    const known = this.#o.journal.endpoints.get(this.#ports.get(port) ?? '');
    if (known !== undefined && this.#o.ofport(known.id) === port) return known;
    this.#ports = new Map();
    for (const id of this.#o.journal.endpoints.keys()) this.#ports.set(this.#o.ofport(id) ?? 0, id);
    return port === 0 ? undefined : this.#o.journal.endpoints.get(this.#ports.get(port) ?? '');
  }

  /** @returns whether the query was given to the switch. */
  async #ask(networkId: string, ask: Ask): Promise<boolean> {
    const network = this.#o.journal.networks.get(networkId);
    if (network === undefined) return false;
    const ids =
      ask.to === 'all'
        ? [...this.#o.journal.endpoints.values()].filter((e) => e.networkId === networkId).map((e) => e.id)
        : ask.to;
    const ports = ids.map((id) => this.#o.ofport(id)).filter((port) => port !== null);
    if (ports.length === 0) return false;
    const actions = ports.map((port) => ({ type: 'output' as const, port }));
    try {
      for (const family of familiesOf(network, ask.family)) {
        const source = family === 4 ? gatewayOf(network) : 0n;
        const data = queryFrame({ family, group: ask.group, maxResponseMs: ask.maxResponseMs, source });
        await this.#o.packets.send({ inPort: OFPP.CONTROLLER, actions, data });
      }
      return true;
    } catch (error) {
      this.#o.log.debug({ err: error, networkId }, 'query not sent');
      return false;
    }
  }
}

const groupText = (family: 4 | 6, group: bigint): string => (family === 4 ? formatIp(Number(group)) : formatIp6(group));

const gatewayOf = ({ network }: LocalNetwork): bigint =>
  BigInt(network.gateways.map(tryParseIp).find((ip) => ip !== null) ?? 0);

function familiesOf({ network }: LocalNetwork, wanted: 4 | 6 | 'both'): (4 | 6)[] {
  if (wanted !== 'both') return [wanted];
  const has6 = network.ipv6 || network.subnets.some((subnet) => subnet.includes(':'));
  const has4 = network.subnets.some((subnet) => !subnet.includes(':'));
  return [...(has4 ? [4 as const] : []), ...(has6 ? [6 as const] : [])];
}
