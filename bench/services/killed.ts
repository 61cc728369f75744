/** How long new connections still go to a backend that is gone: its container killed, or the process in it. */
import { until } from '../../test/harness/lab.ts';
import { dockerCall } from '../../test/harness/prober.ts';
import { type BenchHost, whereIs } from '../docker.ts';
import { type Summary, summarize } from '../figures.ts';
import { type Call, Process, type To } from './process.ts';

/** A new connection so often, ms. */
const EVERY_MS = 10;
/** It gets nothing any more when it has got nothing for so long; a call takes a second to fail. */
const QUIET_MS = 2_500;

export interface Backend {
  readonly host: BenchHost;
  /** Of its container. */
  readonly id: string;
  readonly name: string;
}

export interface Killed {
  /** From the kill to the last connection that still went there, ms. */
  readonly container: Summary;
  readonly process: Summary;
}

export interface Round {
  /** Where the callers are: file of a network namespace. */
  readonly from: string;
  readonly to: To;
  readonly network: string;
  /** Port of the containers. */
  readonly target: number;
  readonly victim: Backend;
  readonly others: readonly Backend[];
  readonly rounds: number;
}

/** @throws when calls fail before anything was killed, or it does not come back */
export async function killed(plan: Round): Promise<Killed> {
  const { victim, others, network, target } = plan;
  await using stack = new AsyncDisposableStack();
  for (const b of others) stack.use(await serve(b, network, target));
  let server = await serve(victim, network, target);
  stack.defer(() => server[Symbol.asyncDispose]());
  const times: Record<keyof Killed, number[]> = { container: [], process: [] };
  for (let round = 0; round < plan.rounds; round++) {
    for (const what of ['process', 'container'] as const) {
      times[what].push(
        await once(plan, async () => {
          if (what === 'process') await server[Symbol.asyncDispose]();
          else await dockerCall(victim.host.socket, 'POST', `/containers/${victim.id}/kill`);
        }),
      );
      await server[Symbol.asyncDispose]();
      if (what === 'container') await dockerCall(victim.host.socket, 'POST', `/containers/${victim.id}/start`);
      server = await serve(victim, network, target);
    }
  }
  return { container: summarize(times.container), process: summarize(times.process) };
}

async function serve(b: Backend, network: string, port: number): Promise<Process> {
  const { pid } = await whereIs(b.host, b.id, network);
  return Process.serving(`/proc/${pid}/ns/net`, port, b.name);
}

/** @returns from the beginning of the kill until the last connection began that went to the victim or to nobody, ms */
async function once({ from, to, victim, others }: Round, kill: () => Promise<void>): Promise<number> {
  await using callers = Process.callers(from, to, EVERY_MS);
  const all = [victim, ...others].map((b) => b.name);
  await until('all of them answer', () =>
    Promise.resolve(all.every((name) => callers.calls.some((c) => c.by === name))),
  );
  await until('no call fails any more', () => Promise.resolve(calm(callers.calls)), 60_000);
  const at = Date.now();
  await kill();
  const hits = (): Call[] => callers.calls.filter((c) => c.at >= at && (c.by === null || c.by === victim.name));
  const last = (): number => Math.max(at, ...hits().map((c) => c.at));
  await until('it gets nothing more', () => Promise.resolve(Date.now() - last() > QUIET_MS), 60_000);
  return last() - at;
}

/** Who has just come back may be known to some hosts and not to others: of calls that are old enough to have failed, none of a second has. */
function calm(calls: readonly Call[]): boolean {
  const to = Date.now() - 1_200;
  const some = calls.filter((c) => c.at > to - 1_000 && c.at <= to);
  return some.length >= 20 && some.every((c) => c.by !== null);
}
