/** One Connect stream: Hello is checked and stored, the Welcome answered, then the host is listened to until either side ends it. */
import { randomBytes } from 'node:crypto';
import type { ServerDuplexStream } from '@grpc/grpc-js';
import type { AgentMessage, CoordinatorMessage, Hello } from '../gen/weft/v1/session.ts';
import { WeftError } from '../lib/errors.ts';
import type { Host } from '../lib/model.ts';
import { Holdings } from './holdings.ts';
import { notIts } from './owners.ts';
import { Session } from './session.ts';
import { type Sessions, type Slot, withClusterSide } from './sessions.ts';
import { Turns } from './turns.ts';

export const PROTOCOL = 1;
/** How long a fresh connection may take to say Hello, and a coordinator to catch up with what a host has seen. */
const HELLO_MS = 10_000;
const CATCH_UP_MS = 3000;

export type AgentStream = ServerDuplexStream<AgentMessage, CoordinatorMessage>;

/**
 * Serves one stream; resolves when the agent ends it, rejects with the reason why the coordinator does.
 * @param gone aborts when the agent has gone
 */
export async function serve(call: AgentStream, gone: AbortSignal, hostId: string, sessions: Sessions): Promise<void> {
  const ended = Promise.withResolvers<never>();
  ended.promise.catch(() => {});
  const { deps } = sessions;
  const log = deps.log.child({ host: hostId });
  const slot: Slot = {
    sessionId: randomBytes(8).toString('hex'),
    hostId,
    holdings: new Holdings({
      state: deps.state,
      store: deps.store,
      hostId,
      etcdKey: deps.etcdKey,
      drifted: (drift, detectedAt, healedAt) =>
        sessions.drifted(slot.session?.host.name ?? hostId, drift, detectedAt, healedAt),
      heal: deps.heal,
      graceMs: deps.graceMs,
      failed: (error) => log.error({ err: error }, 'keys of a host cannot be put back'),
    }),
    hostWrites: new Turns(),
    session: null,
    present: false,
    end(reason) {
      ended.reject(reason);
      slot.session?.end(reason);
    },
  };
  const leave = Promise.withResolvers<void>();
  call.on('end', () => leave.resolve());
  gone.addEventListener('abort', () => slot.end(new WeftError('CANCELLED', 'The agent has gone.')), { once: true });
  if (gone.aborted) slot.end(new WeftError('CANCELLED', 'The agent has gone.'));
  const hello = Promise.withResolvers<Hello>();
  hello.promise.catch(() => {});
  const timer = setTimeout(() => hello.reject(new WeftError('DEADLINE_EXCEEDED', 'No Hello came.')), HELLO_MS);
  call.on('data', (message: AgentMessage) => {
    if (message.body?.$case === 'hello') hello.resolve(message.body.value);
    else if (slot.session === null) hello.reject(new WeftError('INVALID_ARGUMENT', 'The first message must be Hello.'));
    else receive(message, slot, slot.session, sessions);
  });
  try {
    const first = await Promise.race([hello.promise, ended.promise]);
    sessions.open(slot);
    await Promise.race([greet(call, first, slot, sessions), ended.promise]);
    await Promise.race([leave.promise, ended.promise]);
  } catch (error) {
    log.info({ session: slot.sessionId, reason: WeftError.from(error).message }, 'session ended');
    throw error;
  } finally {
    clearTimeout(timer);
    slot.end(new WeftError('CANCELLED', 'The agent has ended the session.'));
    sessions.close(slot);
    if (slot.present)
      deps.store.deletePresence(hostId, slot.sessionId).catch((error: unknown) => {
        log.warn({ err: error }, 'presence not deleted; its lease will');
      });
  }
}

