/** The agent's Prometheus metrics (port 7472). */
import {
  addProcessMetrics,
  Counter,
  Gauge,
  Histogram,
  MetricsServer,
  makeRegistry,
  type Registry,
} from '../lib/metrics.ts';
import { VERSION } from '../lib/version.ts';
import { type BpfCounters, type BpfTraffic, REASONS } from './bpf/model.ts';
import type { Journal } from './contract.ts';
import type { DnsCounters } from './dns/handle.ts';
import { dnsMetrics } from './dns/metrics.ts';
import type { StagedCount } from './policies/staged.ts';
import type { Reconciler } from './reconcile.ts';
import type { HealthCounts } from './services/health.ts';
import type { SessionMesh } from './session/mesh.ts';

export interface AgentMetrics {
  drift(kind: string): void;
  pluginCall(method: string, ms: number): void;
  readonly dns: DnsCounters;
  start(): Promise<void>;
  close(): Promise<void>;
}

/** @param o.listen host:port; null = no HTTP server. @param o.kernelSide asked with each scrape; null = there is none. */
export function agentMetrics(o: {
  mesh: SessionMesh;
  journal: Journal;
  reconciler: Reconciler;
  kernelSide: (() => Promise<BpfCounters>) | null;
  /** Packets that the switch gave to the agent, since the start. */
  packets: () => { readonly received: number; readonly dropped: number; readonly sent: number };
  services: () => HealthCounts;
  /** What staged policies would decide otherwise; asked with each scrape. */
  staged: () => Promise<readonly StagedCount[]>;
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
  gauge(
    'weft_punted_packets_total',
    'Packets that the switch gave to the agent (IGMP, MLD).',
    () => o.packets().received,
  );
  gauge(
    'weft_punted_packets_dropped_total',
    'Of these, those that were dropped because the agent was behind.',
    () => o.packets().dropped,
  );
  serviceMetrics(registry, o.services);
  new Counter({
    name: 'weft_policy_staged_total',
    help: 'First packets of connections that a staged rule would have decided otherwise.',
    labelNames: ['network', 'policy', 'rule', 'direction'],
    registers,
    async collect() {
      const counts = await o.staged().catch(() => null); // without a switch: what was counted stands
      if (counts === null) return;
      this.reset();
      for (const { packets, ...labels } of counts) this.inc(labels, packets);
    },
  });
  if (o.kernelSide !== null) kernelMetrics(registry, o.kernelSide);
  const server =
    o.listen === null
      ? null
      : new MetricsServer({ listen: o.listen, registry, ready: () => (o.mesh.inSync ? null : 'not in sync') });
  return {
    drift: (kind) => drift.inc({ kind }),
    dns: dnsMetrics(registry),
    pluginCall: (method, ms) => calls.observe({ method }, ms / 1000),
    start: async () => {
      await server?.start();
    },
    close: async () => {
      await server?.close();
    },
  };
}

/** What the checks of services say of this host's endpoints. */
function serviceMetrics(registry: Registry, read: () => HealthCounts): void {
  const registers = [registry];
  new Gauge({
    name: 'weft_service_backends',
    help: 'Endpoints of this host that a service checks, once for each service, by whether they answer.',
    labelNames: ['state'],
    registers,
    collect() {
      const { healthy, unhealthy } = read();
      this.set({ state: 'healthy' }, healthy);
      this.set({ state: 'unhealthy' }, unhealthy);
    },
  });
  new Counter({
    name: 'weft_service_checks_total',
    help: 'Checks of these, by what came of them.',
    labelNames: ['result'],
    registers,
    collect() {
      const { answered, failed } = read();
      this.reset();
      this.inc({ result: 'answered' }, answered);
      this.inc({ result: 'failed' }, failed);
    },
  });
}

/** What the kernel side has carried and dropped. */
function kernelMetrics(registry: Registry, read: () => Promise<BpfCounters>): void {
  let reading: Promise<BpfCounters> | null = null;
  // Both metrics of a scrape come from one reading.
  const now = (): Promise<BpfCounters> => {
    reading ??= read().finally(() => {
      reading = null;
    });
    return reading;
  };
  const registers = [registry];
  new Counter({
    name: 'weft_datapath_frames_total',
    help: 'Frames that the kernel side of the datapath has judged, by what it did with them (docs/datapath.md).',
    labelNames: ['reason'],
    registers,
    async collect() {
      const { reasons } = await now();
      this.reset();
      for (const reason of REASONS) this.inc({ reason }, Number(reasons[reason]));
    },
  });
  const seen = new Map<number, BpfTraffic>();
  const total = { tx: 0, rx: 0 };
  new Counter({
    name: 'weft_express_packets_total',
    help: 'Packets that endpoints have sent (tx) and received (rx) past Open vSwitch, segments counted one by one.',
    labelNames: ['direction'],
    registers,
    async collect() {
      const { traffic } = await now();
      // An endpoint's counters go with it; what it has sent stays in the sum.
      for (const [ifindex, { txPackets, rxPackets }] of traffic) {
        total.tx += Number(txPackets - (seen.get(ifindex)?.txPackets ?? 0n));
        total.rx += Number(rxPackets - (seen.get(ifindex)?.rxPackets ?? 0n));
      }
      seen.clear();
      for (const [ifindex, one] of traffic) seen.set(ifindex, one);
      this.reset();
      this.inc({ direction: 'tx' }, total.tx);
      this.inc({ direction: 'rx' }, total.rx);
    },
  });
}
