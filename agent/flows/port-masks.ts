/** Ranges of ports as values with masks, which is all that a flow can match. Pure. */

export interface PortMask {
  readonly value: number;
  readonly mask: number;
}

/**
 * The fewest aligned powers of two that make up `first` to `last`, at most 30 for 16 bits.
 * @param first @param last 0..65535, in order
 */
export function portMasks(first: number, last: number): PortMask[] {
  const masks: PortMask[] = [];
  for (let at = first; at <= last; ) {
    let size = at === 0 ? 65_536 : at & -at;
    while (at + size - 1 > last) size /= 2;
    masks.push({ value: at, mask: 65_536 - size });
    at += size;
  }
  return masks;
}
