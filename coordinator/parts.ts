/** What the services of a coordinator are written against. */
import type { Log } from '../lib/log.ts';
import type { Blocks } from './blocks.ts';
import type { Claims } from './claims.ts';
import type { State, Store } from './contract.ts';
import type { Events } from './events.ts';
import type { Fanout } from './fanout.ts';
import type { Metrics } from './metrics.ts';
import type { Reservations } from './reservations.ts';
import type { Services } from './services.ts';
import type { Sessions } from './sessions.ts';
import type { Wire } from './wire.ts';

/** Compares etcd's keys with each other and repairs them; what it did, as drift. */
export interface Auditor {
  audit(heal: boolean): Promise<readonly import('../lib/model.ts').Drift[]>;
}

export interface Parts {
  readonly state: State;
  readonly store: Store;
  readonly auditor: Auditor | null;
  readonly self: { readonly id: string; readonly name: string; readonly version: string };
  readonly sessions: Sessions;
  readonly wire: Wire;
  readonly events: Events;
  readonly metrics: Metrics;
  readonly fanout: Fanout;
  readonly blocks: Blocks;
  readonly claims: Claims;
  readonly reservations: Reservations;
  readonly services: Services;
  readonly log: Log;
}
