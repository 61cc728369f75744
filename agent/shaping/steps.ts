/** Queues that hold rates (tc-tbf(8)): the vocabulary between planner and driver, and what tc shows of them. Pure. */

/** One of ours, on a link. */
export interface Queue {
  readonly link: string;
  /** Bytes of frames per second. */
  readonly rate: number;
  /** Bytes that may go at once. */
  readonly burst: number;
  /** Bytes that may wait; what comes then is dropped. */
  readonly limit: number;
}

/** What a link has where a queue of ours would be. */
export type FoundQueue = ({ readonly kind: 'ours' } & Queue) | { readonly kind: 'other'; readonly text: string };

export type QueueStep =
  /** @param instead something of another kind is there, and has to go first */
  | { readonly kind: 'setQueue'; readonly queue: Queue; readonly instead: boolean }
  | { readonly kind: 'delQueue'; readonly link: string };

/** By its handle a queue is known as ours, to an agent without memory. */
export const HANDLE = '57ef:';

export const queueText = ({ rate, burst, limit }: Omit<Queue, 'link'>): string =>
  `tbf rate ${rate * 8}bit burst ${burst}b limit ${limit}b`;

/** Lines of `tc -batch`; "tc" is not said. Names of links are made by us: letters and digits. */
export function lines(step: QueueStep): string[] {
  if (step.kind === 'delQueue') return [`qdisc del dev ${step.link} root`];
  const { link, rate, burst, limit } = step.queue;
  return [
    ...(step.instead ? [`qdisc del dev ${link} root`] : []),
    `qdisc replace dev ${link} root handle ${HANDLE} tbf rate ${rate * 8}bit burst ${burst}b limit ${limit}b`,
  ];
}

/**
 * Reads `tc -j -r qdisc show`: of links that concern us, what is at their root. No queue at all ("noqueue", as a veth pair has) is
 * left out.
 */
export function parseQueues(json: string, concerns: (link: string) => boolean): Map<string, FoundQueue> {
  const out = new Map<string, FoundQueue>();
  const items: unknown = json.trim() === '' ? [] : JSON.parse(json);
  for (const item of Array.isArray(items) ? items : []) {
    const o = item as { kind?: unknown; handle?: unknown; dev?: unknown; root?: unknown; options?: unknown };
    if (o.root !== true || typeof o.dev !== 'string' || typeof o.kind !== 'string' || !concerns(o.dev)) continue;
    if (o.kind === 'noqueue') continue;
    const { rate, burst, limit } = (o.options ?? {}) as Readonly<Record<string, unknown>>;
    if (o.kind === 'tbf' && o.handle === HANDLE && [rate, burst, limit].every((n) => typeof n === 'number'))
      out.set(o.dev, { kind: 'ours', link: o.dev, rate: Number(rate), burst: Number(burst), limit: Number(limit) });
    else out.set(o.dev, { kind: 'other', text: `${o.kind} ${String(o.handle)}` });
  }
  return out;
}

/**
 * The kernel keeps a burst as the time that it takes at the rate, in whole microseconds cut off (tc_calc_xmittime in iproute2's
 * tc/tc_core.c): what is read is a little less than what was set.
 */
export const isSame = (want: Omit<Queue, 'link'>, have: Omit<Queue, 'link'>): boolean =>
  want.rate === have.rate && want.limit === have.limit && Math.abs(want.burst - have.burst) <= want.rate * 2e-6 + 1;
