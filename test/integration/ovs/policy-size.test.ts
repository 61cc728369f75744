/** A small `npm run bench:policies`: what it shows at size holds, and an update under load loses nothing and lets nothing through. */
import { expect, test } from 'vitest';
import { measurePolicies } from '../../../bench/policies/measure.ts';

test('policies at size, and while they change', async () => {
  const size = { policies: 80, endpoints: 400, local: 80 };
  const m = await measurePolicies(size, { updates: 8, rate: 300 });
  expect(m.idle.touched).toBe(0);
  // What an endpoint is, and whom it may call, are at most a flow of each kind of policy, whatever there is besides.
  expect(m.label.here.touched).toBeGreaterThan(0);
  expect(m.label.here.touched).toBeLessThan(20);
  expect(m.label.elsewhere.touched).toBeLessThan(10);
  expect(m.policy.touched).toBeLessThan(40);
  expect(m.load.allowed.sent).toBeGreaterThan(100);
  expect(m.load.allowed.lost).toBe(0);
  expect(m.load.denied.sent).toBeGreaterThan(100);
  expect(m.load.denied.passed).toBe(0);
  for (const ms of m.enforcedMs) expect(ms).toBeLessThan(2000);
});
