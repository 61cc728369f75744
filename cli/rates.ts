/** Flags about rates and priorities, as the coordinator takes them. */
import type { UpdateEndpointRequest } from '../gen/weft/v1/control.ts';
import type { Rate } from '../lib/model.ts';
import { parsePriority, readRate } from '../lib/rate.ts';

/** As docker and compose files leave things to the next one that says something. */
const DEFAULT = 'default';

interface Flags {
  readonly rate?: string;
  readonly burst?: string;
  readonly priority?: string;
}

type Shaping = Pick<UpdateEndpointRequest, 'rate' | 'unsetRate' | 'priority' | 'unsetPriority'>;

/** @throws INVALID_ARGUMENT */
export function shapingRequest(flags: Flags): Shaping {
  const unsetRate = flags.rate === DEFAULT && flags.burst === undefined;
  const rate = unsetRate ? undefined : rateFlags(flags);
  const unsetPriority = flags.priority === DEFAULT;
  return {
    ...(rate === undefined ? {} : { rate }),
    ...(flags.priority === undefined || unsetPriority ? {} : { priority: parsePriority('--priority', flags.priority) }),
    unsetRate,
    unsetPriority,
  };
}

export const isShaping = (s: Shaping): boolean =>
  s.rate !== undefined || s.unsetRate === true || s.priority !== undefined || s.unsetPriority === true;

/** Undefined: not given. @throws INVALID_ARGUMENT */
export const rateFlags = (flags: Pick<Flags, 'rate' | 'burst'>): Rate | undefined =>
  readRate({ rate: '--rate', burst: '--burst' }, flags);
