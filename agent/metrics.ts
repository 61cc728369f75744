/** The agent's Prometheus metrics (port 7472). */
import { addProcessMetrics, Counter, Gauge, Histogram, MetricsServer, makeRegistry } from '../lib/metrics.ts';
import { VERSION } from '../lib/version.ts';
import type { Journal } from './contract.ts';
import type { Reconciler } from './reconcile.ts';
import type { SessionMesh } from './session/mesh.ts';

export interface AgentMetrics {
  drift(kind: string): void;
  pluginCall(method: string, ms: number): void;
  start(): Promise<void>;
  close(): Promise<void>;
}

/** @param o.listen host:port; null = no HTTP server. */
export function agentMetrics(o: {
  mesh: SessionMesh;
  journal: Journal;
  reconciler: Reconciler;
  listen: string | null;
}): AgentMetrics {
  const registry = makeRegistry('agent', VERSION);
  addProcessMetrics(registry);
  const registers = [registry];
  const drift = new Counter({
    name: 'weft_drift_total',
    help: 'Objects that were changed by somebody else, by kind.',
    labelNames: ['kind'],
    registers,
  });
  const calls = new Histogram({
    name: 'weft_plugin_call_seconds',
    help: 'Time to answer Docker, by plugin method.',
    labelNames: ['method'],
    buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10],
    registers,
  });
  const gauge = (name: string, help: string, value: () => number): void => {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value());
      },
    });
  };
  gauge('weft_endpoints', 'Endpoints that this host holds.', () => o.journal.endpoints.size);
  gauge('weft_blocks', 'Address blocks that this host holds.', () => o.journal.blocks.size);
  gauge('weft_flows', 'Flows installed in br-weft.', () => o.reconciler.flowCount);
  gauge(
    'weft_steps_total',
    'Steps applied since the start; 0 after a restart that had nothing to do.',
    () => o.reconciler.steps,
  );
  gauge('weft_in_sync', '1 when the complete view of this session has been applied.', () => (o.mesh.inSync ? 1 : 0));
  gauge('weft_applied_revision', 'etcd revision applied.', () => Number(o.mesh.appliedRevision.number));
  const server =
    o.listen === null
      ? null
      : new MetricsServer({ listen: o.listen, registry, ready: () => (o.mesh.inSync ? null : 'not in sync') });
  return {
    drift: (kind) => drift.inc({ kind }),
    pluginCall: (method, ms) => calls.observe({ method }, ms / 1000),
    start: async () => {
      await server?.start();
    },
    close: async () => {
      await server?.close();
    },
  };
}
