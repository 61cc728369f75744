/** Counters of a coordinator. Bytes are those of messages before framing and encryption. */
import { Counter, Gauge, type Registry } from '../lib/metrics.ts';
import type { MessageKind } from './wire.ts';

export interface Metrics {
  readonly sent: (kind: MessageKind, bytes: number) => void;
  readonly encoded: (kind: MessageKind) => void;
  readonly drift: (kind: string) => void;
  readonly call: (method: string, code: string) => void;
}

export interface MetricsSources {
  /** Live sessions of this coordinator. */
  readonly sessions: () => Iterable<{
    readonly host: { readonly name: string };
    readonly sent: ReadonlyMap<MessageKind, { readonly messages: number; readonly bytes: number }>;
    readonly lagging: boolean;
  }>;
  readonly revision: () => bigint;
  readonly networks: () => number;
  readonly endpoints: () => number;
}

export function makeMetrics(registry: Registry, sources: MetricsSources): Metrics {
  const registers = [registry];
  const messages = new Counter({
    name: 'weft_session_messages_sent_total',
    help: 'Messages sent to agents.',
    labelNames: ['kind'],
    registers,
  });
  const bytes = new Counter({
    name: 'weft_session_sent_bytes_total',
    help: 'Bytes of messages sent to agents.',
    labelNames: ['kind'],
    registers,
  });
  const encoded = new Counter({
    name: 'weft_session_messages_encoded_total',
    help: 'Messages encoded; one that goes to many agents is encoded once.',
    labelNames: ['kind'],
    registers,
  });
  const drift = new Counter({
    name: 'weft_drift_total',
    help: 'Things found that were not as they should be.',
    labelNames: ['kind'],
    registers,
  });
  const calls = new Counter({
    name: 'weft_calls_total',
    help: 'Unary calls answered, by gRPC status.',
    labelNames: ['method', 'code'],
    registers,
  });
  gauge('weft_sessions', 'Agents connected to this coordinator.', () => [...sources.sessions()].length);
  gauge('weft_sessions_lagging', 'Of these, how many have not applied everything.', () =>
    [...sources.sessions()].reduce((n, session) => n + (session.lagging ? 1 : 0), 0),
  );
  gauge('weft_revision', 'Newest etcd revision known.', () => Number(sources.revision()));
  gauge('weft_networks', 'Networks of the mesh.', sources.networks);
  gauge('weft_endpoints', 'Endpoints of the mesh.', sources.endpoints);
  new Gauge({
    name: 'weft_session_network_bytes',
    help: 'Bytes of network updates sent in the present session of each host.',
    labelNames: ['host', 'kind'],
    registers,
    collect() {
      this.reset();
      for (const session of sources.sessions())
        for (const kind of ['network', 'networkComplete'] as const)
          this.set({ host: session.host.name, kind }, session.sent.get(kind)?.bytes ?? 0);
    },
  });

  function gauge(name: string, help: string, value: () => number): void {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  }

  return {
    sent: (kind, size) => {
      messages.inc({ kind });
      bytes.inc({ kind }, size);
    },
    encoded: (kind) => encoded.inc({ kind }),
    drift: (kind) => drift.inc({ kind }),
    call: (method, code) => calls.inc({ method, code }),
  };
}
