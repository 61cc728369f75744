import { describe, expect, it } from 'vitest';
import { judge, PROVEN, UNPROVEN, type Verdict } from '../../../../agent/services/verdict.ts';

const verdictAfter = (from: Verdict, results: string, rise = 2, fall = 3): boolean =>
  results.split('').reduce((v, r) => judge(v, r === '+', { rise, fall }), from).healthy;

describe('the verdict', () => {
  it.each([
    ['', false],
    ['+', false],
    ['+-+', false],
    ['++', true],
    ['++--+--', true],
    ['++---', false],
    ['++---+', false],
    ['++---++', true],
  ])('of who is new, after %j: %s', (results, healthy) => {
    expect(verdictAfter(UNPROVEN, results)).toBe(healthy);
  });

  it('of who was healthy before falls as any other', () => {
    expect(verdictAfter(PROVEN, '--')).toBe(true);
    expect(verdictAfter(PROVEN, '---')).toBe(false);
  });

  it('changes with the first result where nothing is said', () => {
    expect(verdictAfter(UNPROVEN, '+', 0, 0)).toBe(true);
    expect(verdictAfter(PROVEN, '-', 0, 0)).toBe(false);
  });
});
