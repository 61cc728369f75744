/** The one comparison of what should be with what is. Pure. */

export interface Delta<K, D, A> {
  /** Desired, not there. */
  readonly missing: ReadonlyMap<K, D>;
  /** There, not desired. */
  readonly extra: ReadonlyMap<K, A>;
  /** There, and not as desired. */
  readonly differs: ReadonlyMap<K, { readonly want: D; readonly have: A }>;
}

/** @param equal true when the actual thing is as desired in every way that matters. Order follows the maps given. */
export function diff<K, D, A>(
  desired: ReadonlyMap<K, D>,
  actual: ReadonlyMap<K, A>,
  equal: (want: D, have: A) => boolean,
): Delta<K, D, A> {
  const missing = new Map<K, D>();
  const extra = new Map<K, A>();
  const differs = new Map<K, { want: D; have: A }>();
  for (const [key, want] of desired) {
    const have = actual.get(key);
    if (have === undefined && !actual.has(key)) missing.set(key, want);
    else if (!equal(want, have as A)) differs.set(key, { want, have: have as A });
  }
  for (const [key, have] of actual) if (!desired.has(key)) extra.set(key, have);
  return { missing, extra, differs };
}

export const isEmpty = (delta: Delta<unknown, unknown, unknown>): boolean =>
  delta.missing.size === 0 && delta.extra.size === 0 && delta.differs.size === 0;
