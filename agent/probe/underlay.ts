/** Which address of the host is its VTEP. Pure. */
import { containsIp, parseCidr, tryParseIp } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { HostInterface } from './links.ts';

export interface Underlay {
  readonly vtep: string;
  readonly interface: string;
  /** Bytes; 0 = unknown. */
  readonly mtu: number;
}

/**
 * @param wanted an address of this host, or `on`: a CIDR that contains it, or the name of its interface.
 * @throws FAILED_PRECONDITION naming what there is, when the host has no such address; INVALID_ARGUMENT for a CIDR that is none.
 */
export function chooseUnderlay(
  wanted: { readonly vtep?: string | undefined; readonly on?: string | undefined },
  interfaces: readonly HostInterface[],
): Underlay {
  const all = interfaces.flatMap((i) => i.addresses.map((a) => ({ vtep: a.address, interface: i.name, mtu: i.mtu })));
  const { vtep, on = '' } = wanted;
  const found = all.find(vtep === undefined ? matcher(on) : (u) => u.vtep === vtep);
  if (found !== undefined) return found;
  const there = all.map((u) => `${u.vtep} on ${u.interface}`).join(', ');
  const what = vtep ?? `an address in ${on}`;
  throw new WeftError(
    'FAILED_PRECONDITION',
    `This host does not have ${what}; it has ${there === '' ? 'none' : there}.`,
    {
      hint: 'set underlay in agent.yaml to an address, a CIDR or an interface of this host',
    },
  );
}

function matcher(on: string): (u: Underlay) => boolean {
  if (!on.includes('/')) return (u) => u.interface === on;
  const cidr = parseCidr(on);
  return (u) => {
    const ip = tryParseIp(u.vtep);
    return ip !== null && containsIp(cidr, ip);
  };
}
