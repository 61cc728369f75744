/**
 * What happened, for `weft events`: a bounded ring and its followers. Events of networks, hosts and endpoints are read off the
 * change sets, so every replica has all of those; drift and conflicts are known only where the host's session is ("local").
 */
import { endpointName } from '../lib/endpoint-name.ts';
import type { Endpoint, Event } from '../lib/model.ts';
import type { Change, ChangeSet, State } from './contract.ts';
import { nameConflict } from './reservation-conflicts.ts';

export const EVENT_LIMIT = 1000;

interface Entry {
  readonly event: Event;
  readonly local: boolean;
}

export class Events {
  readonly #state: State;
  readonly #now: () => Date;
  readonly #limit: number;
  #ring: Entry[] = [];
  /** Number of entries ever dropped: entry i of the ring has number #dropped + i. */
  #dropped = 0;
  readonly #waiters = new Set<() => void>();

  constructor(state: State, now: () => Date, limit = EVENT_LIMIT) {
    this.#state = state;
    this.#now = now;
    this.#limit = limit;
  }

  /** Something that only this coordinator knows (drift, conflict). */
  add(event: Partial<Event> & { readonly type: string }): void {
    this.#push(event, true);
  }

  apply(set: ChangeSet): void {
    if (set.reset) return;
    for (const change of set.changes) {
      const revision = { epoch: this.#state.epoch, number: set.revision };
      const event = this.#describe(change, set);
      if (event !== null) this.#push({ ...event, revision }, false);
      for (const conflict of this.#conflicts(change)) this.#push({ ...conflict, revision }, false);
    }
  }

  /**
   * Remembered events, then those that come. A reader that is slower than the ring loses the oldest.
   * @param localOnly only what other replicas cannot know themselves
   */
  async *read(options: { localOnly: boolean; follow: boolean; signal: AbortSignal }): AsyncGenerator<Event> {
    let next = this.#dropped;
    while (!options.signal.aborted) {
      next = Math.max(next, this.#dropped);
      const entry = this.#ring[next - this.#dropped];
      if (entry === undefined) {
        if (!options.follow) return;
        await this.#more(options.signal);
        continue;
      }
      next++;
      if (!options.localOnly || entry.local) yield entry.event;
    }
  }

  #more(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#waiters.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#waiters.add(done);
      signal.addEventListener('abort', done);
    });
  }

  #push(event: Partial<Event> & { readonly type: string }, local: boolean): void {
    const time = this.#now().toISOString();
    const blank = { host: '', action: '', kind: '', object: '', detectedAt: '', healedAt: '', message: '' };
    this.#ring.push({ event: { ...blank, revision: undefined, ...event, time: event.time || time }, local });
    if (this.#ring.length > this.#limit) {
      this.#ring.shift();
      this.#dropped++;
    }
    for (const wake of this.#waiters) wake();
  }

  /** Names that have come to be a reservation's, without its address. */
  #conflicts(change: Change): (Partial<Event> & { readonly type: string })[] {
    const found = (endpoint: Endpoint) => {
      const message = nameConflict(this.#state, endpoint);
      const object = this.#state.networks.get(endpoint.networkId)?.name ?? endpoint.networkId;
      return message === null ? [] : [{ type: 'conflict', host: this.#hostName(endpoint.hostId), object, message }];
    };
    if (change.kind === 'endpoint' && change.after !== null) {
      const { before, after } = change;
      return before !== null && endpointName(before) === endpointName(after) ? [] : found(after);
    }
    if (change.kind === 'reservation' && change.before === null)
      return [...(this.#state.endpoints.get(change.networkId)?.values() ?? [])]
        .filter((endpoint) => endpointName(endpoint) === change.name)
        .flatMap(found);
    return [];
  }

  #hostName(id: string): string {
    return this.#state.hosts.get(id)?.name ?? id;
  }

  /** Also of a network that went with the same change. */
  #networkName(id: string, set: ChangeSet): string {
    const gone = set.changes.find((c) => c.kind === 'network' && c.id === id);
    const network = this.#state.networks.get(id) ?? (gone?.kind === 'network' ? gone.before : null);
    return network?.name ?? id;
  }

  #describe(change: Change, set: ChangeSet): (Partial<Event> & { readonly type: string }) | null {
    const action =
      'before' in change && change.before === null ? 'create' : change.after === null ? 'remove' : 'update';
    switch (change.kind) {
      case 'network': {
        const network = change.after ?? change.before;
        // A reservation is no network yet: it appears when it gets its name.
        if (network === null || network.name === '') return null;
        const bound = change.before !== null && change.before.name === '' && change.after !== null;
        return { type: 'network', action: bound ? 'create' : action, object: network.name };
      }
      case 'host': {
        if (action === 'update') {
          if (change.before?.draining === change.after?.draining) return null;
          const draining = change.after?.draining === true;
          return {
            type: 'host',
            action,
            host: change.after?.name ?? '',
            message: draining ? 'draining' : 'not draining',
          };
        }
        return { type: 'host', action, host: (change.after ?? change.before)?.name ?? change.id };
      }
      case 'endpoint': {
        if (action === 'update' && change.before?.state === change.after?.state) return null;
        const endpoint = change.after ?? change.before;
        if (endpoint === null) return null;
        return {
          type: 'endpoint',
          action,
          host: this.#hostName(endpoint.hostId),
          object: endpointName(endpoint) || endpoint.id.slice(0, 12),
          message: `${endpoint.ips.join(', ')} on ${this.#networkName(change.networkId, set)}`,
        };
      }
      case 'presence': {
        if (change.before !== null && change.after !== null) return null;
        const name = this.#hostName(change.hostId);
        return { type: 'host', action: change.after === null ? 'disconnect' : 'connect', host: name, object: name };
      }
      case 'external': {
        const peer = change.after ?? change.before;
        const network = this.#state.networks.get(change.networkId)?.name ?? change.networkId;
        return { type: 'peer', action, object: peer?.name ?? change.id, message: `${peer?.vtep ?? ''} on ${network}` };
      }
      case 'reservation': {
        const reservation = change.after ?? change.before;
        const network = this.#networkName(change.networkId, set);
        const message = `${(reservation?.ips ?? []).join(', ')} on ${network}`;
        return { type: 'reservation', action, object: change.name, message };
      }
      case 'service': {
        const service = change.after ?? change.before;
        const ips = service?.headless === true ? 'headless' : (service?.ips ?? []).join(', ');
        return {
          type: 'service',
          action,
          object: change.name,
          message: `${ips} on ${this.#networkName(change.networkId, set)}`,
        };
      }
      case 'policy':
        return {
          type: 'policy',
          action,
          object: change.name,
          message: `on ${this.#networkName(change.networkId, set)}`,
        };
      case 'router': {
        const router = change.after ?? change.before;
        const names = (router?.networkIds ?? []).map((id) => this.#networkName(id, set));
        return { type: 'router', action, object: change.name, message: `between ${names.join(', ')}` };
      }
      case 'settings':
      case 'memberships':
      case 'block':
      case 'address':
      case 'coordinator':
        return null;
    }
  }
}
