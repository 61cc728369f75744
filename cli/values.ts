/**
 * Values of flags. What is not of the flag's form at all is a usage error (exit 2); what has the form and cannot be, or what
 * only the coordinator can judge, is refused (exit 1).
 */
import { WeftError } from '../lib/errors.ts';
import { UsageError } from './usage.ts';

const MAX_U64 = 2n ** 64n - 1n;

/** A whole number. @throws UsageError unless decimal digits; INVALID_ARGUMENT when outside min…max. */
export function wholeNumber(flag: string, text: string, min: number, max: number): number {
  if (!/^[+-]?\d+$/.test(text)) throw new UsageError(`${flag} takes a whole number, not ${quote(text)}.`);
  const value = BigInt(text.replace(/^\+/, ''));
  if (value < BigInt(min) || value > BigInt(max))
    throw new WeftError('INVALID_ARGUMENT', `${flag} ${text.slice(0, 40)} is out of range.`, {
      hint: `${flag} takes ${min} to ${max}`,
    });
  return Number(value);
}

/** 24 bits on the wire; 0 would mean "choose one". */
export const vni = (flag: string, text: string): number => wholeNumber(flag, text, 1, 2 ** 24 - 1);

/** From the least that IPv4 allows (RFC 791) to the most that Linux does. */
export const mtu = (flag: string, text: string): number => wholeNumber(flag, text, 68, 65_535);

/** Seconds, with a fraction perhaps, as milliseconds. */
export function seconds(flag: string, text: string): number {
  if (!/^\d{1,9}(\.\d{1,9})?s?$/.test(text)) throw new UsageError(`${flag} takes seconds, not ${quote(text)}.`);
  const ms = Math.ceil(Number(text.replace(/s$/, '')) * 1000);
  if (ms < 1 || ms > 86_400_000)
    throw new WeftError('INVALID_ARGUMENT', `${flag} ${text} is out of range.`, {
      hint: `${flag} takes up to 86400 seconds`,
    });
  return ms;
}

/** A time like 500ms, 5s, 2m or 1h (without a unit: seconds), as milliseconds; more than nothing, up to a day. */
export function milliseconds(flag: string, text: string): number {
  const m = /^(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h)?$/.exec(text);
  if (m === null) throw new UsageError(`${flag} takes a time like 500ms or 5s, not ${quote(text)}.`);
  const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[m[2] ?? 's'] ?? 1000;
  const ms = Math.ceil(Number(m[1]) * unit);
  if (ms < 1 || ms > 86_400_000)
    throw new WeftError('INVALID_ARGUMENT', `${flag} ${text} is out of range.`, { hint: `${flag} takes up to 24h` });
  return ms;
}

/** N or EPOCH:N; epoch null = the present one. */
export function revision(flag: string, text: string): { epoch: bigint | null; number: bigint } {
  const match = /^(?:(\d{1,20}):)?(\d{1,20})$/.exec(text);
  if (match === null) throw new UsageError(`${flag} takes a revision N or EPOCH:N, not ${quote(text)}.`);
  const [, epochText, numberText = ''] = match;
  const [epoch, number] = [epochText === undefined ? null : BigInt(epochText), BigInt(numberText)];
  if (number > MAX_U64 || (epoch ?? 0n) > MAX_U64)
    throw new WeftError('INVALID_ARGUMENT', `${flag} ${text} is out of range.`);
  return { epoch, number };
}

/** K=V, …; K alone is an empty value, and of two values of a key the last counts, as in docker. @throws UsageError */
export function labels(flag: string, texts: readonly string[]): Record<string, string> {
  const given = new Map<string, string>();
  for (const text of texts) {
    const at = text.indexOf('=');
    const [key, value] = at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)];
    if (key === '') throw new UsageError(`${flag} takes KEY=VALUE, not ${quote(text)}.`);
    given.set(key, value);
  }
  return Object.fromEntries(given);
}

/**
 * As labels, and none without a value: who leaves it out means something else, and so does who gives two.
 * @throws UsageError; INVALID_ARGUMENT where a key has two values
 */
export function exactLabels(flag: string, texts: readonly string[]): Record<string, string> {
  const bare = texts.find((text) => !text.includes('='));
  if (bare !== undefined) throw new UsageError(`${flag} takes LABEL=VALUE, not ${quote(bare)}.`);
  const keys = Object.entries(labels(flag, texts));
  for (const [key, value] of keys)
    if (texts.some((text) => text.startsWith(`${key}=`) && text !== `${key}=${value}`))
      throw new WeftError('INVALID_ARGUMENT', `${flag}: the label ${key} is given twice.`, {
        hint: 'a label has one value: give one of them',
      });
  return Object.fromEntries(keys);
}

/** The name of something that exists: anything but nothing. */
export function nonEmpty(what: string, text: string): string {
  if (text.trim() === '') throw new WeftError('INVALID_ARGUMENT', `The ${what} is empty.`, { hint: 'give it a value' });
  return text;
}

/** A list separated by commas, blanks dropped. */
export const list = (text: string): string[] =>
  text
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');

/** Commander's way to a flag that may be repeated. */
export const collect = (value: string, previous: string[] | undefined): string[] => [...(previous ?? []), value];

export const quote = (text: string): string => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
