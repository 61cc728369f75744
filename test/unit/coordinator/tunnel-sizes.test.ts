/** Sizes that get through tunnels: the search, and hosts that do as they are told around it. */
import { describe, expect, test } from 'vitest';
import { type Ask, probeTunnels, type TunnelPath } from '../../../coordinator/api/tunnels.ts';
import { begin, learn, nextSizes, outcome } from '../../../coordinator/tunnel-sizes.ts';
import type { TunnelSizes } from '../../../gen/weft/v1/session.ts';
import { WeftError } from '../../../lib/errors.ts';
import type { Host } from '../../../lib/model.ts';

/** @returns what was found, and the packets that it took */
function search(
  largest: number,
  carries: number,
  told = false,
): { found: ReturnType<typeof outcome>; rounds: number; sent: number } {
  let known = begin(largest);
  let sent = 0;
  for (let sizes = nextSizes(known); sizes.length > 0; sizes = nextSizes(known)) {
    sent += sizes.length;
    expect(sizes.every((size) => size > known.low && size < known.high)).toBe(true);
    const heard = new Set(sizes.filter((size) => size <= carries));
    known = learn(known, sizes, heard, new Set(told ? sizes.filter((size) => size > carries) : []));
  }
  return { found: outcome(known, largest), rounds: known.rounds, sent };
}

describe('the search', () => {
  test('finds every size to the byte, in few rounds of few packets', () => {
    for (const largest of [576, 1500, 9000, 65_535])
      for (const carries of [128, 129, 500, 576, 1279, 1280, 1371, 1372, 1373, 1499, 1500, 8999, 40_000, 65_535]) {
        const { found, rounds, sent } = search(largest, carries);
        expect(found.largest).toBe(Math.min(largest, carries));
        expect(rounds).toBeLessThanOrEqual(5);
        expect(sent).toBeLessThanOrEqual(200);
      }
  });

  test('takes one round where all is well, and where nothing gets through', () => {
    expect(search(1500, 1500)).toMatchObject({ found: { largest: 1500, problem: '' }, rounds: 1 });
    expect(search(1500, 0)).toMatchObject({ found: { largest: 0, problem: 'no VXLAN frame gets through' }, rounds: 1 });
  });

  test('tells a black hole from a size that somebody has named', () => {
    expect(search(1500, 1372).found.problem).toBe('black hole above 1372 bytes');
    expect(search(1500, 1372, true).found.problem).toBe('carries 1372 bytes');
  });

  test('a frame that is lost alone is not the end', () => {
    const known = learn(begin(1500), [128, 600, 1500], new Set([128, 1500]), new Set());
    expect(outcome(known, 1500)).toEqual({ largest: 1500, problem: '' });
  });
});

/** Hosts by id; `carries` by "from to". */
class Underlay {
  readonly carries: Readonly<Record<string, number>>;
  readonly failing: Readonly<Record<string, WeftError>>;
  readonly #paths: readonly TunnelPath[];
  readonly #heard = new Map<string, Map<number, Set<number>>>();

  constructor(paths: readonly TunnelPath[], carries: Record<string, number>, failing: Record<string, WeftError> = {}) {
    this.#paths = paths;
    this.carries = carries;
    this.failing = failing;
  }

  ask: Ask = async (id, body) => {
    if (this.failing[id] !== undefined) throw this.failing[id];
    if (body.$case !== 'probeTunnel') throw new Error(body.$case);
    expect(body.value.run).toMatch(/^[0-9a-f]{16}$/);
    if (!this.#heard.has(id)) this.#heard.set(id, new Map());
    for (const { path, sizes } of body.value.probes) {
      const { to } = this.#paths[path]!;
      // Who does not listen yet hears nothing.
      const there = this.#heard.get(to.id);
      const before = there?.get(path) ?? new Set();
      const passing = sizes.filter((size) => size <= (this.carries[`${id} ${to.id}`] ?? 1500));
      there?.set(path, before.union(new Set(passing)));
    }
    const heard = [...(this.#heard.get(id) ?? [])].map(([path, sizes]): TunnelSizes => ({ path, sizes: [...sizes] }));
    return { id: 0n, code: 0, message: '', body: { $case: 'probeTunnel', value: { heard, refused: [] } } };
  };
}

const host = (id: string): Host => ({ id, name: id }) as Host;
const all = (...ids: string[]): TunnelPath[] =>
  ids.flatMap((from) =>
    ids.filter((to) => to !== from).map((to) => ({ from: host(from), to: host(to), vtep: to, largest: 1500 })),
  );

const atOnce = async (): Promise<void> => undefined;

describe('hosts', () => {
  test('each way for itself', async () => {
    const paths = all('h1', 'h2', 'h3');
    const found = await probeTunnels(paths, new Underlay(paths, { 'h1 h3': 0, 'h3 h2': 1350 }).ask, atOnce);
    expect(paths.map(({ from, to }, i) => `${from.id} ${to.id} ${JSON.stringify(found[i])}`)).toEqual([
      'h1 h2 {"largest":1500,"problem":""}',
      'h1 h3 {"largest":0,"problem":"no VXLAN frame gets through"}',
      'h2 h1 {"largest":1500,"problem":""}',
      'h2 h3 {"largest":1500,"problem":""}',
      'h3 h1 {"largest":1500,"problem":""}',
      'h3 h2 {"largest":1350,"problem":"black hole above 1350 bytes"}',
    ]);
  });

  test('one that cannot, or does not know the question, is named; the others go on', async () => {
    const paths = all('h1', 'h2', 'h3');
    const old = new WeftError('UNIMPLEMENTED', 'this agent does not know the question', { hint: 'upgrade the agent' });
    const found = await probeTunnels(paths, new Underlay(paths, {}, { h2: old }).ask, atOnce);
    expect(found.filter((one) => 'why' in one)).toHaveLength(4);
    expect(found[0]).toEqual({ why: expect.stringMatching(/^h2: this agent does not know the question/) });
    expect(found[1]).toEqual({ largest: 1500, problem: '' });
  });
});
