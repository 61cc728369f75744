/**
 * The loop that makes the host as it should be: desired (journal and view) → plan → apply, one pass at a time. Handlers only say that
 * something changed. A pass takes what the drivers know; a fresh one reads the real things anew.
 */
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Drift, View } from '../lib/model.ts';
import type { Clock } from './clock.ts';
import { type Datapath, deviceOf, type Journal } from './contract.ts';
import { type Desired, type DesireOptions, desire } from './desired.ts';
import { DriftLog, type DriftLogOptions } from './drift-log.ts';
import type { NetworkModel, Tunnels } from './flows/model.ts';
import { FlowSide } from './flowside.ts';
import type { Kernel } from './kernel.ts';
import type { LinkDriver } from './link/driver.ts';
import { containerLink, endsOf, GATEWAY_SWITCH, TUNNEL_DEVICE, TUNNEL_SWITCH } from './link/names.ts';
import type { LinkStep } from './link/steps.ts';
import { LinkSide } from './linkside.ts';
import type { OpenFlowClient } from './openflow/client.ts';
import type { FlowDriver, MeterStep } from './openflow/driver.ts';
import type { OvsDriver, OvsStep } from './ovs/driver.ts';
import { blameOf } from './plan/blame.ts';
import type { FlowStep, FlowTable } from './plan/flows.ts';
import type { BpfStep } from './plan/maps.ts';
import type { Snooped } from './plan/multicast.ts';
import { driftOf, type Planned } from './plan/planned.ts';
import { planPorts, portNameOf, stalePorts } from './plan/ports.ts';
import { diverts } from './plan/queues.ts';
import { Settled } from './plan/settled.ts';
import { QueueSide } from './queueside.ts';
import { rateProblems } from './rates.ts';
import type { HostServices } from './services/index.ts';
import type { QueueStep } from './shaping/steps.ts';
import type { TcDriver } from './shaping/tc.ts';

const RETRY_MS = 500;
export interface ReconcilerOptions extends DriftLogOptions {
  readonly journal: Journal;
  readonly view: () => View;
  readonly links: LinkDriver;
  readonly queues: TcDriver;
  readonly ovs: OvsDriver;
  readonly flows: FlowDriver;
  readonly carries: (networkId: string) => Promise<void>;
  /** Null where Open vSwitch does all of it. */
  readonly kernel: Kernel | null;
  /** The OpenFlow connection: up again means that flows may be gone. */
  readonly switch: OpenFlowClient;
  readonly desire: DesireOptions;
  /** Who wants which multicast groups; null: everything is flooded. */
  readonly snooped: () => Snooped | null;
  /** Virtual addresses that its endpoints reach. */
  readonly services: () => HostServices;
  /** Mend what somebody else changed. */
  readonly heal: boolean;
  readonly onPorts: () => void;
  /** Endpoints that have no working link, or whose rate is not held, each in a sentence; replaces what was said before. */
  readonly onCutOff: (messages: readonly string[]) => void;
  readonly clock: Clock;
  readonly log: Log;
}

/** What one look has found, and what is to be done. */
interface Pass {
  readonly desired: Desired;
  readonly links: Planned<LinkStep>[];
  readonly queues: Planned<QueueStep>[];
  readonly ports: Planned<OvsStep>[];
  readonly flows: Planned<FlowStep>[];
  readonly meters: Planned<MeterStep>[];
  readonly table: FlowTable;
  readonly kernel: Planned<BpfStep>[];
  /** Meters, maps and programs wanted, as kind and id → text. */
  readonly wanted: () => Map<string, string>;
}

interface Waiter {
  readonly endpointId: string | null;
  readonly resolve: () => void;
  readonly reject: (error: WeftError) => void;
}

