/** Addresses of what is attached: from the host's blocks, or as given, of each family that the network has. */
import { type Family, familyOf, formatIp, lengthOf, parseIp, subnetOf } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Network } from '../../lib/model.ts';
import type { AddressBook } from '../addresses.ts';
import type { LocalEndpoint } from '../contract.ts';

/** All of them or none. @param given empty = given by the mesh. @throws as AddressBook does */
export async function takeAddresses(
  addresses: AddressBook,
  network: Network,
  given: { readonly ip: string; readonly ip6: string },
): Promise<Pick<LocalEndpoint, 'ip' | 'prefix' | 'ip6' | 'prefix6'>> {
  const taken: string[] = [];
  const of = async (family: Family, wanted: string): Promise<{ ip: string; prefix: number }> => {
    const subnet = subnetOf(network, family);
    if (subnet === null && wanted === '') return { ip: '', prefix: 0 };
    const ip =
      wanted === ''
        ? await addresses.request(network, family)
        : await addresses.requestGiven(network, givenIp(family, wanted));
    taken.push(ip);
    return { ip, prefix: subnet === null ? 0 : lengthOf(subnet) };
  };
  try {
    const [four, six] = [await of(4, given.ip), await of(6, given.ip6)];
    return { ip: four.ip, prefix: four.prefix, ip6: six.ip, prefix6: six.prefix };
  } catch (error) {
    for (const ip of taken) await addresses.release(network.id, ip);
    throw error;
  }
}

const FLAG: Readonly<Record<Family, string>> = { 4: '--ip', 6: '--ip6' };

/** Canonical. @throws INVALID_ARGUMENT unless an address of that family */
function givenIp(family: Family, text: string): string {
  const ip = parseIp(text);
  const is = familyOf(ip);
  if (is === family) return formatIp(ip);
  throw new WeftError(
    'INVALID_ARGUMENT',
    `${FLAG[family]} takes an IPv${family} address, and ${formatIp(ip)} is IPv${is}`,
    {
      hint: `give it with ${FLAG[is]}`,
    },
  );
}
