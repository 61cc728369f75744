import { expect, test } from 'vitest';
import { routesOf } from '../../../cli/router-flags.ts';
import { UsageError } from '../../../cli/usage.ts';

test('routes are words, or one word with blanks', () => {
  const expected = [
    { cidr: '10.0.0.0/8', via: ['10.1.0.2'] },
    { cidr: 'fd00:9::/48', via: ['fd00::2', 'fd00::3'] },
  ];
  expect(routesOf('--route', ['10.0.0.0/8', 'via', '10.1.0.2', 'fd00:9::/48', 'via', 'fd00::2,fd00::3'])).toEqual(
    expected,
  );
  expect(routesOf('--route', ['10.0.0.0/8 via 10.1.0.2', ' fd00:9::/48  via fd00::2,fd00::3 '])).toEqual(expected);
  expect(routesOf('--route', [])).toEqual([]);
});

test.each([
  [['10.0.0.0/8']],
  [['10.0.0.0/8', 'via']],
  [['10.0.0.0/8', '10.1.0.2']],
  [['10.0.0.0/8', 'via', '10.1.0.2', 'my-router']],
  [['10.1.0.2', 'via', '10.0.0.0/8']],
])('%j is no route', (words) => {
  expect(() => routesOf('--route', words)).toThrow(UsageError);
});
