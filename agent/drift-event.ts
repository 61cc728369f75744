/** Drift as `weft events` shows it. Pure. */
import { Event } from '../gen/weft/v1/types.ts';
import type { Drift } from '../lib/model.ts';

const rfc3339 = (ms: number): string => new Date(ms).toISOString();

/** @param detectedAt epoch milliseconds. @param healedAt null: it is as it was found */
export const driftEvent = (host: string, drift: Drift, detectedAt: number, healedAt: number | null): Event =>
  Event.fromPartial({
    type: 'drift',
    time: rfc3339(detectedAt),
    host,
    action: drift.change,
    kind: drift.kind,
    object: drift.object,
    detectedAt: rfc3339(detectedAt),
    healedAt: healedAt === null ? '' : rfc3339(healedAt),
  });
