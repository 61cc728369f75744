/** Numbers of services' ports on a host: 32 bits that stay the same as long as the port exists, whatever else comes and goes. Pure. */

/** What tells a port of a virtual address from all others of the mesh. @param protocol IP protocol */
export const keyOf = (serviceId: string, family: 4 | 6, protocol: number, port: number): string =>
  `${serviceId}/${family}/${protocol}/${port}`;

/** The number that a port has unless another one has it: never 0. */
export function preferred(key: string): number {
  const h = hash32(key);
  return h === 0 ? 1 : h;
}

/** FNV-1a, whose upper bits hardly see the last characters, and the finalizer of MurmurHash3, which spreads them. */
export function hash32(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x0100_0193);
  h = Math.imul(h ^ (h >>> 16), 0x85eb_ca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2_ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/**
 * The next free number for those whose own is taken. Who comes first in order keeps its own.
 * @param used numbers that are taken; added to
 */
export function numbered<T extends { readonly id: number }>(items: readonly T[], used: Set<number>): T[] {
  return items.map((item) => {
    let { id } = item;
    while (used.has(id)) id = id === 0xffff_ffff ? 1 : id + 1;
    used.add(id);
    return id === item.id ? item : { ...item, id };
  });
}
