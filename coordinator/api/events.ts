/** Control: events. What only another replica knows (drift, conflicts of its hosts) is asked of it and woven in. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { ControlService } from '../../gen/weft/v1/control.ts';
import { Event as EventMessage } from '../../gen/weft/v1/types.ts';
import type { Event } from '../../lib/model.ts';
import { requireIdentity, serverStream } from '../../lib/rpc.ts';
import type { CoordinatorRecord } from '../contract.ts';
import { EVENT_LIMIT } from '../events.ts';
import type { Parts } from '../parts.ts';

const RETRY_MS = 1000;
/** A replica that hangs must not hold the rest up. */
const ASK_MS = 3000;

export function eventMethods(parts: Parts): Pick<ControlServer, 'watchEvents'> {
  const { events, fanout, state, log } = parts;

  async function* remembered(localOnly: boolean, signal: AbortSignal): AsyncGenerator<Event> {
    const found: Event[] = [];
    for await (const event of events.read({ localOnly, follow: false, signal })) found.push(event);
    if (!localOnly)
      await Promise.all(
        fanout.others().map(async (record) => {
          try {
            const request = { localOnly: true, follow: false };
            const until = AbortSignal.any([signal, AbortSignal.timeout(ASK_MS)]);
            for await (const event of fanout.stream(record, ControlService.watchEvents, request, until))
              found.push(event);
          } catch (error) {
            log.info({ err: error, coordinator: record.name }, 'events of another coordinator are missing');
          }
        }),
      );
    yield* found.sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0));
  }

  /** Feeds one stream from this ring and from every other replica, as they come and go. */
  async function* followed(localOnly: boolean, signal: AbortSignal): AsyncGenerator<Event> {
    if (localOnly) return yield* events.read({ localOnly, follow: true, signal });
    const inbox = new Inbox(signal);
    const others = new Map<string, AbortController>();
    const look = (): void => {
      for (const record of fanout.others()) {
        if (others.has(record.id)) continue;
        const stop = new AbortController();
        others.set(record.id, stop);
        void follow(record, AbortSignal.any([signal, stop.signal]));
      }
      for (const [id, stop] of others)
        if (!state.coordinators.has(id)) {
          others.delete(id);
          stop.abort();
        }
    };
    const follow = async (record: CoordinatorRecord, until: AbortSignal): Promise<void> => {
      const request = { localOnly: true, follow: true };
      // After an interruption it tells what it remembers once more.
      const seen = new Set<string>();
      while (!until.aborted) {
        try {
          for await (const event of fanout.stream(record, ControlService.watchEvents, request, until)) {
            const text = JSON.stringify(EventMessage.toJSON(event));
            if (seen.has(text)) continue;
            seen.add(text);
            if (seen.size > EVENT_LIMIT) seen.delete(seen.values().next().value ?? '');
            await inbox.put(event);
          }
        } catch (error) {
          log.debug({ err: error, coordinator: record.name }, 'events of another coordinator are interrupted');
        }
        await pause(RETRY_MS, until);
      }
    };
    const own = async (): Promise<void> => {
      for await (const event of events.read({ localOnly: false, follow: true, signal })) await inbox.put(event);
    };
    const unsubscribe = state.subscribe((set) => {
      if (set.reset || set.changes.some((change) => change.kind === 'coordinator')) look();
    });
    signal.addEventListener('abort', unsubscribe, { once: true });
    void own();
    look();
    yield* inbox;
  }

  return {
    watchEvents: serverStream((call, signal) => {
      requireIdentity(call, 'user', 'coordinator');
      const { localOnly, follow } = call.request;
      return follow ? followed(localOnly, signal) : remembered(localOnly, signal);
    }, log),
  };
}

/** Several writers, one reader: a writer waits until its event has been taken, so nothing piles up. */
class Inbox {
  readonly #signal: AbortSignal;
  readonly #waiting: { readonly event: Event; readonly taken: () => void }[] = [];
  #wake: () => void = () => {};

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    signal.addEventListener('abort', () => {
      for (const { taken } of this.#waiting.splice(0)) taken();
      this.#wake();
    });
  }

  put(event: Event): Promise<void> {
    if (this.#signal.aborted) return Promise.resolve();
    return new Promise((taken) => {
      this.#waiting.push({ event, taken });
      this.#wake();
    });
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Event> {
    while (!this.#signal.aborted) {
      const next = this.#waiting.shift();
      if (next !== undefined) {
        next.taken();
        yield next.event;
        continue;
      }
      await new Promise<void>((wake) => {
        this.#wake = wake;
      });
    }
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done, { once: true });
  });
}
