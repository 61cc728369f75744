/** Why a host does not give an address: sentences, and what to do. Pure. */
import {
  containsIp,
  type Family,
  familyOf,
  formatCidr,
  formatIp,
  lastOf,
  parseCidr,
  subnetOf,
  tryParseIp,
} from '../lib/addr.ts';
import { WeftError } from '../lib/errors.ts';
import type { Network } from '../lib/model.ts';
import { isAssignable, reservedOf } from './address-pick.ts';

export const inUse = (ip: string, network: Network, why: string): WeftError =>
  new WeftError('ALREADY_EXISTS', `address ${ip} of network ${network.name} is in use: ${why}`, {
    hint: `choose another address, or leave ${flagOf(ip)} out`,
  });

export const flagOf = (ip: string): string => (ip.includes(':') ? '--ip6' : '--ip');

/** @throws INVALID_ARGUMENT not of the subnet; FAILED_PRECONDITION no endpoint may have it */
export function refuseUnusable(network: Network, ip: bigint): void {
  const reserved = reservedOf(network);
  const text = formatIp(ip);
  const subnet = subnetOf(network, familyOf(ip)) ?? parseCidr(network.subnets[0] ?? '');
  if (!containsIp(subnet, ip))
    throw new WeftError(
      'INVALID_ARGUMENT',
      `address ${text} is not in subnet ${formatCidr(subnet)} of network ${network.name}`,
      {
        hint: `choose one between ${formatIp(subnet.base + 1n)} and ${formatIp(lastOf(subnet) - 1n)}`,
      },
    );
  if (isAssignable(reserved, ip)) return;
  const gateway = network.gateways.some((g) => tryParseIp(g) === ip);
  const what =
    ip === subnet.base
      ? 'the network address'
      : ip === lastOf(subnet)
        ? 'the broadcast address'
        : gateway
          ? 'the gateway'
          : 'an auxiliary address';
  throw new WeftError('FAILED_PRECONDITION', `address ${text} is ${what} of network ${network.name}`, {
    hint: 'choose another address',
  });
}

export function explainNoBlock(network: Network, family: Family, host: string, error: unknown): WeftError {
  const e = WeftError.from(error);
  if (e.code !== 'UNAVAILABLE') return e;
  return new WeftError(
    'UNAVAILABLE',
    `host ${host} has no free ${family === 6 ? 'IPv6 ' : ''}address of network ${network.name} in its own blocks, and no coordinator can be asked for a further block`,
    { hint: 'try again when the coordinator is back', cause: error },
  );
}
