import { networkInterfaces } from 'node:os';
import { canonicalIp, tryParseIp } from '../../lib/addr.ts';

/** The host's addresses now, canonical. */
export function hostIps(): Set<string> {
  const all = Object.values(networkInterfaces()).flatMap((list = []) => list.map(({ address }) => address));
  return new Set(all.filter((ip) => tryParseIp(ip) !== null).map(canonicalIp));
}
