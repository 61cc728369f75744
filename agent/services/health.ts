/**
 * Which endpoints of this host answer, for each service that has a check: each host asks its own, over the link to br-weft. Who is
 * selected anew gets no traffic before it has answered; after a restart of the agent what was registered last counts until there
 * are results. Verdicts are kept by service and endpoint, whatever else changes in the view.
 */
import type { Clock } from '../../lib/clock.ts';
import { formatIp, parseIp } from '../../lib/ip.ts';
import { formatIp6 } from '../../lib/ip6.ts';
import type { Log } from '../../lib/log.ts';
import type { NetworkView, Service, View } from '../../lib/model.ts';
import { selects } from '../../lib/selector.ts';
import { type Journal, type LocalEndpoint, nameOf } from '../contract.ts';
import { HOST_ADDRESS, HOST_ADDRESS6, transit6 } from '../gateway/addresses.ts';
import type { Target } from './check.ts';
import { type Job, Schedule } from './schedule.ts';
import { bySelector } from './selectors.ts';
import { judge, PROVEN, UNPROVEN, type Verdict } from './verdict.ts';

/** Questions under way at one time. */
const AT_ONCE = 64;

export interface HealthOptions {
  readonly journal: Pick<Journal, 'endpoints' | 'networks'>;
  readonly view: () => View;
  /** Endpoints with an IPv6 address alone can be asked. */
  readonly ipv6: boolean;
  readonly ask: (target: Target, signal: AbortSignal) => Promise<boolean>;
  /** False: nobody can be reached now, and silence says nothing (Open vSwitch is away). */
  readonly sees: () => boolean;
  /** A verdict changed. */
  readonly onChange: () => void;
  readonly clock: Clock;
  readonly log: Log;
}

export interface HealthCounts {
  readonly healthy: number;
  readonly unhealthy: number;
  /** Questions answered and not, since the start. */
  readonly answered: number;
  readonly failed: number;
}

type Checked = Service & { readonly health: NonNullable<Service['health']> };

interface Pair {
  verdict: Verdict;
}

/** An endpoint for a service. */
interface Asked {
  /** Of the pair. */
  readonly key: string;
  readonly service: Checked;
  readonly endpoint: LocalEndpoint;
  readonly target: Target;
  /** The same for all that ask the same as often. */
  readonly question: string;
}

const NONE: readonly string[] = [];

export class Health {
  readonly #o: HealthOptions;
  readonly #schedule: Schedule;
  /** By service and endpoint. */
  #pairs = new Map<string, Pair>();
  #answered = 0;
  #failed = 0;
  /** By endpoint id: what was said of it last. */
  readonly #said = new Map<string, readonly string[]>();
  /** Of a network's services, which stay the same object until one of them changes. */
  readonly #finders = new WeakMap<NetworkView['services'], (labels: LocalEndpoint['labels']) => Checked[]>();
  readonly #checked = new WeakMap<LocalEndpoint, { of: NetworkView['services']; asked: readonly Asked[] }>();
  /** By question: whether it was answered the last time. */
  #last = new Map<string, boolean>();

  constructor(options: HealthOptions) {
    this.#o = options;
    this.#schedule = new Schedule({ clock: options.clock, atOnce: AT_ONCE });
  }

