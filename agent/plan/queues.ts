/** Which queues hold which rates, and what is to be done for it. Pure. */
import type { Rate, View } from '../../lib/model.ts';
import { deviceOf, type LocalEndpoint } from '../contract.ts';
import { gateLink, hostLink } from '../link/names.ts';
import { holdsRates, rateOf } from '../rates.ts';
import { type FoundQueue, isSame, type Queue, type QueueStep, queueText } from '../shaping/steps.ts';
import type { Wiring } from '../wiring.ts';
import type { Planned } from './planned.ts';

/** Ethernet's header: queues count frames, rates the packets inside. */
const HEADER = 14;
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
export const isPaced = (e: LocalEndpoint, view: View, wiring: Pick<Wiring, 'express'>): boolean =>
  holdsRates(wiring) && deviceOf(e) === null && rateOf(e, view) !== null;

/** @param mtu of the endpoint's link, bytes */
export function queueOf(link: string, { bits, burst: given }: Rate, mtu: number): Queue {
  const frame = mtu + HEADER + 4; // a tag may be in it
  const rate = Math.max(1, Math.round((Number(bits) / 8) * ((mtu + HEADER) / mtu)));
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

/** What an endpoint receives waits at the host's end of its link, what it sends at its gate. */
export function desiredQueues(
  endpoints: Iterable<LocalEndpoint>,
  view: View,
  wiring: Pick<Wiring, 'express'>,
): Queue[] {
  const queues: Queue[] = [];
  for (const e of endpoints) {
    const found = isPaced(e, view, wiring) ? rateOf(e, view) : null;
    if (found === null) continue;
    const mtu = e.mtu > 0 ? e.mtu : 1500;
    for (const link of [hostLink(e.id), gateLink(e.id)]) queues.push(queueOf(link, found.rate, mtu));
  }
  return queues;
}

/** What others have put on links where nothing is wanted is left alone. */
export function planQueues(desired: readonly Queue[], actual: ReadonlyMap<string, FoundQueue>): Planned<QueueStep>[] {
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

const named = (link: string) => ({ kind: 'queue', id: link, object: link });
const textOf = (have: FoundQueue | undefined): string =>
  have === undefined ? '' : have.kind === 'ours' ? queueText(have) : have.text;
