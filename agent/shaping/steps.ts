/** Queues that hold rates (tc-tbf(8)), and what leads frames to them: the vocabulary between planner and driver, and what tc shows. Pure. */

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

/** What comes in by a link goes through another one's queue first (an ifb, ip-link(8)), and then on as if nothing had been. */
export interface Diversion {
  readonly link: string;
  readonly to: string;
}

/** What a link has where a queue of ours would be. */
export type FoundQueue = ({ readonly kind: 'ours' } & Queue) | { readonly kind: 'other'; readonly text: string };

/** All that there is of both, by link. */
export interface FoundShaping {
  readonly queues: Map<string, FoundQueue>;
  /** Where frames of the link go first; empty: nowhere, but a filter could be there; ELSEWHERE: something of another kind is. */
  readonly diversions: Map<string, string>;
}

export type QueueStep =
  /** @param instead something of another kind is there, and has to go first */
  | { readonly kind: 'setQueue'; readonly queue: Queue; readonly instead: boolean }
  | { readonly kind: 'delQueue'; readonly link: string }
  /** @param instead something is in the place of the filter */
  | { readonly kind: 'divert'; readonly diversion: Diversion; readonly instead: boolean }
  | { readonly kind: 'undivert'; readonly link: string };

/** What is in the place of a diversion leads nowhere that has a name. */
export const ELSEWHERE = '?';
/** Of the filter: behind the program that translates for services (TC_PRIORITY in datapath/weft-bpf.c), which lets all go on. */
const PREFERENCE = 2;

/** By its handle a queue is known as ours, to an agent without memory. */
export const HANDLE = '57ef:';

export const queueText = ({ rate, burst, limit }: Omit<Queue, 'link'>): string =>
  `tbf rate ${rate * 8}bit burst ${burst}b limit ${limit}b`;
export const diversionText = (to: string): string => `redirect to ${to === '' || to === ELSEWHERE ? 'nothing' : to}`;
/** Of a diversion, beside the link's queue. */
export const diversionId = (link: string): string => `${link} ingress`;

/** Lines of `tc -batch`; "tc" is not said. Names of links are made by us: letters and digits. */
export function lines(step: QueueStep): string[] {
  switch (step.kind) {
    case 'setQueue': {
      const { link, rate, burst, limit } = step.queue;
      return [
        ...(step.instead ? [`qdisc del dev ${link} root`] : []),
        `qdisc replace dev ${link} root handle ${HANDLE} tbf rate ${rate * 8}bit burst ${burst}b limit ${limit}b`,
      ];
    }
    case 'delQueue':
      return [`qdisc del dev ${step.link} root`];
    case 'divert': {
      const { link, to } = step.diversion;
      const at = `dev ${link} ingress`;
      return [
        // It may be there for a program, which stays.
        `qdisc replace dev ${link} clsact`,
        ...(step.instead ? [`filter del ${at} pref ${PREFERENCE}`] : []),
        `filter add ${at} protocol all pref ${PREFERENCE} u32 match u32 0 0 action mirred egress redirect dev ${to}`,
      ];
    }
    case 'undivert':
      return [`filter del dev ${step.link} ingress pref ${PREFERENCE}`];
  }
}

interface Shown {
  readonly kind?: unknown;
  readonly handle?: unknown;
  readonly dev?: unknown;
  readonly root?: unknown;
  readonly options?: unknown;
  readonly pref?: unknown;
}

/** Reads `tc -j -r qdisc show`: what concerns us. What links have by themselves (its handle is 0) is left out. */
export function parseQueues(json: string, concerns: (link: string) => boolean): Map<string, FoundQueue> {
  const out = new Map<string, FoundQueue>();
  for (const { kind, handle, dev, root, options } of listOf(json)) {
    if (root !== true || typeof dev !== 'string' || typeof kind !== 'string' || !concerns(dev)) continue;
    if (handle === '0:') continue;
    const { rate, burst, limit } = (options ?? {}) as Readonly<Record<string, unknown>>;
    if (kind === 'tbf' && handle === HANDLE && [rate, burst, limit].every((n) => typeof n === 'number'))
      out.set(dev, { kind: 'ours', link: dev, rate: Number(rate), burst: Number(burst), limit: Number(limit) });
    else out.set(dev, { kind: 'other', text: `${kind} ${String(handle)}` });
  }
  return out;
}

/** Of the same: links that have a place for filters of what comes in. */
export const parseClassified = (json: string, concerns: (link: string) => boolean): string[] =>
  listOf(json).flatMap(({ kind, dev }) => (kind === 'clsact' && typeof dev === 'string' && concerns(dev) ? [dev] : []));

/** Reads `tc -j filter show dev … ingress`: where all frames go, if that is all that is said in our place; else ELSEWHERE. */
export function parseDiversion(json: string): string {
  const ours = listOf(json).filter((one) => one.pref === PREFERENCE);
  if (ours.length === 0) return '';
  const said = ours.flatMap(({ options }) => {
    const { actions, match } = (options ?? {}) as { actions?: unknown; match?: { mask?: unknown } };
    return Array.isArray(actions)
      ? [{ actions: actions as Readonly<Record<string, unknown>>[], mask: match?.mask }]
      : [];
  });
  const [only, more] = said;
  const [action, another] = only?.actions ?? [];
  if (more !== undefined || another !== undefined || only?.mask !== '0') return ELSEWHERE;
  const redirects = action?.['mirred_action'] === 'redirect' && action['direction'] === 'egress';
  return redirects && typeof action['to_dev'] === 'string' ? action['to_dev'] : ELSEWHERE;
}

function listOf(json: string): Shown[] {
  const items: unknown = json.trim() === '' ? [] : JSON.parse(json);
  return Array.isArray(items) ? (items as Shown[]) : [];
}

/**
 * The kernel keeps a burst as the time that it takes at the rate, in whole microseconds cut off (tc_calc_xmittime in iproute2's
 * tc/tc_core.c): what is read is a little less than what was set.
 */
export const isSame = (want: Omit<Queue, 'link'>, have: Omit<Queue, 'link'>): boolean =>
  want.rate === have.rate && want.limit === have.limit && Math.abs(want.burst - have.burst) <= want.rate * 2e-6 + 1;