  /** The first look: what was registered before counts. */
  start(): void {
    for (const e of this.#o.journal.endpoints.values()) {
      const record = this.#o.view().interests.get(e.networkId)?.endpoints.get(e.id);
      if (record === undefined) continue;
      for (const { key, service } of this.#of(e))
        if (selects(service.selector, record.labels) && !record.unhealthy.includes(service.id))
          this.#pairs.set(key, { verdict: PROVEN });
    }
    this.look();
  }

  /** View or journal have changed. @returns true when other endpoints are asked, or for other services */
  look(): boolean {
    const pairs = new Map<string, Pair>();
    const questions = new Map<string, [Asked, ...Asked[]]>();
    const { endpoints } = this.#o.journal;
    for (const e of endpoints.values())
      for (const asked of this.#of(e)) {
        pairs.set(asked.key, this.#pairs.get(asked.key) ?? this.#first(asked));
        const same = questions.get(asked.question);
        if (same === undefined) questions.set(asked.question, [asked]);
        else same.push(asked);
      }
    const before = this.#pairs;
    this.#pairs = pairs;
    this.#last = new Map([...this.#last].filter(([question]) => questions.has(question)));
    // Many services may have the same endpoints behind them: what they all ask is asked once.
    const jobs = [...questions].map(([question, all]): [string, Job] => {
      const intervalMs = Math.max(1, all[0].service.health.intervalMs);
      return [question, { intervalMs, run: (signal) => this.#ask(all, signal) }];
    });
    this.#schedule.set(new Map(jobs));
    for (const id of this.#said.keys()) if (!endpoints.has(id)) this.#said.delete(id);
    return before.size !== pairs.size || pairs.keys().some((key) => !before.has(key));
  }

  close(): void {
    this.#schedule.close();
  }

  /** Ids of services whose check an endpoint of this host fails, as of now; the same object as long as they are the same. */
  unhealthy(e: LocalEndpoint): readonly string[] {
    const now = this.#of(e)
      .filter(({ key }) => this.#pairs.get(key)?.verdict.healthy !== true)
      .map(({ service }) => service.id)
      .sort();
    const said = this.#said.get(e.id) ?? NONE;
    if (now.length === said.length && now.every((id, i) => id === said[i])) return said;
    this.#said.set(e.id, now);
    return now;
  }

  get counts(): HealthCounts {
    let healthy = 0;
    for (const { verdict } of this.#pairs.values()) if (verdict.healthy) healthy++;
    return { healthy, unhealthy: this.#pairs.size - healthy, answered: this.#answered, failed: this.#failed };
  }

  /** Services that ask the endpoint. */
  #of(e: LocalEndpoint): readonly Asked[] {
    const of = this.#o.view().interests.get(e.networkId)?.services;
    // Whose container is not known yet has no labels yet.
    if (of === undefined || of.size === 0 || (e.container === null && e.attached === undefined)) return [];
    const known = this.#checked.get(e);
    if (known?.of === of) return known.asked;
    const services = this.#canAsk(e) ? this.#finder(of)(e.labels) : [];
    const asked = services.map((service): Asked => {
      const target = targetOf(service, e, this.#o.ipv6);
      const question = JSON.stringify([e.id, service.health.intervalMs, target]);
      return { key: keyOf(service, e), service, endpoint: e, target, question };
    });
    this.#checked.set(e, { of, asked });
    return asked;
  }

  #finder(of: NetworkView['services']): (labels: LocalEndpoint['labels']) => Checked[] {
    const known = this.#finders.get(of);
    if (known !== undefined) return known;
    const find = bySelector([...of.values()].filter((s) => portOf(s) > 0)) as (l: LocalEndpoint['labels']) => Checked[];
    this.#finders.set(of, find);
    return find;
  }

  /** Who cannot be asked counts as healthy, as without a check. */
  #canAsk(e: LocalEndpoint): boolean {
    const vlan = this.#o.journal.networks.get(e.networkId)?.network.encap === 'vlan';
    return !vlan && e.transit !== undefined && (e.ip !== '' || (e.ip6 !== '' && this.#o.ipv6));
  }

  /** A question that others ask already, perhaps an hour ago: its answer counts as the first one. */
  #first({ question, service }: Asked): Pair {
    return { verdict: this.#last.get(question) === true ? judge(UNPROVEN, true, service.health) : UNPROVEN };
  }

  async #ask(all: readonly [Asked, ...Asked[]], signal: AbortSignal): Promise<void> {
    const [{ target, question }] = all;
    const sees = this.#o.sees();
    const ok = sees && (await this.#o.ask(target, signal));
    if (signal.aborted || !sees || (!ok && !this.#o.sees())) return;
    if (ok) this.#answered++;
    else this.#failed++;
    this.#last.set(question, ok);
    let changed = false;
    for (const { key, service, endpoint: e } of all) {
      const pair = this.#pairs.get(key);
      if (pair === undefined) continue;
      const before = pair.verdict;
      pair.verdict = judge(before, ok, service.health);
      if (pair.verdict.healthy === before.healthy) continue;
      changed = true;
      const what = { service: service.name, network: service.networkId, endpoint: e.id, name: nameOf(e) };
      this.#o.log.info(what, ok ? 'backend answers' : 'backend does not answer');
    }
    if (changed) this.#o.onChange();
  }
}

const keyOf = (service: Service, e: LocalEndpoint): string => `${service.id}/${e.id}`;

/** Of the check; 0: there is no check, or none that could be made. */
const portOf = ({ health, ports }: Service): number =>
  health === undefined ? 0 : health.port === 0 ? (ports[0]?.targetPort ?? 0) : health.port;

/** By the family that clients use, where they use one alone. */
export function targetOf(service: Checked, e: LocalEndpoint, ipv6: boolean): Target {
  const wants6 = service.ips.length > 0 && service.ips.every((ip) => ip.includes(':'));
  const six = ipv6 && e.ip6 !== '' && (wants6 || e.ip === '');
  const transit = parseIp(e.transit ?? '');
  return {
    type: service.health.type === 'http' ? 'http' : 'tcp',
    host: six ? formatIp6(transit6(transit)) : formatIp(transit),
    port: portOf(service),
    from: six ? formatIp6(HOST_ADDRESS6) : formatIp(HOST_ADDRESS),
    path: service.health.path === '' ? '/' : service.health.path,
    name: six ? `[${e.ip6}]` : e.ip,
    timeoutMs: Math.max(1, service.health.timeoutMs),
  };
}
