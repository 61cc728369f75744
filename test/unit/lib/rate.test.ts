import { describe, expect, it } from 'vitest';
import {
  askedFor,
  checkRate,
  formatBits,
  parseBits,
  parseBurst,
  priorityInForce,
  rateInForce,
} from '../../../lib/rate.ts';

const code = (code: string) => expect.objectContaining({ code, hint: expect.stringMatching(/./) });
const rate = (bits: bigint) => ({ bits, burst: 0n });

describe('rates and bursts in words', () => {
  it.each([
    ['8kbit', 8_000],
    ['1.5Mbit', 1_500_000],
    ['200mbit', 200_000_000],
    ['100gbit', 100_000_000_000],
    ['9000bit', 9_000],
    ['none', 0],
  ])('%s', (text, bits) => expect(parseBits('--rate', text)).toBe(bits));

  it.each(['200', '200mb', '200mbps', '-1mbit', 'mbit', '', '1e3kbit', '1 mbit'])('%j is no rate', (text) => {
    expect(() => parseBits('--rate', text)).toThrow(code('INVALID_ARGUMENT'));
  });

  it.each([
    ['1600b', 1_600],
    ['64kb', 65_536],
    ['64k', 65_536],
    ['1.5MB', 1_572_864],
  ])('burst %s', (text, bytes) => expect(parseBurst('--burst', text)).toBe(bytes));

  it.each(['64', '64kbit', 'none', ''])('%j is no burst', (text) => {
    expect(() => parseBurst('--burst', text)).toThrow(code('INVALID_ARGUMENT'));
  });

  it('are written as they would be given', () => {
    expect([0n, 9_001n, 1_500_000n, 200_000_000n, 100_000_000_000n].map(formatBits)).toEqual([
      'none',
      '9001bit',
      '1500kbit',
      '200mbit',
      '100gbit',
    ]);
  });

  it('a burst is a frame at least, and ten seconds at most', () => {
    expect(checkRate({ bits: 8_000n, burst: 3_200n })).toEqual({ bits: 8_000n, burst: 3_200n });
    expect(checkRate({ bits: 1_000_000n, burst: 1_250_000n })).toEqual({ bits: 1_000_000n, burst: 1_250_000n });
    for (const burst of [1_599n, 1_250_001n])
      expect(() => checkRate({ bits: 1_000_000n, burst })).toThrow(code('INVALID_ARGUMENT'));
  });
});

describe('who says what', () => {
  it('labels and driver options', () => {
    expect(askedFor({ app: 'x' })).toEqual({});
    expect(askedFor({ 'weft.rate': '200mbit', 'weft.burst': '64kb', 'weft.priority': 'high' })).toEqual({
      rate: { bits: 200_000_000n, burst: 65_536n },
      priority: 'high',
    });
    for (const bad of [{ 'weft.rate': '200' }, { 'weft.burst': '64kb' }, { 'weft.priority': 'urgent' }])
      expect(() => askedFor(bad as Record<string, string>)).toThrow(code('INVALID_ARGUMENT'));
  });

  it('endpoint before container before network; none is a word too', () => {
    const [set, label, network] = [rate(1n), rate(2n), rate(3n)];
    const kind = 'container';
    expect(rateInForce({ kind }, undefined, undefined)).toBeNull();
    expect(rateInForce({ kind }, { rate: network }, {})).toEqual({ rate: network, by: 'network' });
    expect(rateInForce({ kind, rate: label }, { rate: network }, {})).toEqual({ rate: label, by: 'container' });
    expect(rateInForce({ kind, rate: label }, { rate: network }, { rate: set })).toEqual({ rate: set, by: 'endpoint' });
    expect(rateInForce({ kind, rate: label }, { rate: network }, { rate: rate(0n) })).toBeNull();
    expect(rateInForce({ kind, rate: rate(0n) }, { rate: network }, undefined)).toBeNull();
    // A device that the user made has no place where frames could wait.
    expect(rateInForce({ kind: 'tap' }, { rate: network }, { rate: set })).toBeNull();
  });

  it('priorities likewise', () => {
    expect(priorityInForce({}, undefined)).toBe('');
    expect(priorityInForce({ priority: 'low' }, {})).toBe('low');
    expect(priorityInForce({ priority: 'low' }, { priority: 'high' })).toBe('high');
  });
});
