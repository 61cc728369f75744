/**
 * The host's VTEP. At boot its interface may come later than the agent: it is waited for. After that, a host that had it the last time
 * goes on with what it had, so that Docker, which waits for the agent, is not kept from starting containers; status tells.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import type { HostInterface } from './links.ts';
import { chooseUnderlay, type Underlay } from './underlay.ts';

const WAIT_MS = 30_000;
const LOOK_MS = 500;

export interface Wanted {
  readonly vtep?: string | undefined;
  readonly on?: string | undefined;
}

export interface OwnOptions {
  readonly look: () => Promise<readonly HostInterface[]>;
  /** Where the last answer is kept. */
  readonly file: string;
  readonly log: Log;
  readonly waitMs?: number;
}

/**
 * @returns `problem`: empty, or that the host does not have it (now).
 * @throws FAILED_PRECONDITION naming what there is, when the host has no such address and had none the last time.
 */
export async function ownUnderlay(wanted: Wanted, o: OwnOptions): Promise<Underlay & { problem: string }> {
  const deadline = performance.now() + (o.waitMs ?? WAIT_MS);
  for (let first = true; ; first = false) {
    try {
      const found = chooseUnderlay(wanted, await o.look());
      await keep(o.file, wanted, found);
      return { ...found, problem: '' };
    } catch (error) {
      const failure = WeftError.from(error);
      if (failure.code !== 'FAILED_PRECONDITION') throw error;
      if (performance.now() < deadline) {
        if (first) o.log.warn({ reason: failure.message }, 'waits for its address on the underlay');
        await pause(LOOK_MS);
        continue;
      }
      const last = await kept(o.file, wanted);
      if (last === null) throw error;
      o.log.error({ reason: failure.message, vtep: last.vtep }, 'goes on with the address of the last time');
      return { ...last, problem: failure.message };
    }
  }
}

/** What is to be said of the VTEP that the agent has started with, as the host is now; empty = it is right. */
export function vtepProblem(wanted: Wanted, vtep: string, interfaces: readonly HostInterface[]): string {
  try {
    const now = chooseUnderlay(wanted, interfaces);
    if (now.vtep === vtep || interfaces.some((i) => i.addresses.some((a) => a.address === vtep))) return '';
    return `The VTEP of this host is ${now.vtep} on ${now.interface} now; its agent still uses ${vtep}: restart the agent.`;
  } catch (error) {
    return `${WeftError.from(error).message} Other hosts do not reach its containers.`;
  }
}

async function kept(file: string, wanted: Wanted): Promise<Underlay | null> {
  try {
    const { for: of, underlay } = JSON.parse(await readFile(file, 'utf8')) as { for: unknown; underlay: Underlay };
    return isDeepStrictEqual(of, questionOf(wanted)) ? underlay : null;
  } catch {
    return null; // none was ever found
  }
}

async function keep(file: string, wanted: Wanted, underlay: Underlay): Promise<void> {
  await writeFile(`${file}.tmp`, `${JSON.stringify({ for: questionOf(wanted), underlay })}\n`, { mode: 0o600 });
  await rename(`${file}.tmp`, file);
}

const questionOf = ({ vtep, on }: Wanted): Wanted => (vtep === undefined ? { on } : { vtep });
