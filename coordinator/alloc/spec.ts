/** Judges what a user asks a network to be. Pure: every refusal is a sentence that says what to do. */
import { middleCut, WeftError } from '../../lib/errors.ts';
import {
  type Cidr,
  containsCidr,
  containsIp,
  formatCidr,
  formatIp,
  isUsable,
  overlaps,
  parseCidr,
  parseIp,
} from '../../lib/ip.ts';
import type { NetworkBind, NetworkSpec } from '../contract.ts';
import { type AddressPlan, isAssignable, usableCount } from './blocks.ts';

export const MAX_VNI = 2 ** 24 - 1;
/** Characters of all labels and options of a network: every host and every watcher gets them. */
const MAX_TEXTS = 65_536;
const MIN_MTU = 576;
const MAX_MTU = 9000;
/** Of an underlay of 1500: outer IPv4, UDP, VXLAN and inner Ethernet headers take 50. */
const DEFAULT_MTU = 1450;
/** Names that Docker has for itself. */
const DOCKERS_OWN = ['bridge', 'host', 'none', 'default'];

/** A spec in numbers; null = to be picked. */
export interface CheckedSpec {
  readonly vni: number | null;
  readonly subnet: Cidr | null;
  readonly ipRange: Cidr | null;
  readonly gateway: number | null;
  readonly mtu: number;
}

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });
const missing = (message: string, hint: string): WeftError => new WeftError('UNIMPLEMENTED', message, { hint });

/** Everything that can be said of a spec without knowing other networks. @throws INVALID_ARGUMENT, UNIMPLEMENTED */
export function checkSpec(spec: NetworkSpec): CheckedSpec {
  if (spec.name !== '') checkName(spec.name);
  if (spec.project !== 'default')
    throw missing(`projects are not there yet: "${middleCut(spec.project)}"`, 'leave the project out');
  if (spec.space !== '' && spec.space !== 'default')
    throw missing(`address spaces are not there yet: "${middleCut(spec.space)}"`, 'leave --space out');
  if (spec.ipv6) throw missing('IPv6 is not there yet', 'leave --ipv6 out');
  if (spec.encrypted) throw missing('encryption is not there yet', 'leave --encrypt out');
  checkEncap(spec.encap);
  checkTexts(spec.labels, spec.options);
  const subnet = checkSubnets(spec.subnets);
  return {
    vni: checkVni(spec.vni),
    subnet,
    ipRange: checkIpRange(spec.ipRange, subnet),
    gateway: checkGateways(spec.gateways, subnet),
    mtu: checkMtu(spec.mtu),
  };
}

/** @throws INVALID_ARGUMENT unless Docker takes it as the name of a network */
export function checkName(name: string): void {
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/.test(name))
    throw invalid(
      `"${middleCut(name)}" is not a network name`,
      'use 1 to 63 letters, digits, "_", "." or "-", beginning with a letter or digit',
    );
  if (DOCKERS_OWN.includes(name)) throw invalid(`"${name}" is a network of Docker's own`, 'choose another name');
}

function checkEncap(encap: string): void {
  if (encap === '' || encap === 'vxlan') return;
  if (['geneve', 'gre', 'vlan'].includes(encap))
    throw missing(`the encapsulation ${encap} is not there yet`, 'leave --encap out: vxlan is used');
  throw invalid(`"${middleCut(encap)}" is not an encapsulation`, 'vxlan is the one there is');
}

/** What travels to every host and into Docker. An option that no driver of ours knows would be accepted and ignored. */
function checkTexts(labels: Readonly<Record<string, string>>, options: Readonly<Record<string, string>>): void {
  const texts = [...Object.entries(labels), ...Object.entries(options)];
  if (texts.some(([key]) => key.trim() === '')) throw invalid('a label or option has no name', 'write KEY=VALUE');
  if (texts.flat().some((text) => text.includes('\0')))
    throw invalid('a label or option has a zero byte in it', 'leave it out');
  const size = texts.flat().reduce((sum, text) => sum + text.length, 0);
  if (size > MAX_TEXTS)
    throw invalid(
      `labels and options have ${size} characters`,
      `they may have ${MAX_TEXTS} together: store less in them`,
    );
  const unknown = Object.keys(options).find((key) => key.startsWith('weft.') || key.startsWith('com.docker.network.'));
  if (unknown !== undefined)
    throw missing(`option "${middleCut(unknown)}" is not available on Weft networks`, 'leave it out');
}

