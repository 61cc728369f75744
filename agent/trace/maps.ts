/** What the evaluation of the eBPF side (express.ts, served.ts) reads, and what it says. */
import type { TraceHop, TracePacket } from '../../lib/model.ts';
import { describeKey, describeValue } from '../bpf/describe.ts';
import type { MapName } from '../bpf/encode.ts';

export interface Maps {
  /** Null: it is not there. Keys and values as in encode.ts. */
  lookup(map: string, key: string): Promise<string | null>;
  /** Of the host. */
  readonly host: string;
  /** Name of a link by its number, with whose it is. */
  link(ifindex: number): string;
  /** Name of a network by its local index. */
  network(index: number): string;
}

export type Next =
  | { readonly kind: 'bridge' }
  | { readonly kind: 'dropped'; readonly reason: string }
  /** ifindex of the endpoint's link (wft…). */
  | { readonly kind: 'here'; readonly ifindex: number }
  | { readonly kind: 'tunnel'; readonly vtep: string; readonly device: number; readonly key: number }
  /** Back by the link that it came by. */
  | { readonly kind: 'back' }
  /** To the host's own end of its link: an answer for who came in by a published port. */
  | { readonly kind: 'host' };

export interface Step {
  readonly hops: readonly TraceHop[];
  readonly packet: TracePacket;
  readonly next: Next;
}

export const hop = (m: Pick<Maps, 'host'>, stage: string, what: string, detail = ''): TraceHop => ({
  host: m.host,
  engine: 'express',
  stage,
  table: undefined,
  what,
  detail,
});

/** An entry as `weft audit` writes it. */
export const entryText = (map: MapName, key: string, value: string): string =>
  `${describeKey(map, key)} = ${describeValue(map, value)}`;
