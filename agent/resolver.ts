/** The resolver of this host's containers: names from journal and view, everything else from the host's own resolvers. */

import type { Clock } from '../lib/clock.ts';
import { formatIp } from '../lib/ip.ts';
import type { Log } from '../lib/log.ts';
import type { Journal, LocalEndpoint, Mesh } from './contract.ts';
import { Forwarder } from './dns/forward.ts';
import { type DnsCounters, type HandlerOptions, makeHandler } from './dns/handle.ts';
import { indexNames, type NameIndex } from './dns/names.ts';
import { DnsServer } from './dns/server.ts';
import { resolvConf } from './dns/upstreams.ts';
import { DNS_ADDRESS, DNS_PORT } from './gateway/addresses.ts';
import { Askers } from './gateway/asker.ts';

export interface ResolverOptions {
  readonly journal: Journal;
  readonly mesh: Pick<Mesh, 'hostId' | 'view' | 'onView'>;
  /** This host's VTEP. */
  readonly vtep: string;
  /** Where the host's own resolvers stand (resolv.conf(5)). */
  readonly resolvConf: string;
  /** What this host finds of its own endpoints, and of other hosts; absent: all are healthy, and reached. */
  readonly health?: Health;
  /** Names that policies are about. */
  readonly learn?: NonNullable<HandlerOptions['learn']>;
  readonly counters: DnsCounters;
  readonly random: () => number;
  readonly clock: Clock;
  readonly log: Log;
}

export interface Health {
  /** Ids of the services whose health check it fails. */
  unhealthy(e: LocalEndpoint): readonly string[];
  /** Ids of hosts that this one does not reach; the same object as long as they are the same. */
  unreached(): ReadonlySet<string>;
  /** Called after one of both changed. */
  onChange(listener: () => void): () => void;
}

/** Listens as soon as the address is there. Answers from what this host knows, with or without a coordinator. */
export function startResolver(o: ResolverOptions): { close(): Promise<void> } {
  const { journal, mesh, health, clock, log, counters } = o;
  const address = formatIp(DNS_ADDRESS);
  const askers = new Askers({ journal, underlay: () => o.vtep, now: () => clock.monotonic() });
  let index: NameIndex = new Map();
  let stale = true;
  const changed = (): void => {
    stale = true;
    askers.forget();
  };
  const stop = [journal.onChange(changed), mesh.onView(changed), health?.onChange(changed)];
  const forwarder = new Forwarder({
    upstreams: resolvConf(o.resolvConf, clock),
    own: { address, port: DNS_PORT },
  });
  const handler = makeHandler({
    index: () => {
      if (!stale) return index;
      stale = false;
      const { networks, endpoints } = journal;
      const told = { hostId: mesh.hostId, view: mesh.view(), endpoints: endpoints.values(), networks };
      const found =
        health === undefined
          ? null
          : { unhealthy: (e: LocalEndpoint) => health.unhealthy(e), unreached: health.unreached() };
      index = indexNames(found === null ? told : { ...told, ...found }, index);
      return index;
    },
    asker: (source) => askers.find(source),
    forward: (query, source) => forwarder.forward(query, source),
    order: { random: o.random },
    ...(o.learn === undefined ? {} : { learn: o.learn }),
    counters,
    clock,
  });
  const server = new DnsServer({ address, port: DNS_PORT, handler, counters, clock, log });
  server.start();
  return {
    close: async () => {
      for (const end of stop) end?.();
      forwarder[Symbol.dispose]();
      await server.close();
    },
  };
}
