/**
 * Rates, bursts and priorities of endpoints: their words, which are those of tc(8) but never without a unit, their bounds, and what
 * counts where several say something. Pure.
 */
import { middleCut, WeftError } from './errors.ts';
import type { Endpoint, EndpointSettings, Network, Rate } from './model.ts';

/** Labels of a container, and driver options of an endpoint. */
export const RATE_KEYS = { rate: 'weft.rate', burst: 'weft.burst', priority: 'weft.priority' } as const;

export const PRIORITIES = ['high', 'normal', 'low'] as const;
export type Priority = (typeof PRIORITIES)[number];

const MIN_BITS = 8_000;
const MAX_BITS = 100e9;
/** A frame of Ethernet's usual size must fit. */
const MIN_BURST = 1_600;
const MAX_BURST = 256 * 2 ** 20;
/** Seconds of the rate in one burst: more is no rate. */
const MAX_BURST_S = 10;

const BITS: Readonly<Record<string, number>> = { bit: 1, kbit: 1e3, mbit: 1e6, gbit: 1e9 };
const BYTES: Readonly<Record<string, number>> = {
  b: 1,
  k: 1024,
  kb: 1024,
  m: 2 ** 20,
  mb: 2 ** 20,
  g: 2 ** 30,
  gb: 2 ** 30,
};

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });

function measure(text: string, units: Readonly<Record<string, number>>): number | null {
  const m = /^(\d{1,12}(?:\.\d{1,9})?)([a-z]{1,4})$/i.exec(text.trim());
  const unit = units[(m?.[2] ?? '').toLowerCase()];
  return m === null || unit === undefined ? null : Math.round(Number(m[1]) * unit);
}

/** Bits per second; "none": 0, as much as it can. @throws INVALID_ARGUMENT */
export function parseBits(what: string, text: string): number {
  if (text === 'none') return 0;
  const bits = measure(text, BITS);
  if (bits === null)
    throw invalid(
      `${what} takes a number with bit, kbit, mbit or gbit (per second), or none, not "${middleCut(text)}".`,
      `for example ${what} 200mbit`,
    );
  return bits;
}

/** Bytes. @throws INVALID_ARGUMENT */
export function parseBurst(what: string, text: string): number {
  const bytes = measure(text, BYTES);
  if (bytes === null)
    throw invalid(
      `${what} takes a number with b, kb, mb or gb (bytes, 1 kb = 1024 b), not "${middleCut(text)}".`,
      `for example ${what} 64kb`,
    );
  return bytes;
}

/** @throws INVALID_ARGUMENT what cannot be held */
export function checkRate({ bits, burst }: Rate): Rate {
  if (bits === 0n && burst !== 0n) throw invalid('A burst needs a rate.', 'give the rate too');
  if (bits !== 0n && (bits < BigInt(MIN_BITS) || bits > BigInt(MAX_BITS)))
    throw invalid(`A rate of ${formatBits(bits)} cannot be held.`, 'give a rate from 8kbit to 100gbit, or none');
  const most = Math.max(MIN_BURST * 2, Math.min(MAX_BURST, (Number(bits) / 8) * MAX_BURST_S));
  if (burst !== 0n && (burst < BigInt(MIN_BURST) || burst > BigInt(Math.floor(most))))
    throw invalid(
      `A burst of ${burst} bytes does not go with a rate of ${formatBits(bits)}.`,
      `give a burst from ${MIN_BURST}b (a frame must fit) to ${Math.floor(most)}b (${MAX_BURST_S} seconds of the rate, and 256mb), or leave it out`,
    );
  return { bits, burst };
}

/** Below, the smallest class could not send a frame within a tenth of a second. */
const MIN_SHAPED = 1e6;

