/**
 * What sizes get through to other VTEPs, by real packets that may not be fragmented: frames of the tunnel (probe/tunnel.ts), or where
 * that cannot be, echoes (ping(8), iputils: -M do). A path that carries less than it should and says nothing is a black hole: TCP
 * hangs there, small packets pass.
 */
import type { MtuProbe } from '../gen/weft/v1/session.ts';
import { exec } from '../lib/exec.ts';
import { TunnelProber } from './probe/tunnel.ts';
import type { QueryHandlers } from './queries.ts';
import type { Wiring } from './wiring.ts';

/** One echo of `size` bytes (outer IP header included). `limit`: this host or a router said what the most is. */
export type Echo = { readonly kind: 'reply' } | { readonly kind: 'silence' } | { readonly kind: 'limit'; mtu: number };
export type Ping = (vtep: string, size: number) => Promise<Echo>;

export interface ProbeOptions {
  readonly vteps: readonly string[];
  /** Largest size worth trying, bytes. */
  readonly largest: number;
  readonly ping: Ping;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly deadlineMs?: number;
  readonly parallel?: number;
}

/** Everything that IP has to carry: RFC 791 says 68, RFC 8200 says 1280. What is asked first is smaller than any tunnel's header. */
const leastOf = (vtep: string): number => (vtep.includes(':') ? 1280 : 68);

/** Probes all of them, a bounded number at a time; those that were not finished at the deadline say so. */
export async function probeMtu(options: ProbeOptions): Promise<MtuProbe[]> {
  const end = options.now() + (options.deadlineMs ?? 20_000);
  const found = new Map<string, MtuProbe>();
  const waiting = [...new Set(options.vteps)];
  /** What other paths carry: most have one of few sizes, so that the search is short. */
  const usual = new Set<number>();
  const worker = async (): Promise<void> => {
    while (options.now() < end) {
      const vtep = waiting.shift();
      if (vtep === undefined) return;
      found.set(vtep, await probe(vtep, options, usual, end));
    }
  };
  await Promise.all(Array.from({ length: options.parallel ?? 8 }, worker));
  return options.vteps.map((vtep) => found.get(vtep) ?? unfinished(vtep, 0));
}

const unfinished = (vtep: string, largest: number): MtuProbe => ({
  vtep,
  largest,
  problem: 'not finished in time: ask again, with fewer hosts',
});

async function probe(vtep: string, o: ProbeOptions, usual: Set<number>, end: number): Promise<MtuProbe> {
  const least = leastOf(vtep);
  /** `low` gets through, `high` does not. */
  let low = 0;
  let high = o.largest + 1;
  const told: { mtu: number | null } = { mtu: null };
  const attempt = async (size: number): Promise<void> => {
    const echo = await o.ping(vtep, size);
    if (echo.kind === 'reply') low = size;
    else high = size;
    if (echo.kind !== 'limit') return;
    told.mtu = told.mtu === null ? echo.mtu : Math.min(told.mtu, echo.mtu);
    if (echo.mtu > low && echo.mtu + 1 < high) high = echo.mtu + 1;
  };
  const late = (): boolean => o.now() >= end;
  await attempt(o.largest);
  if (low === o.largest) return { vtep, largest: low, problem: '' };
  if (late()) return unfinished(vtep, 0);
  await attempt(Math.min(least, o.largest));
  if (low === 0) return { vtep, largest: 0, problem: 'unreachable' };
  while (high - low > 1) {
    if (late()) return unfinished(vtep, low);
    await attempt(nextSize(low, high, usual, told.mtu));
  }
  usual.add(low);
  return { vtep, largest: low, problem: told.mtu === low ? `carries ${low} bytes` : `black hole above ${low} bytes` };
}

/** What is most likely first: the size that somebody named, sizes of other paths and the byte above; then the middle. */
function nextSize(low: number, high: number, usual: ReadonlySet<number>, told: number | null): number {
  const likely = [...(told === null ? [] : [told]), ...usual].flatMap((size) => [size, size + 1]);
  return likely.find((size) => size > low && size < high) ?? Math.floor((low + high) / 2);
}

/** Both ways of asking; `scope` ends what is still at work. */
export function sizeProbes(
  wiring: Wiring,
  scope: { defer(what: string, end: () => void): void },
): Pick<QueryHandlers, 'probeMtu' | 'probeTunnel'> {
  const tunnel = new TunnelProber({ wiring, ifindex });
  scope.defer('tunnel probe', () => tunnel.close());
  return {
    probeMtu: (vteps, largest) => probeUnderlay(wiring, vteps, largest),
    probeTunnel: (query) => tunnel.answer(query),
  };
}

async function ifindex(link: string): Promise<number | null> {
  const shown = await exec('ip', ['-j', 'link', 'show', 'dev', link]);
  if (shown.code !== 0) return null;
  const [found] = JSON.parse(shown.stdout) as { ifindex?: number }[];
  return found?.ifindex ?? null;
}

/** With this host's VTEP. @param largest 0 = what the underlay interface carries */
const probeUnderlay = (
  own: { readonly vtep: string; readonly underlayMtu: number },
  vteps: readonly string[],
  largest: number,
): Promise<MtuProbe[]> =>
  probeMtu({
    vteps,
    largest: Math.min(largest || own.underlayMtu || 1500, 65_535),
    ping: pingFrom((other) => (other.includes(':') === own.vtep.includes(':') ? own.vtep : null)),
    now: () => performance.now(),
  });

const ICMP = 8;

/** @param ownVtep this host's VTEP of the same family as the other's */
export const pingFrom =
  (ownVtep: (other: string) => string | null): Ping =>
  async (vtep, size) => {
    const own = ownVtep(vtep);
    if (own === null) return { kind: 'silence' };
    const payload = Math.max(0, size - ICMP - (vtep.includes(':') ? 40 : 20));
    // Two, so that one that is lost says nothing.
    const count = ['-c', '2', '-i', '0.2', '-W', '1'];
    const args = ['-n', '-M', 'do', '-s', String(payload), ...count, '-I', own, vtep];
    const { code, stdout, stderr } = await exec('ping', args, {
      timeoutMs: 5000,
      env: { PATH: process.env['PATH'], LC_ALL: 'C' },
    });
    if (code === 0) return { kind: 'reply' };
    const mtu = /mtu\s*=\s*(\d+)/i.exec(stdout + stderr)?.[1];
    return mtu === undefined ? { kind: 'silence' } : { kind: 'limit', mtu: Number(mtu) };
  };