export class Reconciler implements Datapath {
  readonly #o: ReconcilerOptions;
  readonly #drift: DriftLog;
  readonly #links: LinkSide;
  readonly #queues: QueueSide;
  readonly #flows: FlowSide;
  #waiting: Waiter[] = [];
  #wanted = false;
  #running: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;
  #failure = '';
  #steps = 0;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(options: ReconcilerOptions) {
    this.#o = options;
    this.#flows = new FlowSide(options.flows);
    this.#links = new LinkSide({ driver: options.links, clock: options.clock, log: options.log });
    this.#queues = new QueueSide(options.queues, diverts(options.desire.wiring));
    this.#drift = new DriftLog({ ...options, now: () => options.clock.now() });
  }

  /** Steps applied since the start: zero after a restart that had nothing to do. */
  get steps(): number {
    return this.#steps;
  }
  get failure(): string {
    return this.#failure;
  }
  get flowCount(): number {
    return this.#flows.count;
  }
  /** As they were rendered last. */
  get networks(): readonly NetworkModel[] {
    return this.#flows.networks;
  }

  start(): void {
    this.#links.watch(() => this.kick());
    this.#o.ovs.onChange(() => this.kick());
    this.#o.switch.onUp(() => this.#flowsUnknown());
    this.#o.flows.watchFlows(() => this.#flowsUnknown());
    this.kick();
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#links.close();
    this.#drift.close();
    await this.#running;
  }

  kick(): void {
    this.#wanted = true;
    if (this.#running === null && !this.#closed)
      this.#running = this.#run().finally(() => {
        this.#running = null;
        if (this.#wanted) this.kick();
      });
  }

  /** Everything that is wanted now is there when it resolves; empty string, or what failed. */
  async settled(): Promise<string> {
    try {
      await this.#wait(null);
      return '';
    } catch (error) {
      return WeftError.from(error).message;
    }
  }

  carries(networkId: string): Promise<void> {
    return this.#o.carries(networkId);
  }

  async attach(endpointId: string): Promise<{ containerLink: string }> {
    await this.#wait(endpointId);
    return { containerLink: containerLink(endpointId) };
  }

  /** The container is gone, its port and flows harm nobody: they go with the next pass, which every later acknowledgement waits for. */
  detach(endpointId: string): Promise<void> {
    if (this.#o.journal.endpoints.has(endpointId))
      return Promise.reject(new WeftError('INTERNAL', `endpoint ${endpointId} is still held`));
    this.kick();
    return Promise.resolve();
  }

  /** Reads the real things anew; with `heal` mends what differs. */
  async audit(heal: boolean): Promise<Drift[]> {
    await this.settled();
    return this.#exclusive(async () => {
      const { planned } = await this.#observeAndPlan(true);
      const { links, queues, ports, flows, meters, kernel } = planned;
      const drift = [...links, ...queues, ...ports, ...flows, ...meters, ...kernel].map(driftOf);
      if (heal && drift.length > 0) {
        await this.#apply(planned, true);
        this.#again(this.#links.retryInMs);
      }
      return drift;
    });
  }

  /** Flows that end by themselves while nobody repeats them begin anew. */
  repeat(): Promise<void> {
    return this.#exclusive(() => this.#flows.repeat());
  }

  /** OpenFlow port of an endpoint; null while it has none. */
  ofport(endpointId: string): number | null {
    return this.#portNumber(this.#portName(endpointId));
  }

  /** A link of ours, or a user's device that is a port, is there; null = not known just now. */
  hasLink(name: string): boolean | null {
    return this.#links.links?.has(name) ?? null;
  }

  #portName(endpointId: string): string {
    const endpoint = this.#o.journal.endpoints.get(endpointId);
    const device = endpoint === undefined ? null : deviceOf(endpoint);
    return portNameOf({ id: endpointId, device }, this.#o.desire.wiring.express);
  }

  #portNumber(name: string): number | null {
    const port = this.#o.ovs.observe().bridges.get(this.#o.desire.bridge)?.ports.get(name)?.ofport ?? null;
    return port !== null && port > 0 ? port : null;
  }

  #wait(endpointId: string | null): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ endpointId, resolve, reject });
      this.kick();
    });
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#queue.then(work, work);
    this.#queue = next.catch(() => undefined);
    return next;
  }

  async #run(): Promise<void> {
    this.#wanted = false;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const waiting = this.#waiting.splice(0);
    try {
      await this.#exclusive(async () => {
        const { planned } = await this.#observeAndPlan(false);
        await this.#apply(planned, this.#o.heal);
      });
      this.#failure = this.#blame().host;
      this.#again(this.#links.retryInMs);
    } catch (error) {
      const failure = WeftError.from(error);
      if (failure.message !== this.#failure) this.#o.log.warn({ err: failure }, 'pass failed');
      this.#failure = failure.message;
      this.#links.forget();
      this.#queues.forget();
      this.#o.kernel?.forget();
      this.#again(RETRY_MS);
    }
    const blame = this.#blame();
    for (const w of waiting) this.#answer(w, blame.endpoints);
  }

  #again(ms: number | null): void {
    if (ms === null || this.#closed) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.kick(), ms);
  }

  #blame() {
    return blameOf(this.#links.failures, this.#o.journal.endpoints.values());
  }

  /** @param cutOff endpoint's id to why it has no working link: nobody else has to do with it */
  #answer(w: Waiter, cutOff: ReadonlyMap<string, string>): void {
    const own = w.endpointId === null ? undefined : cutOff.get(w.endpointId);
    const lost =
      w.endpointId !== null && this.#o.journal.endpoints.has(w.endpointId) && this.ofport(w.endpointId) === null;
    if (own !== undefined) w.reject(new WeftError('UNAVAILABLE', own));
    else if (this.#failure !== '') w.reject(new WeftError('UNAVAILABLE', this.#failure));
    else if (lost) {
      const name = this.#portName(w.endpointId ?? '');
      w.reject(new WeftError('UNAVAILABLE', `Open vSwitch did not take ${name}`));
    } else w.resolve();
  }

  /** A user's device has been attached, or is away: what is known of links says nothing of it. */
  #isNew(desired: Desired): boolean {
    return desired.links.some((d) => d.kind === 'device' && this.hasLink(d.name) !== true);
  }

  async #observeAndPlan(fresh: boolean): Promise<{ planned: Pass }> {
    const desired = desire(this.#o.view(), this.#o.journal, this.#o.desire);
    const links = await this.#links.plan(desired.links, fresh || this.#isNew(desired));
    const queues = await this.#queues.plan(desired.shaping, fresh);
    const ovs = fresh ? await this.#o.ovs.observeFresh() : this.#o.ovs.observe();
    const ports = planPorts(desired.bridge, ovs);
    if (fresh || !this.#flows.known) await this.#flows.observe(this.#reachable());
    return { planned: { desired, links, queues, ports, ...(await this.#forwarding(desired, fresh)) } };
  }

  /** What depends on the numbers of links and ports. */
  async #forwarding(desired: Desired, fresh: boolean): Promise<Omit<Pass, 'desired' | 'links' | 'queues' | 'ports'>> {
    const ports = { endpoint: (id: string) => this.ofport(id), uplink: (name: string) => this.#portNumber(name) };
    const networks = desired.models(ports, this.#o.snooped(), this.#o.services());
    const { datapathType, complete } = this.#o.desire.wiring;
    const relaysNd = datapathType === 'system';
    const wholeSegments = !relaysNd && complete.tcp;
    const gateway = this.#portNumber(GATEWAY_SWITCH);
    const bridge = { tunnels: this.#tunnels(), networks, relaysNd, wholeSegments, gateway };
    const { wanted, ...flows } = this.#flows.plan(bridge);
    const kernel = await this.#o.kernel?.plan(networks, this.#links.links ?? new Map(), fresh);
    const all = (): Map<string, string> => new Map([...wanted(), ...(kernel?.wanted() ?? [])]);
    return { ...flows, kernel: kernel?.planned ?? [], wanted: all };
  }

  #reachable(): boolean {
    const protocols = this.#o.ovs.observe().bridges.get(this.#o.desire.bridge)?.protocols;
    return protocols !== undefined && (protocols.length === 0 || protocols.includes('OpenFlow14'));
  }

  #tunnels(): Tunnels {
    const { backend, encaps } = this.#o.desire.wiring;
    if (backend === 'kernel-tunnel') return { kind: 'kernel', port: this.#portNumber(TUNNEL_SWITCH) };
    return { kind: 'ovs', ports: Object.fromEntries(encaps.map((e) => [e, this.#portNumber(TUNNEL_DEVICE[e])])) };
  }

  async #apply(planned: Pass, heal: boolean): Promise<void> {
    this.#drift.begin();
    const links = this.#drift.select(planned.links, heal);
    const [linksDown, linksUp] = partition(links, (p) => p.change === 'extra');
    const made = await this.#links.make(linksUp);
    const queues = await this.#queued(planned, made, heal);
    const remade = await this.#dropDeadPorts(
      planned.desired,
      // Of a pair, the port may be either end.
      made.filter((p) => p.change === 'missing').flatMap((p) => endsOf(p.object)),
    );
    const ports = this.#drift.select(
      remade ? planPorts(planned.desired.bridge, this.#o.ovs.observe()) : planned.ports,
      heal || remade,
    );
    const newBridge = ports.some((p) => p.kind === 'bridge');
    if (ports.length > 0) await this.#o.ovs.apply(ports.map((p) => p.step));
    if (newBridge) {
      await this.#o.switch.ready();
      await this.#flows.observe(true);
    }
    // Port and link numbers are known only now.
    const stale = ports.length > 0 || made.length > 0;
    const { flows, meters, table, kernel, wanted } = stale ? await this.#forwarding(planned.desired, false) : planned;
    const selected = this.#drift.select(flows, heal);
    const side = this.#drift.select(kernel, heal);
    const selectedMeters = this.#drift.select(meters, heal);
    await this.#flows.apply(selected, selectedMeters);
    if (side.length > 0) await this.#o.kernel?.apply(side);
    this.#queues.renewed(linksDown.map((p) => p.id));
    if (linksDown.length > 0) this.#links.delete(linksDown.map((p) => p.step));
    await this.#links.finish(
      planned.desired.links,
      linksUp.filter((p) => this.#drift.settled.isDrift(p)),
    );
    const done = made.length + linksDown.length;
    this.#steps += done + queues + ports.length + selected.length + selectedMeters.length + side.length;
    const { failures } = this.#links;
    this.#drift.settled.settle(
      new Map([...planned.desired.wanted(), ...wanted()]),
      table,
      [...failures.keys()].map((id) => Settled.key('link', id)),
    );
    if (ports.length > 0) this.#o.onPorts();
    this.#drift.tell((p) => p.kind === 'link' && failures.has(p.id));
    const rates = rateProblems(this.#o.journal.endpoints.values(), this.#o.view(), this.#o.desire.wiring);
    this.#o.onCutOff([...this.#blame().endpoints.values(), ...rates]);
  }

  /** Before anything is led to a queue. @returns how many steps were taken */
  async #queued(planned: Pass, made: readonly Planned<LinkStep>[], heal: boolean): Promise<number> {
    const fresh = made.filter((p) => p.change === 'missing').map((p) => p.object);
    this.#queues.renewed(fresh);
    const all = fresh.length === 0 ? planned.queues : await this.#queues.plan(planned.desired.shaping, false);
    const { links } = this.#links;
    // That of a link that could not be made waits for it.
    const due = all.filter((p) => links?.has(p.id.split(' ')[0] ?? '') !== false);
    const selected = this.#drift.select(due, heal);
    await this.#queues.apply(selected);
    return selected.length;
  }

  /** @param made links made in this pass. @returns true when ports were taken out, to be put in again. */
  async #dropDeadPorts(desired: Desired, made: readonly string[]): Promise<boolean> {
    const ovs = this.#o.ovs.observe();
    const there = ovs.bridges.get(desired.bridge.name)?.ports;
    const dead = new Set(
      [...made, ...stalePorts(desired.bridge, ovs, this.#links.links ?? new Map())].filter((name) => there?.has(name)),
    );
    if (dead.size === 0) return false;
    await this.#o.ovs.apply([...dead].map((name) => ({ kind: 'delPort', bridge: desired.bridge.name, name })));
    return true;
  }

  #flowsUnknown(): void {
    this.#flows.forget();
    this.kick();
  }
}

function partition<T>(items: readonly T[], test: (t: T) => boolean): [T[], T[]] {
  return [items.filter(test), items.filter((t) => !test(t))];
}
