/** The disk copy of the view: what a host works from when it starts without a coordinator. It may create and repair, never remove. */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { Peer } from '../gen/weft/v1/session.ts';
import {
  Address,
  Block,
  Endpoint,
  EndpointSettings,
  ExternalPeer,
  Memberships,
  Network,
  Policy,
  Reservation,
  Revision,
  Router,
  Service,
} from '../gen/weft/v1/types.ts';
import type { Log } from '../lib/log.ts';
import type { NetworkView, View } from '../lib/model.ts';
import { EMPTY_VIEW } from './view.ts';

interface Codec<T> {
  toJSON(message: T): unknown;
  fromJSON(object: unknown): T;
}

const encode = <T>(codec: Codec<T>, items: Iterable<T>): unknown[] => [...items].map((i) => codec.toJSON(i));
const decode = <T>(codec: Codec<T>, items: unknown, key: (t: T) => string): Map<string, T> =>
  new Map((Array.isArray(items) ? items : []).map((i) => codec.fromJSON(i)).map((t) => [key(t), t]));

export function encodeView(view: View): string {
  return JSON.stringify({
    revision: Revision.toJSON(view.revision),
    networks: encode(Network, view.networks.values()),
    routers: encode(Router, view.routers.values()),
    interests: [...view.interests.values()].map((n) => ({
      networkId: n.networkId,
      blocks: encode(Block, n.blocks.values()),
      endpoints: encode(Endpoint, n.endpoints.values()),
      peers: encode(Peer, n.peers.values()),
      addresses: encode(Address, n.addresses.values()),
      externals: encode(ExternalPeer, n.externals.values()),
      memberships: encode(Memberships, n.memberships.values()),
      settings: encode(EndpointSettings, n.settings.values()),
      reservations: encode(Reservation, n.reservations.values()),
      services: encode(Service, n.services.values()),
      policies: encode(Policy, n.policies.values()),
    })),
  });
}

export function decodeView(text: string): View {
  const o = JSON.parse(text) as Record<'revision' | 'networks' | 'routers', unknown> & {
    interests: Record<string, unknown>[];
  };
  const interests = (Array.isArray(o.interests) ? o.interests : []).map(
    (n): NetworkView => ({
      networkId: String(n['networkId']),
      blocks: decode(Block, n['blocks'], (b) => b.cidr),
      endpoints: decode(Endpoint, n['endpoints'], (e) => e.id),
      peers: decode(Peer, n['peers'], (p) => p.hostId),
      addresses: decode(Address, n['addresses'], (a) => a.address),
      externals: decode(ExternalPeer, n['externals'], (x) => x.id),
      memberships: decode(Memberships, n['memberships'], (m) => m.hostId),
      settings: decode(EndpointSettings, n['settings'], (s) => s.endpointId),
      reservations: decode(Reservation, n['reservations'], (r) => r.name),
      services: decode(Service, n['services'], (s) => s.name),
      policies: decode(Policy, n['policies'], (p) => p.name),
    }),
  );
  return {
    revision: Revision.fromJSON(o.revision),
    networks: decode(Network, o.networks, (n) => n.id),
    routers: decode(Router, o.routers, (r) => r.name),
    interests: new Map(interests.map((n) => [n.networkId, n])),
  };
}

/** Between two writes, in times that the last one took. */
const PAUSE = 9;

export class ViewStore {
  readonly #path: string;
  readonly #log: Log;
  #pending: View | null = null;
  #writing: Promise<void> | null = null;
  #flushing = false;
  /** Ends the pause between two writes. */
  #hurry: () => void = () => undefined;

  constructor(path: string, log: Log) {
    this.#path = path;
    this.#log = log;
  }

  /** The last view saved; empty when there is none or it cannot be read (the coordinator will send a new one). */
  async load(): Promise<View> {
    try {
      return decodeView(await readFile(this.#path, 'utf8'));
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'ENOENT')
        this.#log.warn({ err: error, path: this.#path }, 'view on disk ignored');
      return EMPTY_VIEW;
    }
  }

  /** Saves the newest view given; one write at a time, those in between are skipped. In a storm of changes, a tenth of the time. */
  save(view: View): void {
    this.#pending = view;
    this.#writing ??= this.#drain().finally(() => {
      this.#writing = null;
    });
  }

  async #drain(): Promise<void> {
    while (this.#pending !== null) {
      const view = this.#pending;
      this.#pending = null;
      const began = performance.now();
      try {
        await writeFile(`${this.#path}.tmp`, encodeView(view), { mode: 0o600 });
        await rename(`${this.#path}.tmp`, this.#path);
      } catch (error) {
        this.#log.error({ err: error, path: this.#path }, 'view not saved');
      }
      await this.#pause((performance.now() - began) * PAUSE);
    }
  }

  async flush(): Promise<void> {
    const writing = this.#writing;
    this.#flushing = true;
    this.#hurry();
    await writing;
    this.#flushing = false;
  }

  #pause(ms: number): Promise<void> {
    if (this.#flushing) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#hurry = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
