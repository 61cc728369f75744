/** Addresses that several endpoints may have (weft endpoint set --allow-address), and who they are. Pure. */
import { isIp4, lowOf, mapped, tryParseIp } from '../../lib/addr.ts';
import { parseMac } from '../../lib/mac.ts';
import type { AllowedAddress, NetworkView } from '../../lib/model.ts';
import type { Allowed, LocalPort, NetworkModel, Remote, SharedMac } from '../flows/model.ts';

/** Null: a record that cannot be read, which is nobody's. */
export function allowedOf(a: AllowedAddress): Allowed | null {
  const ip = tryParseIp(a.ip);
  if (ip === null && (a.ip !== '' || a.mac === '')) return null;
  const four = ip !== null && isIp4(ip);
  return { ip: four ? lowOf(ip) : null, ip6: four ? null : ip, mac: a.mac === '' ? null : parseMac(a.mac) };
}

export const allowedFor = (interest: NetworkView | undefined, endpointId: string): Allowed[] =>
  (interest?.settings.get(endpointId)?.allowed ?? []).map(allowedOf).filter((a) => a !== null);

export interface Shared {
  /** Addresses that are asked for on the wire, since nobody knows who has them now. */
  readonly asked: readonly Pick<Allowed, 'ip' | 'ip6'>[];
  readonly macs: readonly SharedMac[];
  /** Those of the addresses that have one MAC, whoever has them; absent: none. */
  readonly neighbours?: NonNullable<NetworkModel['neighbours']>;
}

export function sharedOf(
  interest: NetworkView | undefined,
  locals: readonly LocalPort[],
  remotes: readonly Remote[],
): Shared {
  const asked = new Map<string, Pick<Allowed, 'ip' | 'ip6'>>();
  const macs = new Map<bigint, { locals: Set<number>; hosts: Set<string> }>();
  const neighbours = new Map<bigint, Set<bigint>>();
  const ports = new Map(locals.map((p) => [p.id, p]));
  for (const { endpointId, allowed } of interest?.settings.values() ?? []) {
    const port = ports.get(endpointId);
    const endpoint = interest?.endpoints.get(endpointId);
    const host = endpoint?.hostId;
    for (const a of allowed.map(allowedOf)) {
      if (a === null) continue;
      const { ip, ip6, mac } = a;
      if (ip !== null || ip6 !== null) asked.set(String(ip ?? ip6), { ip, ip6 });
      const own = port?.mac ?? (endpoint === undefined ? null : parseMac(endpoint.mac));
      const address = ip === null ? ip6 : mapped(ip);
      if (address !== null && (mac ?? own) !== null)
        neighbours.set(address, (neighbours.get(address) ?? new Set()).add(mac ?? own!));
      if (mac === null) continue;
      const entry = macs.get(mac) ?? { locals: new Set(), hosts: new Set() };
      macs.set(mac, entry);
      if (port !== undefined) entry.locals.add(port.ofport);
      else if (host !== undefined) entry.hosts.add(host);
    }
  }
  const single = [...neighbours].flatMap(([ip, all]) => (all.size === 1 ? [...all].map((mac) => ({ ip, mac })) : []));
  return {
    ...(single.length === 0 ? {} : { neighbours: single.sort((a, b) => (a.ip < b.ip ? -1 : 1)) }),
    asked: [...asked].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, value]) => value),
    macs: [...macs]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([mac, m]) => ({
        mac,
        locals: [...m.locals].sort((a, b) => a - b),
        remotes: remotes.filter((r) => m.hosts.has(r.hostId)),
      })),
  };
}
