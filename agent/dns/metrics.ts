/** The resolver's Prometheus metrics. */
import { Counter, Histogram, type Registry } from '../../lib/metrics.ts';
import type { DnsCounters } from './handle.ts';

export function dnsMetrics(registry: Registry): DnsCounters {
  const registers = [registry];
  const queries = new Counter({
    name: 'weft_dns_queries_total',
    help: 'Questions of containers, by transport and by what became of them.',
    labelNames: ['transport', 'outcome'],
    registers,
  });
  const dropped = new Counter({
    name: 'weft_dns_dropped_total',
    help: 'DNS messages without a reply, by transport and reason.',
    labelNames: ['transport', 'reason'],
    registers,
  });
  const seconds = new Histogram({
    name: 'weft_dns_query_seconds',
    help: 'Time in the agent from a question to its answer, by what became of it.',
    labelNames: ['outcome'],
    buckets: [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3],
    registers,
  });
  return {
    query: (transport, outcome, ms) => {
      queries.inc({ transport, outcome });
      seconds.observe({ outcome }, ms / 1000);
    },
    dropped: (transport, reason) => dropped.inc({ transport, reason }),
  };
}