async function greet(call: AgentStream, hello: Hello, slot: Slot, sessions: Sessions): Promise<void> {
  const { deps } = sessions;
  const { state, store, self } = deps;
  const { hostId } = slot;
  const superseded = (): void => {
    if (!sessions.isCurrent(slot)) throw new WeftError('ABORTED', 'The host has opened a newer session.');
  };
  if (hello.protocol !== PROTOCOL)
    throw new WeftError(
      'FAILED_PRECONDITION',
      `The agent speaks protocol ${hello.protocol}, this coordinator ${PROTOCOL}.`,
      {
        hint: 'install the same version of Weft on both',
      },
    );
  const own = checkedHost(hello.host, hostId);
  await checkNotRestored(hello, sessions);
  superseded();
  const named = state.hostByName(own.name);
  if (named !== undefined && named.id !== hostId)
    throw new WeftError('ALREADY_EXISTS', `The name ${own.name} belongs to another host (id ${named.id}).`, {
      hint: `set another name in agent.yaml, or remove the other one with "weft host rm ${own.name}"`,
    });
  const known = state.hosts.get(hostId);
  const host = withClusterSide(own, known ?? { ...own, draining: false, createdAt: new Date().toISOString() });
  await store.putHost(host);
  superseded();
  const strange = new Map(hello.endpoints.map((endpoint) => [endpoint.id, notIts(state, hostId, endpoint)]));
  const endpoints = hello.endpoints
    .filter((endpoint) => strange.get(endpoint.id) === null)
    .map((endpoint) => ({ ...endpoint, hostId }));
  const blocks = hello.blocks.map((block) => ({ ...block, hostId }));
  const addresses = hello.addresses.map((address) => ({ ...address, hostId }));
  const replaced = await store.replaceHoldings(hostId, { endpoints, blocks, addresses });
  const refused = [...replaced.refused, ...[...strange.values()].filter((sentence) => sentence !== null)];
  superseded();
  slot.present = true;
  await store.putPresence(hostId, slot.sessionId);
  superseded();
  slot.holdings.remember();
  for (const message of refused) {
    deps.log.warn({ host: host.name, message }, 'a holding of the host is not accepted');
    deps.events.add({ type: 'conflict', host: host.name, message });
  }
  const acked = hello.applied?.epoch === state.epoch ? hello.applied.number : 0n;
  const session = new Session(slot.sessionId, state.hosts.get(hostId) ?? host, acked, call, {
    topics: deps.topics,
    wire: deps.wire,
    revision: () => state.revision,
    epoch: state.epoch,
    sent: deps.metrics.sent,
    progressed: () => sessions.progressed(hostId),
  });
  session.refused = refused;
  call.on('drain', () => session.drained());
  slot.session = session;
  deps.log.info({ host: host.name, session: session.id, interest: hello.interest.length }, 'session begins');
  session.start(
    {
      sessionId: session.id,
      epoch: state.epoch,
      coordinator: self.name,
      clusterId: state.clusterId,
      vxlanPort: deps.vxlanPort,
      host: session.host,
    },
    hello.interest,
  );
  sessions.welcomed(slot);
}

function checkedHost(host: Host | undefined, hostId: string): Host {
  if (host === undefined || !/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/.test(host.name))
    throw new WeftError('INVALID_ARGUMENT', `"${host?.name ?? ''}" cannot be the name of a host.`, {
      hint: 'set a name of letters, digits, "_", "." and "-" in agent.yaml',
    });
  return { ...host, id: hostId };
}

/** A host that has seen more than etcd has, met an etcd that lost revisions: what it says would be taken for news. */
async function checkNotRestored(hello: Hello, sessions: Sessions): Promise<void> {
  const { state } = sessions.deps;
  const applied = hello.applied;
  if (applied === undefined || applied.epoch === 0n || applied.epoch < state.epoch) return;
  if (applied.epoch === state.epoch) {
    if (applied.number <= state.revision) return;
    try {
      await state.reached(applied.number, AbortSignal.timeout(CATCH_UP_MS));
      return;
    } catch {
      // Judged below.
    }
  }
  if ((await sessions.deps.restored?.(applied)) === true) return;
  if (applied.epoch === state.epoch && applied.number <= state.revision) return;
  throw new WeftError(
    'FAILED_PRECONDITION',
    `The host has applied revision ${applied.number} of epoch ${applied.epoch}; this coordinator knows only revision ${state.revision} of epoch ${state.epoch}.`,
    { hint: 'either etcd was restored from a backup, or this coordinator is cut off from etcd: see its log' },
  );
}

function receive(message: AgentMessage, slot: Slot, session: Session, sessions: Sessions): void {
  const body = message.body;
  const { deps } = sessions;
  switch (body?.$case) {
    case 'ack':
      return session.ack(body.value);
    case 'answer':
      return session.answer(body.value);
    case 'interest':
      return session.setInterest(body.value.networkId, body.value.interested);
    case 'event': {
      const { kind, type } = body.value;
      if (type === 'drift') deps.metrics.drift(kind);
      deps.events.add({ ...body.value, host: session.host.name });
      return;
    }
    case 'report': {
      const { conflicts, host } = body.value;
      for (const conflict of conflicts)
        if (!session.conflicts.some((c) => c.network === conflict.network && c.message === conflict.message))
          deps.events.add({
            type: 'conflict',
            host: session.host.name,
            object: conflict.network,
            message: conflict.message,
          });
      session.conflicts = conflicts.map((conflict) => ({ ...conflict, host: session.host.name }));
      if (host !== undefined) sessions.reported(slot, { ...host, id: slot.hostId });
      return;
    }
    case 'hello':
    case undefined:
      return;
  }
}
