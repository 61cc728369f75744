/** What a row of answers says of an endpoint. Pure. */

export interface Verdict {
  readonly healthy: boolean;
  /** Results in a row, up to now, that say otherwise. */
  readonly against: number;
}

/** Of whom nothing is known: it gets no traffic before it has answered. */
export const UNPROVEN: Verdict = { healthy: false, against: 0 };
/** As if it had answered always. */
export const PROVEN: Verdict = { healthy: true, against: 0 };

/** @param limits how many results in a row change the verdict; at least one does */
export function judge(v: Verdict, ok: boolean, limits: { readonly rise: number; readonly fall: number }): Verdict {
  if (ok === v.healthy) return v.against === 0 ? v : { healthy: v.healthy, against: 0 };
  const against = v.against + 1;
  const enough = Math.max(1, ok ? limits.rise : limits.fall);
  return against >= enough ? { healthy: ok, against: 0 } : { healthy: v.healthy, against };
}
