/** Waiting until hosts have applied a revision: driven by acknowledgements, bounded by a deadline, the laggards named. */
import { ControlService, type Laggard } from '../gen/weft/v1/control.ts';
import { ReplicaService } from '../gen/weft/v1/replica.ts';
import { WeftError } from '../lib/errors.ts';
import type { Presence, State } from './contract.ts';
import type { Fanout } from './fanout.ts';
import { peersOf } from './reach.ts';
import type { Sessions, Slot } from './sessions.ts';

export interface WaitDeps {
  readonly state: State;
  readonly sessions: Sessions;
  readonly fanout: Fanout;
  readonly selfId: string;
}

export interface Target {
  readonly revision: bigint;
  /** Only hosts with an interest in it; null = all. */
  readonly networkId: string | null;
  readonly except: ReadonlySet<string>;
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

const MARGIN_MS = 1000;

/** A host that has not been welcomed yet counts: its interest is not known. */
const concerned = (slot: Slot, target: Target): boolean =>
  !target.except.has(slot.hostId) &&
  (target.networkId === null || slot.session === null || slot.session.interestedIn(target.networkId));

const done = (slot: Slot, revision: bigint): boolean => slot.session !== null && slot.session.applied >= revision;

/** Waits for the hosts of this coordinator; returns those that had not applied it in time. */
export async function waitLocal(
  sessions: Sessions,
  target: Target,
  skip: (slot: Slot) => boolean = () => false,
): Promise<Slot[]> {
  const pending = new Set<string>();
  for (const slot of sessions.present())
    if (concerned(slot, target) && !skip(slot) && !done(slot, target.revision)) pending.add(slot.hostId);
  if (pending.size > 0 && !target.signal.aborted)
    await new Promise<void>((resolve) => {
      const finish = (): void => {
        clearTimeout(timer);
        target.signal.removeEventListener('abort', finish);
        stop();
        resolve();
      };
      const stop = sessions.onProgress((hostId) => {
        if (!pending.has(hostId)) return;
        const slot = sessions.slot(hostId);
        if (slot !== undefined && concerned(slot, target) && !done(slot, target.revision)) return;
        pending.delete(hostId);
        if (pending.size === 0) finish();
      });
      const timer = setTimeout(finish, target.timeoutMs);
      target.signal.addEventListener('abort', finish);
    });
  return [...pending].flatMap((hostId) => sessions.slot(hostId) ?? []);
}

/** WaitApplied of control.proto. */
export async function waitApplied(deps: WaitDeps, target: Target, localOnly: boolean): Promise<Laggard[]> {
  const { state, sessions, fanout, selfId } = deps;
  const deadline = performance.now() + target.timeoutMs;
  const left = (): number => Math.max(0, deadline - performance.now());
  const known = await reached(deps, target);
  if (known !== null) return presences(deps, target).map((p) => laggard(deps, p.hostId, known));
  for (;;) {
    const now: Target = { ...target, timeoutMs: left() };
    const asked = new Set([selfId]);
    const unreached: Laggard[] = [];
    const remote = localOnly ? [] : fanout.others();
    const [local, ...rest] = await Promise.all([
      waitLocal(sessions, now).then((slots) => slots.map((slot) => laggardOf(slot, target))),
      ...remote.map(async (record) => {
        try {
          const request = {
            revision: { epoch: state.epoch, number: target.revision },
            network: target.networkId ?? '',
            project: '',
            timeoutMs: Math.ceil(left()),
            localOnly: true,
            exceptHostIds: [...target.except],
          };
          const settings = { timeoutMs: left() + MARGIN_MS, signal: target.signal };
          const response = await fanout.call(record, ControlService.waitApplied, request, settings);
          asked.add(record.id);
          return response.laggards;
        } catch (error) {
          for (const { hostId, coordinatorId } of presences(deps, target))
            if (coordinatorId === record.id) unreached.push(laggard(deps, hostId, WeftError.from(error).message));
          return [];
        }
      }),
    ]);
    const laggards = [...local, ...rest.flat()];
    if (localOnly) return laggards;
    for (const { hostId, coordinatorId } of presences(deps, target))
      if (!asked.has(coordinatorId) && !state.coordinators.has(coordinatorId))
        unreached.push(laggard(deps, hostId, 'its coordinator is gone, and it has not connected to another one yet'));
    if (laggards.length > 0 || unreached.length === 0 || left() === 0 || target.signal.aborted)
      return [...laggards, ...unreached];
    await placesChange(state, left(), target.signal);
  }
}

/** WaitPeers of session.proto, for hosts of this coordinator: names of laggards. Who misses the bound is not waited for again. */
export async function waitInterested(deps: WaitDeps, target: Target): Promise<string[]> {
  const { sessions } = deps;
  const names = new Set<string>();
  const slow = (slot: Slot): boolean => slot.session?.slow === true;
  const deadline = performance.now() + target.timeoutMs;
  const known = await reached(deps, target);
  const now = { ...target, timeoutMs: Math.max(0, deadline - performance.now()) };
  if (known === null)
    for (const slot of await waitLocal(sessions, now, slow)) if (slot.session !== null) slot.session.slow = true;
  for (const slot of sessions.present())
    if (slot.session !== null && concerned(slot, target) && slow(slot) && !done(slot, target.revision))
      names.add(slot.session.host.name);
  return [...names];
}

/** WaitPeers for the hosts of every coordinator. */
export async function waitPeers(deps: WaitDeps, target: Target, networkId: string): Promise<string[]> {
  const { state, fanout } = deps;
  const others = fanout
    .others()
    .filter((record) => [...state.presences.values()].some((p) => p.coordinatorId === record.id));
  const deadline = performance.now() + target.timeoutMs;
  const parts = await Promise.all([
    waitInterested(deps, target),
    ...others.map(async (record) => {
      const timeoutMs = Math.max(0, Math.ceil(deadline - performance.now()));
      const request = {
        networkId,
        revision: { epoch: state.epoch, number: target.revision },
        timeoutMs,
        exceptHostIds: [...target.except],
      };
      try {
        const settings = { timeoutMs: timeoutMs + MARGIN_MS, signal: target.signal };
        return (await fanout.call(record, ReplicaService.waitInterested, request, settings)).laggards;
      } catch {
        // Whose interest is not known here: peers have one.
        const peers = peersOf(state, networkId);
        return presences(deps, target)
          .filter((p) => p.coordinatorId === record.id && peers.has(p.hostId))
          .map((p) => state.hosts.get(p.hostId)?.name ?? p.hostId);
      }
    }),
  ]);
  return [...new Set(parts.flat())].sort();
}

/** Null once this coordinator knows the revision; else why not. */
async function reached(deps: WaitDeps, target: Target): Promise<string | null> {
  const { state } = deps;
  if (state.revision >= target.revision) return null;
  try {
    const timeout = AbortSignal.timeout(Math.max(1, Math.ceil(target.timeoutMs)));
    await state.reached(target.revision, AbortSignal.any([timeout, target.signal]));
    return null;
  } catch {
    return `its coordinator knows only revision ${state.revision}`;
  }
}

/** Connected hosts, wherever. */
const presences = (deps: WaitDeps, target: Target): Presence[] =>
  [...deps.state.presences.values()].filter((presence) => !target.except.has(presence.hostId));

function laggardOf(slot: Slot, target: Target): Laggard {
  const session = slot.session;
  if (session === null) return { host: slot.hostId, appliedRevision: undefined, reason: 'its session has only begun' };
  const reason =
    session.failure !== ''
      ? session.failure
      : session.inSync
        ? `it has not acknowledged revision ${target.revision}`
        : 'it is not in sync yet';
  return {
    host: session.host.name,
    appliedRevision: { epoch: session.epoch, number: session.inSync ? session.applied : session.acked },
    reason,
  };
}

const laggard = (deps: WaitDeps, hostId: string, reason: string): Laggard => ({
  host: deps.state.hosts.get(hostId)?.name ?? hostId,
  appliedRevision: undefined,
  reason,
});

/** A host or a coordinator came, moved or went; or the time is over. */
function placesChange(state: State, timeoutMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const finish = (): void => {
      clearTimeout(timer);
      stop();
      signal.removeEventListener('abort', finish);
      resolve();
    };
    const timer = setTimeout(finish, timeoutMs);
    const stop = state.subscribe((set) => {
      if (set.reset || set.changes.some((c) => c.kind === 'presence' || c.kind === 'coordinator')) finish();
    });
    signal.addEventListener('abort', finish);
  });
}
