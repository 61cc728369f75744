/**
 * Sizes that get through tunnels, one way each: hosts send VXLAN frames to each other and say what has come. What to try is
 * coordinator/tunnel-sizes.ts's to say.
 */
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { Answer, ProbeTunnelAnswer, Query, TunnelProbe, TunnelSizes } from '../../gen/weft/v1/session.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Host } from '../../lib/model.ts';
import { begin, learn, nextSizes, outcome, type Search } from '../tunnel-sizes.ts';

/** From host to host, over the address of a VTEP of the second. */
export interface TunnelPath {
  readonly from: Host;
  readonly to: Host;
  readonly vtep: string;
  /** Largest size worth trying, bytes. */
  readonly largest: number;
}

/** What was found, or why it could not be tried. */
export type TunnelFound = { readonly largest: number; readonly problem: string } | { readonly why: string };

/** @throws what the host or the way to it says */
export type Ask = (hostId: string, body: NonNullable<Query['body']>, timeoutMs: number) => Promise<Answer>;

const ASK_MS = 6_000;
/** For what is still on its way when the senders say that they have sent. */
const SETTLE_MS = 300;
/** Four are enough for 65,535 bytes. */
const ROUNDS = 6;

/** In the order of the paths. Never rejects. @param settle waits for what is under way */
export async function probeTunnels(
  paths: readonly TunnelPath[],
  ask: Ask,
  settle: () => Promise<unknown> = () => pause(SETTLE_MS),
): Promise<TunnelFound[]> {
  const run = randomBytes(8).toString('hex');
  const hosts = new Map(paths.flatMap(({ from, to }) => [from, to]).map((host) => [host.id, host]));
  const unable = new Map<string, string>();
  const searches: Search[] = paths.map(({ largest }) => begin(largest));

  /** Asks hosts at once. @returns answers of those that gave one */
  const round = async (probes: ReadonlyMap<string, TunnelProbe[]>): Promise<Map<string, ProbeTunnelAnswer>> => {
    const answers = new Map<string, ProbeTunnelAnswer>();
    const one = async (id: string, sends: TunnelProbe[]): Promise<void> => {
      const query = { $case: 'probeTunnel', value: { run, probes: sends } } as const;
      const { body } = await ask(id, query, ASK_MS);
      if (body?.$case !== 'probeTunnel') throw new WeftError('UNIMPLEMENTED', 'its agent does not answer');
      answers.set(id, body.value);
    };
    await Promise.all(
      [...probes].map(([id, sends]) =>
        one(id, sends).catch((error: unknown) => {
          unable.set(id, `${hosts.get(id)?.name ?? id}: ${WeftError.from(error).details}`);
        }),
      ),
    );
    return answers;
  };
  const able = (): string[] => [...hosts.keys()].filter((id) => !unable.has(id));
  const nothing = (ids: readonly string[]): Map<string, TunnelProbe[]> => new Map(ids.map((id) => [id, []]));

  // Everybody listens before anybody sends.
  await round(nothing([...hosts.keys()]));
  for (let n = 0; n < ROUNDS; n++) {
    const tries = paths.flatMap((path, number) => {
      const sizes = unable.has(path.from.id) || unable.has(path.to.id) ? [] : nextSizes(searches[number]!);
      return sizes.length === 0 ? [] : [{ ...path, number, sizes }];
    });
    if (tries.length === 0) break;
    const byHost = Map.groupBy(tries, ({ from }) => from.id);
    const sent = await round(
      new Map(
        [...byHost].map(([id, all]) => [id, all.map(({ number, vtep, sizes }) => ({ path: number, vtep, sizes }))]),
      ),
    );
    await settle();
    const heard = await round(nothing(able()));
    for (const { number, from, to, sizes } of tries) {
      const [there, here] = [heard.get(to.id), sent.get(from.id)];
      if (there === undefined || here === undefined) continue;
      searches[number] = learn(searches[number]!, sizes, sizesOf(there.heard, number), sizesOf(here.refused, number));
    }
  }
  return paths.map(({ from, to, largest }, number) => {
    const why = unable.get(from.id) ?? unable.get(to.id);
    return why === undefined ? outcome(searches[number]!, largest) : { why };
  });
}

const sizesOf = (all: readonly TunnelSizes[], path: number): ReadonlySet<number> =>
  new Set(all.filter((one) => one.path === path).flatMap((one) => one.sizes));
