/** A reserved address implies the reservation's MAC. Pure. */
import { parseIp } from '../lib/addr.ts';
import { WeftError } from '../lib/errors.ts';
import type { Network } from '../lib/model.ts';
import { addressKey } from './address-table.ts';
import type { Journal, Mesh } from './contract.ts';

export interface Implied {
  readonly network: Network;
  readonly ips: readonly string[];
  /** Null: the user gave none. */
  readonly given: string | null;
  /** By which one is given. */
  readonly flag: '--mac' | '--mac-address';
}

interface Known {
  readonly name: string;
  readonly mac: string;
}

/**
 * What the view says of the address's reservation, else what the mesh said when the address was claimed.
 * @returns null when no MAC is implied
 * @throws FAILED_PRECONDITION another one is given, or the addresses imply two
 */
export function impliedMac(
  { journal, mesh }: { journal: Pick<Journal, 'addresses'>; mesh: Pick<Mesh, 'view'> },
  { network, ips, given, flag }: Implied,
): string | null {
  const reservations = mesh.view().interests.get(network.id)?.reservations;
  const of = (ip: string): Known | undefined => {
    const number = parseIp(ip);
    const seen = reservations?.values().find((r) => r.ips.some((text) => parseIp(text) === number));
    return seen ?? journal.addresses.get(addressKey(network.id, ip))?.reserved;
  };
  let first: { readonly ip: string; readonly known: Known } | null = null;
  for (const ip of ips) {
    const known = of(ip);
    if (known === undefined || known.mac === '') continue;
    if (given !== null && given !== known.mac)
      throw refused(
        `address ${ip} of network ${network.name} is reserved as "${known.name}" with the MAC ${known.mac}, not ${given}`,
        `leave ${flag} out: the address implies its MAC`,
      );
    if (first !== null && first.known.mac !== known.mac)
      throw refused(
        `the addresses ${first.ip} and ${ip} of network ${network.name} are reserved as "${first.known.name}" and "${known.name}", with two MACs`,
        'give addresses of one reservation',
      );
    first ??= { ip, known };
  }
  return first?.known.mac ?? null;
}

const refused = (message: string, hint: string): WeftError => new WeftError('FAILED_PRECONDITION', message, { hint });
