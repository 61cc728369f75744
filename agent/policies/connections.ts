/** Who is connected to whom, by what `ovs-appctl dpctl/dump-conntrack` says. Pure. */
import { canonicalIp, tryParseIp } from '../../lib/addr.ts';
import type { Ended } from './name-table.ts';

/** @param zones of networks, by id. @returns those of them to which a connection goes */
export function connectedTo(dump: string, all: readonly Ended[], zones: ReadonlyMap<string, number>): Ended[] {
  const busy = new Set<string>();
  for (const line of dump.split('\n')) {
    const [, to = ''] = /orig=\([^)]*\bdst=([0-9a-fA-F.:]+)/.exec(line) ?? [];
    const [, zone = '0'] = /\bzone=(\d+)/.exec(line) ?? [];
    if (tryParseIp(to) !== null) busy.add(`${zone} ${canonicalIp(to)}`);
  }
  return all.filter(({ networkId, ip }) => busy.has(`${zones.get(networkId)} ${ip}`));
}
