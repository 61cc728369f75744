/** Keys and values of the maps as bytes (encode.ts), read field by field. Pure. */
import { formatIp } from '../../lib/ip.ts';
import { formatMac } from '../../lib/mac.ts';

/** Reads fields one after the other; what is not long enough reads as zero. */
export class Fields {
  readonly #hex: string;
  #at = 0;
  constructor(hex: string) {
    this.#hex = hex;
  }
  take(size: number): string {
    this.#at += size * 2;
    return this.#hex.slice(this.#at - size * 2, this.#at).padEnd(size * 2, '0');
  }
  u32(): number {
    const h = this.take(4);
    return Number.parseInt(h.slice(6) + h.slice(4, 6) + h.slice(2, 4) + h.slice(0, 2), 16);
  }
  /** In the order of the network. */
  port(): number {
    return Number.parseInt(this.take(2), 16);
  }
  u8(): number {
    return Number.parseInt(this.take(1), 16);
  }
  mac(): string {
    return formatMac(BigInt(`0x${this.take(6)}`));
  }
}

export const ip4 = (hex: string): string => formatIp(Number.parseInt(hex.slice(0, 8), 16));

/** RFC 5952 but for the shortest form of runs of zeros: groups of zeros at one place are left out. */
export function ip6(hex: string): string {
  const groups = Array.from({ length: 8 }, (_, i) => Number.parseInt(hex.slice(i * 4, i * 4 + 4), 16).toString(16));
  const text = groups.join(':');
  const runs = text.match(/(?:^|:)0(?::0)+(?=:|$)/g) ?? [];
  const longest = runs.reduce((a, b) => (b.length > a.length ? b : a), '');
  return longest === '' ? text : text.replace(longest, text.endsWith(longest) ? '::' : ':').replace(/^:(?!:)/, '::');
}

export const isZero = (hex: string): boolean => /^0*$/.test(hex);
export const address = (hex: string, family: number): string => (family === 4 ? ip4(hex) : ip6(hex));
