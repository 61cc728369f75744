/** Judges changes of a network that is in use. Pure. */
import { containsIp, familyOf, formatIp, parseCidr, subnetOf, tryParseIp } from '../../lib/addr.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Network, Rate } from '../../lib/model.ts';
import { BY_DOCKER } from '../../lib/network-options.ts';
import { checkRate } from '../../lib/rate.ts';
import { SPECIAL_RANGES } from '../../lib/special-ranges.ts';
import type { NetworkEdit } from '../contract.ts';
import { checkPolicyDefault } from './spec.ts';

/** Of a network; each host takes one of them. */
export const MAX_EGRESS_IPS = 256;

/**
 * @param fields names of what is to be changed; the rest of `values` means nothing
 * @throws UNIMPLEMENTED a field that cannot be changed; INVALID_ARGUMENT; FAILED_PRECONDITION the network cannot have it
 */
export function checkEdit(network: Network, fields: readonly string[], values: Network): NetworkEdit {
  if (fields.length === 0)
    throw new WeftError('INVALID_ARGUMENT', 'Nothing to change was given.', { hint: 'see weft network set --help' });
  const fixed = fields.find((field) => !LIVE.includes(field));
  if (fixed !== undefined)
    throw new WeftError(
      'UNIMPLEMENTED',
      `"${middleCut(fixed)}" of network ${network.name} cannot be changed while the network is there.`,
      { hint: 'make another network with the settings that you want' },
    );
  return {
    ...(fields.includes('egressIps') ? { egressIps: checkEgressIps(network, values.egressIps) } : {}),
    ...(fields.includes('rate') ? { rate: defaultRate(values.rate) } : {}),
    ...(fields.includes('policyDefault') ? { policyDefault: checkDefault(network, values.policyDefault) } : {}),
  };
}

function checkDefault(network: Network, asked: string): string {
  const policyDefault = checkPolicyDefault(asked);
  if (policyDefault !== '' && network.encap === 'vlan')
    throw new WeftError('FAILED_PRECONDITION', `Network ${network.name} is a vlan: it has no policies.`, {
      hint: 'make a network of another encapsulation',
    });
  return policyDefault;
}

/** Fields that can be changed. */
const LIVE: readonly string[] = ['egressIps', 'policyDefault', 'rate'];

/** As much as they can is what its endpoints do without a word. */
const defaultRate = (rate: Rate | undefined): Rate | undefined =>
  rate === undefined || checkRate(rate).bits === 0n ? undefined : rate;

function checkEgressIps(network: Network, given: readonly string[]): string[] {
  const why = noWayOut(network);
  if (given.length > 0 && why !== null)
    throw new WeftError('FAILED_PRECONDITION', `Network ${network.name} has no way out by Weft: ${why}.`, {
      hint: 'an egress address is for networks that lead out by themselves',
    });
  if (given.length > MAX_EGRESS_IPS)
    throw invalid(`More than ${MAX_EGRESS_IPS} egress addresses were given.`, 'give fewer');
  return [...new Set(given.map((text) => checkEgressIp(network, text)))];
}

function checkEgressIp(network: Network, text: string): string {
  const ip = tryParseIp(text);
  if (ip === null) throw invalid(`"${middleCut(text)}" is no address.`, 'give an IPv4 or IPv6 address of a host');
  const canonical = formatIp(ip);
  const never = SPECIAL_RANGES.find((cidr) => containsIp(cidr, ip));
  if (never !== undefined)
    throw invalid(`${canonical} can be no host’s address for the world.`, 'give one of a host’s interface');
  const within = network.subnets.find((cidr) => containsIp(parseCidr(cidr), ip));
  if (within !== undefined)
    throw invalid(
      `${canonical} is in the network's own subnet ${within}.`,
      'give an address of a host, outside the mesh',
    );
  if (subnetOf(network, familyOf(ip)) === null)
    throw invalid(
      `Network ${network.name} has no IPv${familyOf(ip)}: nothing leaves it by ${canonical}.`,
      'give an address of its family',
    );
  return canonical;
}

/** Why its containers do not leave the mesh by Weft; null: they do. */
export function noWayOut(network: Network): string | null {
  if (network.encap === 'vlan') return 'a vlan has gateways of its own';
  if (network.internal) return 'it is internal';
  if (network.publishBy === BY_DOCKER) return 'Docker’s gateway bridge leads out';
  return network.gateways.length === 0 ? 'it has no gateway' : null;
}

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });
