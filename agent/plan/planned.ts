/** A difference between desired and actual, and the step that would end it. Pure. */
import type { Drift } from '../../lib/model.ts';

export interface Planned<Step> {
  /** "bridge", "port", "link", "flow", "dockerNetwork", "endpoint". */
  readonly kind: string;
  /** Identity within the kind. */
  readonly id: string;
  /** Its name in the words of the tool that shows it. */
  readonly object: string;
  readonly change: 'missing' | 'extra' | 'differs';
  /** Empty for "extra". */
  readonly want: string;
  /** Empty for "missing". */
  readonly have: string;
  readonly step: Step;
}

export const driftOf = (p: Omit<Planned<unknown>, 'step'>): Drift => ({
  kind: p.kind,
  object: p.object,
  change: p.change,
  want: p.want,
  have: p.have,
});

/** Canonical text of a string map, for comparing and for showing. */
export const mapText = (map: Readonly<Record<string, string>>): string =>
  `{${Object.entries(map)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([k, v]) => `${k}=${v}`)
    .join(', ')}}`;
