/** A drift as the mesh is told of it (`weft events`). Pure. */
import type { Drift, Event } from '../lib/model.ts';

/** Times are epoch milliseconds; healed null: it is as it was found. */
export const driftEvent = (host: string, drift: Drift, detectedAt: number, healedAt: number | null): Event => ({
  type: 'drift',
  time: rfc3339(detectedAt),
  host,
  action: drift.change,
  kind: drift.kind,
  object: drift.object,
  detectedAt: rfc3339(detectedAt),
  healedAt: healedAt === null ? '' : rfc3339(healedAt),
  message: '',
  revision: undefined,
});

const rfc3339 = (ms: number): string => new Date(ms).toISOString();
