/** Which rate and priority an endpoint of this host has, and what of them this host cannot hold. Pure. */
import { WeftError } from '../lib/errors.ts';
import type { Rate, View } from '../lib/model.ts';
import {
  askedFor,
  type InForce,
  isHeldUp,
  type Priority,
  priorityInForce,
  RATE_KEYS,
  rateInForce,
} from '../lib/rate.ts';
import { type LocalEndpoint, nameOf } from './contract.ts';
import type { LocalPort } from './flows/model.ts';
import type { Wiring } from './wiring.ts';

type Said = Pick<LocalEndpoint, 'labels' | 'asked'>;

interface Asked {
  readonly rate?: Rate;
  readonly priority?: Priority;
  /** What is said and means nothing, in sentences. */
  readonly nonsense: readonly string[];
}

const NOTHING: Asked = { nonsense: [] };

/** What its container asks for by driver option or, where there is none, label. */
export function askedBy(e: Said): Asked {
  const said: Readonly<Record<string, string>> = e.asked === undefined ? e.labels : { ...e.labels, ...e.asked };
  const keys = Object.values(RATE_KEYS).filter((key) => Object.hasOwn(said, key));
  if (keys.length === 0) return NOTHING;
  const nonsense: string[] = [];
  const read = (names: readonly string[]): ReturnType<typeof askedFor> => {
    try {
      return askedFor(Object.fromEntries(keys.filter((k) => names.includes(k)).map((k) => [k, said[k] ?? ''])));
    } catch (error) {
      nonsense.push(WeftError.from(error).message);
      return {};
    }
  };
  return { ...read([RATE_KEYS.rate, RATE_KEYS.burst]), ...read([RATE_KEYS.priority]), nonsense };
}

/** For the endpoint's record. */
export function askedRecord(e: Said): Pick<Asked, 'rate' | 'priority'> {
  const { nonsense: _, ...asked } = askedBy(e);
  return asked;
}

const kindOf = (e: LocalEndpoint): string => e.attached?.kind ?? 'container';

/** Null: none. */
export function rateOf(e: LocalEndpoint, view: View): InForce | null {
  const settings = view.interests.get(e.networkId)?.settings.get(e.id);
  const { rate } = askedBy(e);
  const own = { kind: kindOf(e), ...(rate === undefined ? {} : { rate }) };
  return rateInForce(own, view.networks.get(e.networkId), settings);
}

/** "" = as its frames say. */
export function priorityOf(e: LocalEndpoint, view: View): Priority | '' {
  const { priority } = askedBy(e);
  const settings = view.interests.get(e.networkId)?.settings.get(e.id);
  return priorityInForce(priority === undefined ? {} : { priority }, settings);
}

/**
 * High: AF41, the highest class that standards have for what adapts its rate (RFC 4594 §4.3; RFC 8325 §4.4 gives it Wi-Fi's second-best
 * queue); EF and CS5 would be for what is admitted by call. Low: LE, which yields to everybody (RFC 8622).
 */
export const DSCP = { high: 34, low: 1 } as const;

/** What the datapath has to know of it. */
export function shapedOf(e: LocalEndpoint, view: View): Pick<LocalPort, 'paced' | 'dscp'> {
  const priority = priorityOf(e, view);
  return {
    ...(rateOf(e, view) === null ? {} : { paced: true as const }),
    ...(priority === 'high' || priority === 'low' ? { dscp: DSCP[priority] } : {}),
  };
}

/** Frames can be made to wait where the kernel has them before Open vSwitch: not where that reads links in user space. */
export const holdsRates = (wiring: Pick<Wiring, 'express' | 'datapathType'>): boolean =>
  wiring.express || wiring.datapathType === 'system';

/** What is asked for and not held, a sentence each. */
export function rateProblems(
  endpoints: Iterable<LocalEndpoint>,
  view: View,
  wiring: Pick<Wiring, 'express' | 'datapathType'>,
): string[] {
  const problems: string[] = [];
  for (const e of endpoints) {
    const who = `endpoint ${nameOf(e) || e.id.slice(0, 12)}`;
    const { nonsense, rate } = askedBy(e);
    for (const sentence of nonsense) problems.push(`${who}: ${sentence}`);
    const device = !isHeldUp({ kind: kindOf(e) });
    if (device && rate !== undefined)
      problems.push(`${who}: its rate is not held: it is a device that its user has made`);
    if (rateOf(e, view) !== null && !holdsRates(wiring))
      problems.push(
        `${who}: its rate is not held: this host has neither the express path nor the kernel's Open vSwitch`,
      );
    if (shapedOf(e, view).dscp !== undefined && !wiring.express)
      problems.push(`${who}: its priority is not marked: this host has no express path`);
  }
  return problems;
}