function checkVni(vni: number): number | null {
  if (vni === 0) return null;
  if (!Number.isInteger(vni) || vni < 1 || vni > MAX_VNI)
    throw invalid(`${vni} is not a VNI`, `choose 1 to ${MAX_VNI}, or leave --vni out`);
  return vni;
}

function checkMtu(mtu: number): number {
  if (mtu === 0) return DEFAULT_MTU;
  if (!Number.isInteger(mtu) || mtu < MIN_MTU || mtu > MAX_MTU)
    throw invalid(`an MTU of ${mtu} is not possible`, `choose ${MIN_MTU} to ${MAX_MTU}, or leave --mtu out`);
  return mtu;
}

function checkSubnets(subnets: readonly string[]): Cidr | null {
  const six = subnets.find((text) => text.includes(':'));
  if (six !== undefined) throw missing(`IPv6 subnets are not there yet: ${six}`, 'give an IPv4 subnet');
  const parsed = subnets.map((text) => checkSubnet(text));
  if (parsed.length > 1) throw missing('a network has one IPv4 subnet for now', 'give --subnet once');
  return parsed[0] ?? null;
}

const SPECIAL: readonly (readonly [string, string])[] = [
  ['0.0.0.0/8', 'addresses of "this network"'],
  ['127.0.0.0/8', 'loopback addresses'],
  ['169.254.0.0/16', 'link-local addresses'],
  ['224.0.0.0/4', 'multicast addresses'],
  ['240.0.0.0/4', 'reserved addresses'],
];

function checkSubnet(text: string): Cidr {
  const subnet = parseCidr(text);
  for (const [range, what] of SPECIAL)
    if (overlaps(subnet, parseCidr(range)))
      throw invalid(`the subnet ${text} has ${what} (${range})`, 'take a private subnet, like 10.20.0.0/16');
  if (subnet.prefix > 30)
    throw invalid(`the subnet ${text} has no room for a gateway and an endpoint`, 'take a /30 or a larger one');
  return subnet;
}

function checkIpRange(text: string, subnet: Cidr | null): Cidr | null {
  if (text === '') return null;
  const range = parseCidr(text);
  if (subnet === null) throw invalid('an ip-range needs its subnet', 'give --subnet too');
  if (!containsCidr(subnet, range))
    throw invalid(`the ip-range ${text} is not inside the subnet ${formatCidr(subnet)}`, 'choose a part of the subnet');
  return range;
}

function checkGateways(texts: readonly string[], subnet: Cidr | null): number | null {
  const given = texts.filter((text) => text !== '');
  if (given.length === 0) return null;
  if (subnet === null) throw invalid('a gateway needs its subnet', 'give --subnet too');
  if (given.length > 1) throw invalid('there are more gateways than subnets', 'give one --gateway for each --subnet');
  return checkInSubnet('the gateway', given[0]!, subnet);
}

function checkInSubnet(what: string, text: string, subnet: Cidr): number {
  const ip = parseIp(text);
  if (!containsIp(subnet, ip))
    throw invalid(`${what} ${text} is not in the subnet ${formatCidr(subnet)}`, 'choose an address of the subnet');
  if (!isUsable(subnet, ip)) {
    const which = ip === subnet.base ? 'network' : 'broadcast';
    throw invalid(`${what} ${text} is the ${which} address of ${formatCidr(subnet)}`, 'choose another address');
  }
  return ip;
}

/** After the subnet is known: blocks must be able to hold an endpoint. @throws INVALID_ARGUMENT */
export function checkRoom(plan: AddressPlan): void {
  if (usableCount(plan, plan.range) > 0) return;
  throw invalid(`${formatCidr(plan.range)} has no address left for an endpoint`, 'take a larger subnet or ip-range');
}

/** The second half of `docker network create`. @throws INVALID_ARGUMENT */
export function checkBind(bind: NetworkBind, subnet: Cidr): void {
  checkName(bind.name);
  checkTexts(bind.labels, bind.options);
  if (bind.gateway !== '') checkInSubnet('the gateway', bind.gateway, subnet);
  for (const [name, address] of Object.entries(bind.auxAddresses))
    checkInSubnet(`the auxiliary address ${name}`, address, subnet);
}

/** An address that a user wants an endpoint to have. @throws INVALID_ARGUMENT */
export function checkAssignable(plan: AddressPlan, text: string): number {
  const ip = checkInSubnet('the address', text, plan.subnet);
  if (!isAssignable(plan, ip))
    throw invalid(`the address ${formatIp(ip)} is the gateway's or an auxiliary address`, 'choose another address');
  return ip;
}
