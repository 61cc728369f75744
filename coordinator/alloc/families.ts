/** Judges the subnets, ip-range, gateways and addresses that a user asks for, of both address families. Pure. */
import {
  blockSpace,
  type Cidr,
  containsCidr,
  containsIp,
  type Family,
  familyOf,
  familyOfText,
  formatCidr,
  formatIp,
  isUsable,
  lengthOf,
  overlaps,
  parseCidr,
  parseIp,
  subnetOf,
} from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Network } from '../../lib/model.ts';
import type { NetworkSpec } from '../contract.ts';
import { type AddressPlan, addressPlan, addressPlans, isAssignable, usableCount } from './blocks.ts';

/** What is asked of one address family; null = to be picked. */
export interface CheckedFamily {
  readonly subnet: Cidr | null;
  readonly ipRange: Cidr | null;
  readonly gateway: bigint | null;
}

/** A network has one family or both. */
export interface CheckedFamilies {
  readonly four: CheckedFamily | null;
  readonly six: CheckedFamily | null;
}

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });

const NAME: Readonly<Record<Family, string>> = { 4: 'IPv4', 6: 'IPv6' };

/**
 * IPv4 is there unless only an IPv6 subnet is given (without `ipv6`, which says "beside IPv4", as it does to Docker); IPv6 where it is
 * asked for.
 * @throws INVALID_ARGUMENT, UNIMPLEMENTED
 */
export function checkFamilies(
  spec: Pick<NetworkSpec, 'subnets' | 'ipRange' | 'gateways' | 'ipv6' | 'ipv6Only'>,
): CheckedFamilies {
  const subnets = spec.subnets.map((text) => checkSubnet(text));
  const given = (family: Family): Cidr | null => {
    const [first = null, second] = subnets.filter((subnet) => familyOf(subnet.base) === family);
    if (second !== undefined)
      throw new WeftError('UNIMPLEMENTED', `two ${NAME[family]} subnets are given`, {
        hint: `a network has one ${NAME[family]} subnet for now: leave one out`,
      });
    return first;
  };
  const [four, six] = [given(4), given(6)];
  const only6 = spec.ipv6Only === true || (four === null && six !== null && !spec.ipv6);
  const families: CheckedFamilies = {
    four: only6 ? null : checkFamily(spec, 4, four),
    six: six === null && !spec.ipv6 && spec.ipv6Only !== true ? null : checkFamily(spec, 6, six),
  };
  for (const text of [...spec.gateways, spec.ipRange].filter((t) => t !== ''))
    if ((familyOfText(text) === 4 ? families.four : families.six) === null)
      throw invalid(`${text} is of a family that the network does not have`, 'give a subnet of that family too');
  return families;
}

function checkFamily(
  spec: Pick<NetworkSpec, 'ipRange' | 'gateways'>,
  family: Family,
  subnet: Cidr | null,
): CheckedFamily {
  const mine = (texts: readonly string[]): string[] => texts.filter((t) => t !== '' && familyOfText(t) === family);
  const [range] = mine([spec.ipRange]);
  return {
    subnet,
    ipRange: range === undefined ? null : checkIpRange(range, subnet),
    gateway: checkGateways(mine(spec.gateways), subnet),
  };
}

const SPECIAL: readonly (readonly [string, string])[] = [
  ['0.0.0.0/8', 'addresses of "this network"'],
  ['127.0.0.0/8', 'loopback addresses'],
  ['169.254.0.0/16', 'link-local addresses'],
  ['224.0.0.0/4', 'multicast addresses'],
  ['240.0.0.0/4', 'reserved addresses'],
  ['::/8', 'reserved addresses'],
  ['fd57:6566:7400::/64', 'addresses by which hosts know their containers'], // agent/gateway/addresses.ts
  ['fe80::/10', 'link-local addresses'],
  ['ff00::/8', 'multicast addresses'],
];

function checkSubnet(text: string): Cidr {
  const subnet = parseCidr(text);
  const family = familyOf(subnet.base);
  for (const [range, what] of SPECIAL)
    if (familyOfText(range) === family && overlaps(subnet, parseCidr(range)))
      throw invalid(
        `the subnet ${text} has ${what} (${range})`,
        `take a private subnet, like ${family === 4 ? '10.20.0.0/16' : 'fd00:20::/64'}`,
      );
  if (subnet.prefix > 126) {
    const least = lengthOf({ ...subnet, prefix: 126 });
    throw invalid(`the subnet ${text} has no room for a gateway and an endpoint`, `take a /${least} or a larger one`);
  }
  return subnet;
}

function checkIpRange(text: string, subnet: Cidr | null): Cidr {
  const range = parseCidr(text);
  if (subnet === null) throw invalid('an ip-range needs its subnet', 'give --subnet too');
  if (!containsCidr(subnet, range))
    throw invalid(`the ip-range ${text} is not inside the subnet ${formatCidr(subnet)}`, 'choose a part of the subnet');
  const space = blockSpace(subnet);
  if (!containsCidr(space, range))
    throw invalid(
      `the ip-range ${text} is not among the automatic addresses of the subnet, ${formatCidr(space)}`,
      'choose a part of these',
    );
  return range;
}

function checkGateways(given: readonly string[], subnet: Cidr | null): bigint | null {
  if (given.length === 0) return null;
  if (subnet === null) throw invalid('a gateway needs its subnet', 'give --subnet too');
  if (given.length > 1) throw invalid('there are more gateways than subnets', 'give one --gateway for each --subnet');
  return checkInSubnet('the gateway', given[0]!, subnet);
}

/** @throws INVALID_ARGUMENT unless an address that an endpoint or a gateway of the subnet may have */
export function checkInSubnet(what: string, text: string, subnet: Cidr): bigint {
  const ip = parseIp(text);
  if (!containsIp(subnet, ip))
    throw invalid(`${what} ${text} is not in the subnet ${formatCidr(subnet)}`, 'choose an address of the subnet');
  if (!isUsable(subnet, ip)) {
    const which = ip === subnet.base ? 'network' : 'broadcast';
    throw invalid(`${what} ${text} is the ${which} address of ${formatCidr(subnet)}`, 'choose another address');
  }
  return ip;
}

/** The same, in whichever subnet of the network has the address's family. */
export function checkInNetwork(what: string, text: string, network: Pick<Network, 'subnets'>): bigint {
  return checkInSubnet(what, text, subnetOf(network, familyOf(parseIp(text))) ?? parseCidr(network.subnets[0]!));
}

/** After the subnets are known: blocks must be able to hold an endpoint. @throws INVALID_ARGUMENT */
export function checkRoom(network: Network): void {
  for (const plan of addressPlans(network))
    if (usableCount(plan, plan.range) <= 0)
      throw invalid(
        `${formatCidr(plan.range)} has no address left for an endpoint`,
        'take a larger subnet or ip-range',
      );
}

/** An address that a user wants an endpoint to have, with its family's plan. @throws INVALID_ARGUMENT */
export function checkAssignable(network: Network, text: string): { ip: bigint; plan: AddressPlan } {
  const ip = checkInNetwork('the address', text, network);
  const plan = addressPlan(network, familyOf(ip));
  if (plan === null || !isAssignable(plan, ip))
    throw invalid(`the address ${formatIp(ip)} is the gateway's or an auxiliary address`, 'choose another address');
  return { ip, plan };
}
