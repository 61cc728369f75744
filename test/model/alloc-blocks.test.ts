import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  addressPlan,
  isAssignable,
  pickBlock,
  pickBlockContaining,
  usableCount,
} from '../../coordinator/alloc/blocks.ts';
import { pickSubnet } from '../../coordinator/alloc/subnets.ts';
import { Network } from '../../gen/weft/v1/types.ts';
import {
  type Cidr,
  cidrOf,
  containsCidr,
  containsIp,
  type Family,
  formatCidr,
  formatIp,
  halves,
  lastOf,
  overlaps,
  parseCidr,
  parseIp,
  sizeOf,
} from '../../lib/addr.ts';

const key = formatCidr;

/** A network with gateway and auxiliary addresses somewhere, and perhaps an ip-range. */
const plans = fc
  .record({
    prefix: fc.integer({ min: 20, max: 30 }),
    range: fc.integer({ min: 0, max: 4 }),
    aux: fc.array(fc.nat(), { maxLength: 5 }),
    family: fc.constantFrom<Family>(4, 6),
  })
  .map(({ prefix: length, range, aux, family }) => {
    // As many addresses in either family.
    const prefix = length + 96;
    const subnet: Cidr = { base: parseIp(family === 4 ? '10.128.0.0' : 'fd00:1::'), prefix };
    const inner: Cidr = { base: subnet.base, prefix: Math.min(126, prefix + range) };
    const usable = sizeOf(prefix) - 2n;
    const addresses = aux.map((n, i) => [`a${i}`, formatIp(subnet.base + 1n + (BigInt(n) % usable))]);
    return addressPlan(
      Network.fromPartial({
        subnets: [key(subnet)],
        ipRange: range === 0 ? '' : key(inner),
        gateways: [formatIp(subnet.base + 1n)],
        auxAddresses: Object.fromEntries(addresses) as Record<string, string>,
      }),
      family,
    )!;
  });

type Step =
  | { kind: 'pick' }
  | { kind: 'at'; n: number }
  | { kind: 'split'; n: number; drop: boolean }
  | { kind: 'free'; n: number };
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.constant<Step>({ kind: 'pick' }) },
    { weight: 3, arbitrary: fc.nat().map((n): Step => ({ kind: 'at', n })) },
    {
      weight: 3,
      arbitrary: fc.record({ n: fc.nat(), drop: fc.boolean() }).map((s): Step => ({ kind: 'split', ...s })),
    },
    { weight: 1, arbitrary: fc.nat().map((n): Step => ({ kind: 'free', n })) },
  ),
  { maxLength: 120 },
);

describe('blocks, on random walks', () => {
  test('never overlap, are aligned, of use, and "none" means none', () => {
    fc.assert(
      fc.property(plans, steps, (plan, walk) => {
        let held: Cidr[] = [];
        const taken = (ip: bigint): boolean => held.some((block) => containsIp(block, ip));
        const add = (block: Cidr): void => {
          expect(block.base % sizeOf(block.prefix), key(block)).toBe(0n);
          expect(containsCidr(plan.subnet, block)).toBe(true);
          expect(held.filter((other) => overlaps(other, block)).map(key)).toEqual([]);
          expect(usableCount(plan, block)).toBeGreaterThan(0);
          held.push(block);
        };
        for (const step of walk) {
          if (step.kind === 'pick') {
            const block = pickBlock(plan, held);
            if (block !== null) {
              expect(containsCidr(plan.range, block)).toBe(true);
              add(block);
            } else
              for (let ip = plan.range.base; ip <= lastOf(plan.range); ip++)
                if (isAssignable(plan, ip) && !taken(ip)) throw new Error(`${formatIp(ip)} was free`);
          } else if (step.kind === 'at') {
            const ip = plan.subnet.base + (BigInt(step.n) % sizeOf(plan.subnet.prefix));
            const block = pickBlockContaining(plan, held, ip);
            expect(block === null).toBe(!isAssignable(plan, ip) || taken(ip));
            if (block === null) continue;
            expect(containsIp(block, ip)).toBe(true);
            add(block);
          } else if (held.length > 0) {
            const block = held[step.n % held.length]!;
            held = held.filter((other) => other !== block);
            if (step.kind === 'split' && block.prefix < 128) {
              const [low, high] = halves(block);
              // What has no address for an endpoint is never kept.
              for (const half of step.drop ? [high] : [low, high]) if (usableCount(plan, half) > 0) held.push(half);
            }
          }
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe('subnets, on random walks', () => {
  test('never overlap what is taken, and "none" means none', () => {
    const pool = { range: parseCidr('10.0.0.0/20'), prefix: 120 };
    const one = fc.record({ at: fc.bigInt(0n, 4095n), prefix: fc.integer({ min: 115, max: 126 }) });
    const cidrs = fc.array(
      one.map(({ at, prefix }) => cidrOf(pool.range.base + at, prefix)),
      { maxLength: 12 },
    );
    fc.assert(
      fc.property(cidrs, cidrs, (taken, resting) => {
        const rests = resting.map((cidr, i) => ({ cidr, since: String(i).padStart(3, '0') }));
        const picked = pickSubnet(pool, taken, rests);
        const free = Array.from({ length: 16 }, (_, i) => ({
          base: pool.range.base + BigInt(i * 256),
          prefix: 120,
        })).filter((candidate) => !taken.some((t) => overlaps(t, candidate)));
        const fresh = free.filter((candidate) => !resting.some((r) => overlaps(r, candidate)));
        if (fresh.length > 0) expect(picked).toEqual(fresh[0]);
        else if (free.length > 0) expect(free).toContainEqual(picked);
        else expect(picked).toBe(null);
      }),
      { numRuns: 500 },
    );
  });
});
