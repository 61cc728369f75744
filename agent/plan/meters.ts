/** What is to be done to meters: one diff over their numbers. Pure. */
import { diff } from '../../lib/delta.ts';
import type { MeterStep } from '../openflow/driver.ts';
import { formatMeter, type Meter, meterEquals } from '../openflow/meter.ts';
import type { Planned } from './planned.ts';

export type MeterTable = ReadonlyMap<number, Meter>;

/** Added and set before flows that name them, removed after. */
export function planMeters(desired: MeterTable, actual: MeterTable): Planned<MeterStep>[] {
  const { missing, differs, extra } = diff(desired, actual, meterEquals);
  const planned = (id: number, want: Meter | null, have: Meter | null): Planned<MeterStep> => ({
    kind: 'meter',
    id: String(id),
    object: `meter=${id}`,
    change: have === null ? 'missing' : want === null ? 'extra' : 'differs',
    want: want === null ? '' : formatMeter(want),
    have: have === null ? '' : formatMeter(have),
    step:
      want === null
        ? { kind: 'removeMeter', meter: have! }
        : { kind: have === null ? 'addMeter' : 'setMeter', meter: want },
  });
  return [
    ...[...missing].map(([id, want]) => planned(id, want, null)),
    ...[...differs].map(([id, { want, have }]) => planned(id, want, have)),
    ...[...extra].map(([id, have]) => planned(id, null, have)),
  ];
}
