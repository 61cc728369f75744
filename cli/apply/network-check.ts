/** What can be said of a network that is asked for without knowing the mesh: as the coordinator judges it, and before it does. Pure. */
import type { CreateNetworkRequest } from '../../gen/weft/v1/control.ts';
import {
  type Cidr,
  canonicalIp,
  containsCidr,
  containsIp,
  familyOf,
  formatCidr,
  parseCidr,
  parseIp,
} from '../../lib/addr.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import { BY_DOCKER, DROP, NEAREST } from '../../lib/network-options.ts';
import { about } from './keys.ts';

const ENCAPS = ['vxlan', 'geneve', 'gre', 'vlan'];
const DOCKERS_OWN = ['bridge', 'host', 'none', 'default'];

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });

/** @returns with addresses in canonical form. @throws INVALID_ARGUMENT, UNIMPLEMENTED */
export function checkNetwork(r: CreateNetworkRequest): CreateNetworkRequest {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/.test(r.name))
    throw invalid(
      `"${middleCut(r.name)}" is not a network name`,
      'use 1 to 63 letters, digits, "_", "." or "-", beginning with a letter or digit',
    );
  if (DOCKERS_OWN.includes(r.name)) throw invalid(`"${r.name}" is a network of Docker's own`, 'choose another name');
  if (r.encrypted)
    throw new WeftError('UNIMPLEMENTED', '--encrypt: encryption is not there yet', { hint: 'leave it out' });
  if (r.encap !== '' && !ENCAPS.includes(r.encap))
    throw invalid(`--encap: "${middleCut(r.encap)}" is not an encapsulation`, `choose ${ENCAPS.join(', ')}`);
  if (r.space !== '' && !/^[a-z0-9][a-z0-9_.-]{0,62}$/.test(r.space))
    throw invalid(
      `--space: "${middleCut(r.space)}" cannot be the name of an address space`,
      'use 1 to 63 lower-case letters, digits, "_", "." or "-", beginning with a letter or digit',
    );
  oneOf('--publish-by', r.publishBy, ['weft', BY_DOCKER]);
  oneOf('--dns-order', r.dnsOrder, ['rotate', NEAREST]);
  oneOf('--policy-default', r.policyDefault, ['allow', DROP]);
  checkVlan(r);
  if (r.internal && r.publishBy === BY_DOCKER)
    throw invalid('--publish-by: an internal network has no way out, so Docker cannot lead it out', 'leave one out');
  return { ...r, ...checkAddresses(r) };
}

function oneOf(key: string, text: string, known: readonly string[]): void {
  if (text !== '' && !known.includes(text))
    throw invalid(`${key}: "${middleCut(text)}" is not known`, `choose ${known.join(' or ')}`);
}

function checkVlan(r: CreateNetworkRequest): void {
  if (r.encap !== 'vlan') {
    if (r.uplink !== '' || r.vlanTag !== 0)
      throw invalid(`--${r.uplink === '' ? 'tag' : 'uplink'} is for vlan networks`, 'write "encap: vlan" too');
    return;
  }
  if (r.uplink === '' || r.vlanTag === 0) throw invalid('a vlan network needs uplink and tag', 'give it both');
  if (r.vni !== 0) throw invalid('--vni: a vlan network has no VNI', 'leave it out: uplink and tag name it');
  if (r.policyDefault === DROP) throw invalid('--policy-default: a vlan network has no policies', 'leave it out');
}

function checkAddresses(r: CreateNetworkRequest): Pick<CreateNetworkRequest, 'subnets' | 'ipRange' | 'gateways'> {
  const subnets = r.subnets.map((text) => about('--subnet', () => parseCidr(text)));
  subnets.forEach((subnet, i) => {
    if (subnets.findIndex((one) => familyOf(one.base) === familyOf(subnet.base)) !== i)
      throw invalid('--subnet: two of one family', 'a network has one subnet of each family');
  });
  const of = (what: string, inside: (subnet: Cidr) => boolean): void => {
    if (subnets.length === 0) throw invalid(`${what} needs its subnet`, 'give subnet too');
    if (!subnets.some(inside))
      throw invalid(`${what} is not in ${subnets.map(formatCidr).join(' or ')}`, 'choose one inside the subnet');
  };
  const range = r.ipRange === '' ? null : about('--ip-range', () => parseCidr(r.ipRange));
  if (range !== null) of(`--ip-range ${r.ipRange}`, (subnet) => containsCidr(subnet, range));
  const gateways = r.gateways.map((text) => {
    const ip = about('--gateway', () => parseIp(text));
    of(`--gateway ${middleCut(text)}`, (subnet) => containsIp(subnet, ip));
    return canonicalIp(text);
  });
  return {
    subnets: subnets.sort((a, b) => familyOf(a.base) - familyOf(b.base)).map(formatCidr),
    ipRange: range === null ? '' : formatCidr(range),
    gateways,
  };
}