/** Bits per second that an underlay is shaped to; null: "none". @throws INVALID_ARGUMENT */
export function parseShaped(text: string): number | null {
  const bits = parseBits('--shape-underlay', text);
  if (bits === 0) return null;
  if (bits < MIN_SHAPED || bits > MAX_BITS)
    throw invalid(
      `--shape-underlay takes a rate from 1mbit to 100gbit, not "${middleCut(text)}".`,
      'a little less than the link carries: 950mbit on one of 1 Gbit/s',
    );
  return bits;
}

/** Undefined: it is no such rate. */
export function tryParseShaped(text: string): number | null | undefined {
  try {
    return parseShaped(text);
  } catch {
    return undefined;
  }
}

/** @throws INVALID_ARGUMENT */
export function parsePriority(what: string, text: string): Priority {
  const found = PRIORITIES.find((p) => p === text);
  if (found === undefined)
    throw invalid(`${what} takes high, normal or low, not "${middleCut(text)}".`, `for example ${what} high`);
  return found;
}

/**
 * From two texts to a rate. @param names of rate and burst, as the user wrote them; absent texts were not given.
 * @throws INVALID_ARGUMENT
 */
export function readRate(
  names: { readonly rate: string; readonly burst: string },
  texts: { readonly rate?: string | undefined; readonly burst?: string | undefined },
): Rate | undefined {
  if (texts.rate === undefined && texts.burst === undefined) return undefined;
  if (texts.rate === undefined) throw invalid(`${names.burst} needs ${names.rate}.`, 'give the rate too');
  const bits = parseBits(names.rate, texts.rate);
  const burst = texts.burst === undefined ? 0 : parseBurst(names.burst, texts.burst);
  return checkRate({ bits: BigInt(bits), burst: BigInt(burst) });
}

/** What labels, or driver options, ask for. @throws INVALID_ARGUMENT */
export function askedFor(said: Readonly<Record<string, string>>): {
  readonly rate?: Rate;
  readonly priority?: Priority;
} {
  const rate = readRate(RATE_KEYS, { rate: said[RATE_KEYS.rate], burst: said[RATE_KEYS.burst] });
  const text = said[RATE_KEYS.priority];
  return {
    ...(rate === undefined ? {} : { rate }),
    ...(text === undefined ? {} : { priority: parsePriority(RATE_KEYS.priority, text) }),
  };
}

/** As it would be written: 200mbit, 1500kbit; none. */
export function formatBits(bits: bigint): string {
  if (bits === 0n) return 'none';
  for (const [unit, size] of [
    ['gbit', 1_000_000_000n],
    ['mbit', 1_000_000n],
    ['kbit', 1_000n],
  ] as const)
    if (bits % size === 0n) return `${bits / size}${unit}`;
  return `${bits}bit`;
}

export const formatRate = ({ bits, burst }: Rate): string =>
  formatBits(bits) + (burst === 0n ? '' : ` burst ${burst}b`);

export interface InForce {
  readonly rate: Rate;
  readonly by: 'endpoint' | 'container' | 'network';
}

/** A device that the user made is itself the port: there is no place to hold its frames up. */
export const isHeldUp = (endpoint: Pick<Endpoint, 'kind'>): boolean => endpoint.kind !== 'tap';

/** The rate that counts; null: none. */
export function rateInForce(
  endpoint: Pick<Endpoint, 'rate' | 'kind'>,
  network: Pick<Network, 'rate'> | undefined,
  settings: Pick<EndpointSettings, 'rate'> | undefined,
): InForce | null {
  if (!isHeldUp(endpoint)) return null;
  const said = [
    ['endpoint', settings?.rate],
    ['container', endpoint.rate],
    ['network', network?.rate],
  ] as const;
  for (const [by, rate] of said) if (rate !== undefined) return rate.bits === 0n ? null : { rate, by };
  return null;
}

/** "" = as its frames say themselves. */
export function priorityInForce(
  endpoint: Pick<Endpoint, 'priority'>,
  settings: Pick<EndpointSettings, 'priority'> | undefined,
): Priority | '' {
  const text = settings?.priority ?? endpoint.priority;
  return PRIORITIES.find((p) => p === text) ?? '';
}
