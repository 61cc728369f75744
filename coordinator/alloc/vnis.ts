/** Picks VXLAN network identifiers. Pure. */

/** Automatic VNIs, both ends included. Lower ones are left to people who choose them. */
export interface VniRange {
  readonly first: number;
  readonly last: number;
}

export const DEFAULT_VNIS: VniRange = { first: 4096, last: 2 ** 24 - 1 };

/**
 * The lowest VNI that is neither taken nor resting; when there is none, the one that rests longest.
 * @param resting VNI → since when (orders them)
 * @returns null when every VNI of the range is taken
 */
export function pickVni(
  range: VniRange,
  taken: ReadonlySet<number>,
  resting: ReadonlyMap<number, string>,
): number | null {
  for (let vni = range.first; vni <= range.last; vni++) if (!taken.has(vni) && !resting.has(vni)) return vni;
  return oldestResting(range, taken, resting);
}

function oldestResting(
  range: VniRange,
  taken: ReadonlySet<number>,
  resting: ReadonlyMap<number, string>,
): number | null {
  let oldest: number | null = null;
  for (const [vni, since] of resting) {
    if (vni < range.first || vni > range.last || taken.has(vni)) continue;
    if (oldest === null || since < resting.get(oldest)!) oldest = vni;
  }
  return oldest;
}
