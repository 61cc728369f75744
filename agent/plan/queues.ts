/** Which queues hold which rates, and what is to be done for it. Pure. */
import type { Rate, View } from '../../lib/model.ts';
import { deviceOf, type LocalEndpoint } from '../contract.ts';
import { beside, besideOf, gateLink, hostLink } from '../link/names.ts';
import { holdsRates, rateOf } from '../rates.ts';
import {
  type Diversion,
  diversionId,
  diversionText,
  type FoundQueue,
  type FoundShaping,
  isSame,
  type Queue,
  type QueueStep,
  queueText,
} from '../shaping/steps.ts';
import type { Wiring } from '../wiring.ts';
import type { Planned } from './planned.ts';

/** Queues count frames, rates what full ones of TCP carry: Ethernet's header, and those of IPv4 and TCP with its timestamps. */
const HEADER = 14;
const HEADERS = 52;
/** Seconds of the rate that may go at once: a busy machine wakes a queue that much too late, and what it missed is not lost. */
const BURST_S = 0.01;
const MAX_BURST = 16 * 2 ** 20;
const MIN_BURST = 10_000;
/** Segments of 64 KiB with a header each stay whole, if that does not take long. */
const WHOLE = 70_000;
const WHOLE_S = 0.06;
/** Seconds of the rate that may wait: enough for TCP to fill paths of some 100 ms (CUBIC backs off to 0.7, RFC 9438 §4.6). */
const WAIT_S = 0.05;
/** At low rates longer: such segments are many frames at once. */
const MIN_LIMIT = 2 ** 15;
const LOW_LIMIT = 2 ** 17;
const LOW_WAIT_S = 0.25;
const MAX_U32 = 2 ** 32 - 1;

/** Does what the endpoint sends have to go through a gate? It holds a rate, where the link is one of ours. */
export const isPaced = (e: LocalEndpoint, view: View, wiring: Pick<Wiring, 'express' | 'datapathType'>): boolean =>
  holdsRates(wiring) && deviceOf(e) === null && rateOf(e, view) !== null;

/** @param mtu of the endpoint's link, bytes */
export function queueOf(link: string, { bits, burst: given }: Rate, mtu: number): Queue {
  const frame = mtu + HEADER + 4; // a tag may be in it
  const payload = Math.max(mtu - HEADERS, mtu / 2);
  const rate = Math.round((Number(bits) / 8) * ((mtu + HEADER) / payload));
  const share = (seconds: number): number => Math.round(rate * seconds);
  const usual = Math.max(MIN_BURST, Math.min(WHOLE, share(WHOLE_S)), Math.min(MAX_BURST, share(BURST_S)));
  // What is longer than the burst never passes; and one microsecond less is read back.
  const burst = Math.max(given === 0n ? usual : Number(given), 2 * frame);
  const limit = Math.max(
    MIN_LIMIT,
    Math.min(LOW_LIMIT, share(LOW_WAIT_S)),
    share(WAIT_S),
    Math.min(2 * burst, 2 ** 18),
  );
  return { link, rate, burst, limit: Math.min(limit, MAX_U32) };
}

/** All that is wanted of queues, and of what leads to them. */
export interface Shaping {
  readonly queues: readonly Queue[];
  readonly diversions: readonly Diversion[];
}

/**
 * What an endpoint receives waits at the host's end of its link; what it sends at its gate where eBPF leads there, else on an ifb beside
 * its link.
 */
export function desiredShaping(
  endpoints: Iterable<LocalEndpoint>,
  view: View,
  wiring: Pick<Wiring, 'express' | 'datapathType'>,
): Shaping {
  const queues: Queue[] = [];
  const diversions: Diversion[] = [];
  for (const e of endpoints) {
    const found = isPaced(e, view, wiring) ? rateOf(e, view) : null;
    if (found === null) continue;
    const mtu = e.mtu > 0 ? e.mtu : 1500;
    const [link, sent] = [hostLink(e.id), wiring.express ? gateLink(e.id) : beside(e.id)];
    for (const one of [link, sent]) queues.push(queueOf(one, found.rate, mtu));
    if (!wiring.express) diversions.push({ link, to: sent });
  }
  return { queues, diversions };
}

/** Does the host lead frames to queues by filters? */
export const diverts = (wiring: Pick<Wiring, 'express' | 'datapathType'>): boolean =>
  holdsRates(wiring) && !wiring.express;

/**
 * What others have put on links where nothing is wanted is left alone. Nothing is led to a queue before it is there, and from it before
 * it goes.
 */
export const planQueues = (desired: Shaping, actual: FoundShaping): Planned<QueueStep>[] => {
  const queues = plannedQueues(desired.queues, actual.queues);
  return [
    ...queues.filter((p) => p.change !== 'extra'),
    ...plannedDiversions(desired.diversions, actual.diversions),
    ...queues.filter((p) => p.change === 'extra'),
  ];
};

function plannedQueues(desired: readonly Queue[], actual: ReadonlyMap<string, FoundQueue>): Planned<QueueStep>[] {
  const planned: Planned<QueueStep>[] = [];
  const wanted = new Set<string>();
  for (const queue of desired) {
    wanted.add(queue.link);
    const have = actual.get(queue.link);
    if (have?.kind === 'ours' && isSame(queue, have)) continue;
    planned.push({
      ...named(queue.link),
      change: have === undefined ? 'missing' : 'differs',
      want: queueText(queue),
      have: textOf(have),
      step: { kind: 'setQueue', queue, instead: have?.kind === 'other' },
    });
  }
  for (const [link, have] of actual)
    if (have.kind === 'ours' && !wanted.has(link))
      planned.push({ ...named(link), change: 'extra', want: '', have: textOf(have), step: { kind: 'delQueue', link } });
  return planned;
}

function plannedDiversions(desired: readonly Diversion[], actual: ReadonlyMap<string, string>): Planned<QueueStep>[] {
  const planned: Planned<QueueStep>[] = [];
  const wanted = new Set<string>();
  for (const diversion of desired) {
    wanted.add(diversion.link);
    const have = actual.get(diversion.link);
    if (have === diversion.to) continue;
    planned.push({
      ...named(diversionId(diversion.link)),
      change: have === undefined || have === '' ? 'missing' : 'differs',
      want: diversionText(diversion.to),
      have: have === undefined || have === '' ? '' : diversionText(have),
      step: { kind: 'divert', diversion, instead: have !== undefined && have !== '' },
    });
  }
  for (const [link, to] of actual) {
    // What leads elsewhere is somebody else's.
    if (wanted.has(link) || to !== besideOf(link)) continue;
    const step = { kind: 'undivert', link } as const;
    planned.push({ ...named(diversionId(link)), change: 'extra', want: '', have: diversionText(to), step });
  }
  return planned;
}

/** Texts of what is wanted, by the ids of drift. */
export const wantedShaping = ({ queues, diversions }: Shaping): [id: string, text: string][] => [
  ...queues.map((q): [string, string] => [q.link, queueText(q)]),
  ...diversions.map((d): [string, string] => [diversionId(d.link), diversionText(d.to)]),
];

const named = (id: string) => ({ kind: 'queue', id, object: id });
const textOf = (have: FoundQueue | undefined): string =>
  have === undefined ? '' : have.kind === 'ours' ? queueText(have) : have.text;
