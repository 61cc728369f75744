/** What a service's health check is where nothing is said. Pure. */
import type { HealthCheck, ServicePort } from './model.ts';

const INTERVAL_MS = 1000;
const TIMEOUT_MS = 500;
const RISE = 1;
const FALL = 2;

/** 0 = not said. @returns port 0: the service has none of TCP, and none is given */
export function withHealthDefaults(
  asked: HealthCheck,
  ports: readonly Pick<ServicePort, 'protocol' | 'targetPort'>[],
): HealthCheck {
  const intervalMs = asked.intervalMs || INTERVAL_MS;
  return {
    type: asked.type,
    path: asked.path,
    port: asked.port || (ports.find((p) => p.protocol === 'tcp')?.targetPort ?? 0),
    intervalMs,
    timeoutMs: asked.timeoutMs || Math.min(TIMEOUT_MS, intervalMs),
    rise: asked.rise || RISE,
    fall: asked.fall || FALL,
  };
}
