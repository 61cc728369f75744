/** One message in, one out: who asks, what is answered here, what is asked elsewhere. Knows no socket. */
import type { Clock } from '../../lib/clock.ts';
import type { Answered } from '../policies/name-table.ts';
import { type Answer, type Asker, answer, type Order } from './answer.ts';
import { answeredBy } from './answered.ts';
import { normalName } from './holders.ts';
import type { NameIndex } from './names.ts';
import { encodeReply, fitReply, type Head, parseQuery, type Query, type Rcode, type Transport } from './wire.ts';

export type Outcome =
  | 'answered'
  | 'empty'
  | 'nxdomain'
  | 'forwarded'
  | 'servfail'
  | 'refused'
  | 'formerr'
  | 'notimp'
  | 'badvers';

/**
 * "short", "response", "source" (port 0): messages that get no reply; "limit": more than is served at once; "size": a TCP message
 * too long.
 */
export type Drop = 'short' | 'response' | 'source' | 'limit' | 'size';

export interface DnsCounters {
  /** @param ms from the message's arrival to its reply */
  query(transport: Transport, outcome: Outcome, ms: number): void;
  dropped(transport: Transport, why: Drop): void;
}

export interface HandlerOptions {
  readonly index: () => NameIndex;
  /** @param source address that a message came from. @returns null: nobody who may ask. */
  readonly asker: (source: string) => Asker | null;
  /** @returns the reply, with the query's id; null: nobody answered, or too many are waiting. */
  readonly forward: (query: Buffer, source: string) => Promise<Buffer | null>;
  readonly order: Order;
  /**
   * Told of the addresses that are about to be answered. @param name lower case, without a dot at the end. @param own it is a name of
   * the mesh. @returns the answer waits for it; null: it goes at once
   */
  readonly learn?: (
    asker: Asker,
    name: string,
    answered: () => readonly Answered[],
    own: boolean,
  ) => Promise<void> | null;
  readonly counters: DnsCounters;
  readonly clock: Clock;
}

export type Handler = (message: Buffer, source: string, transport: Transport) => Buffer | null | Promise<Buffer | null>;

const OUTCOMES: Partial<Record<Rcode, Outcome>> = { FORMERR: 'formerr', NOTIMP: 'notimp', BADVERS: 'badvers' };

/** @returns a function that never throws or rejects; null: no reply. What is answered here is answered at once. */
export function makeHandler(o: HandlerOptions): Handler {
  return (message, source, transport) => {
    const since = o.clock.monotonic();
    const count = (outcome: Outcome): void => o.counters.query(transport, outcome, o.clock.monotonic() - since);
    const refuse = (head: Head, rcode: Rcode): Buffer => {
      const reply = encodeReply(head, rcode);
      count(OUTCOMES[rcode] ?? 'refused');
      return reply;
    };
    const parsed = parseQuery(message, transport);
    if (parsed.kind === 'drop') {
      o.counters.dropped(transport, parsed.why);
      return null;
    }
    if (parsed.kind === 'bad') return refuse(parsed.head, parsed.rcode);
    const { query } = parsed;
    const asker = o.asker(source);
    if (asker === null) return refuse(query, 'REFUSED');
    const told = answer(query, asker, o.index(), o.order);
    if (told.kind !== 'forward') {
      const reply = encodeAnswer(query, told);
      const ips = told.kind === 'addresses' ? told.ips.map((ip) => ({ ip, ttl: 0 })) : [];
      const counted = (): Buffer => {
        count(told.kind === 'empty' || told.kind === 'nxdomain' ? told.kind : 'answered');
        return reply;
      };
      const name = normalName(query.name);
      const learning = ips.length === 0 ? null : (o.learn?.(asker, name, () => ips, isOfMesh(name)) ?? null);
      return learning === null ? counted() : learning.then(() => counted());
    }
    return o
      .forward(message, source)
      .catch(() => null)
      .then(async (reply) => {
        const fitted = reply === null ? encodeReply(query, 'SERVFAIL') : fitReply(reply, query);
        if (reply !== null && asker.networks.length > 0 && o.learn !== undefined)
          await o.learn(asker, normalName(query.name), () => answeredBy(fitted), false);
        count(reply === null ? 'servfail' : 'forwarded');
        return fitted;
      });
  };
}

function encodeAnswer(query: Query, told: Exclude<Answer, { kind: 'forward' }>): Buffer {
  switch (told.kind) {
    case 'addresses':
      return encodeReply(query, 'NOERROR', { addresses: told.ips });
    case 'pointers':
      return encodeReply(query, 'NOERROR', { pointers: told.names });
    case 'targets':
      return encodeReply(query, 'NOERROR', { targets: told.targets });
    case 'empty':
      return encodeReply(query, 'NOERROR', { zone: told.zone });
    case 'nxdomain':
      return encodeReply(query, 'NXDOMAIN', { zone: told.zone });
  }
}

/** Anybody may call a container like a name of the world (an alias with dots): what that is answered with is taken for the world's. */
const isOfMesh = (name: string): boolean => !name.includes('.') || name.endsWith('.weft');
