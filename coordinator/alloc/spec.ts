/** Judges what a user asks a network to be. Pure: every refusal is a sentence that says what to do. */
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Network } from '../../lib/model.ts';
import { BY_DOCKER, DROP, NEAREST, type NetworkOptions, networkOptions } from '../../lib/network-options.ts';
import type { NetworkBind, NetworkSpec } from '../contract.ts';
import { ENCAPS, type Encap, isEncap, isUplink, isVlanTag, MAX_MTU } from './encap.ts';
import { type CheckedFamilies, checkFamilies, checkInNetwork } from './families.ts';

export const MAX_VNI = 2 ** 24 - 1;
/** Characters of all labels and options of a network: every host and every watcher gets them. */
const MAX_TEXTS = 65_536;
/** What IPv4 needs (RFC 791). */
const MIN_MTU = 68;
/** Names that Docker has for itself. */
const DOCKERS_OWN = ['bridge', 'host', 'none', 'default'];

/** A spec in numbers; null = to be picked. */
export interface CheckedSpec extends CheckedFamilies {
  /** Address space: subnets of one do not overlap. */
  readonly space: string;
  readonly vni: number | null;
  readonly mtu: number | null;
  readonly wire: Wire;
}

/** How a network travels: chosen when it is created, by flags or by driver options. */
export interface Wire {
  readonly encap: Encap;
  readonly uplink: string;
  readonly vlanTag: number;
  readonly allowTrust: boolean;
  /** Empty: Weft. */
  readonly publishBy: string;
  /** Empty: turned by chance. */
  readonly dnsOrder: string;
  /** Empty: what no policy is about is allowed. */
  readonly policyDefault: string;
}

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });
const missing = (message: string, hint: string): WeftError => new WeftError('UNIMPLEMENTED', message, { hint });

/** Where subnets are unless something else is said. */
const DEFAULT_SPACE = 'default';

/** Everything that can be said of a spec without knowing other networks. @throws INVALID_ARGUMENT, UNIMPLEMENTED */
export function checkSpec(spec: NetworkSpec): CheckedSpec {
  if (spec.name !== '') checkName(spec.name);
  if (spec.project !== 'default')
    throw missing(`projects are not there yet: "${middleCut(spec.project)}"`, 'leave the project out');
  const space = spec.space || DEFAULT_SPACE;
  if (!/^[a-z0-9][a-z0-9_.-]{0,62}$/.test(space))
    throw invalid(
      `"${middleCut(space)}" cannot be the name of an address space`,
      'use 1 to 63 lower-case letters, digits, "_", "." or "-", beginning with a letter or digit',
    );
  if (spec.encrypted) throw missing('encryption is not there yet', 'leave --encrypt out');
  checkTexts(spec.labels, spec.options);
  const said = networkOptions(spec.options);
  const wire = checkWire(spec, said);
  checkWayOut(spec.internal, wire.publishBy);
  return {
    space,
    vni: checkVni(spec.vni, wire.encap),
    ...checkFamilies(spec),
    mtu: checkMtu(spec.mtu === 0 ? (said.mtu ?? 0) : spec.mtu),
    wire,
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

/**
 * Flags come before driver options.
 * @throws INVALID_ARGUMENT
 */
export function checkWire(
  flags: Pick<NetworkSpec, 'encap' | 'uplink' | 'vlanTag' | 'allowTrust' | 'publishBy' | 'dnsOrder' | 'policyDefault'>,
  said: NetworkOptions,
): Wire {
  const encap = flags.encap || said.encap || 'vxlan';
  const uplink = flags.uplink || said.uplink || '';
  const vlanTag = flags.vlanTag || said.vlanTag || 0;
  if (!isEncap(encap)) throw invalid(`"${middleCut(encap)}" is not an encapsulation`, `choose ${ENCAPS.join(', ')}`);
  const publishBy = checkPublishBy(flags.publishBy || said.publishBy || '');
  const dnsOrder = checkDnsOrder(flags.dnsOrder || said.dnsOrder || '');
  const allowTrust = flags.allowTrust || said.allowTrust === true;
  const policyDefault = checkPolicyDefault(flags.policyDefault || said.policyDefault || '');
  const wire = { encap, uplink, vlanTag, allowTrust, publishBy, dnsOrder, policyDefault };
  if (encap !== 'vlan') {
    if (uplink === '' && vlanTag === 0) return wire;
    throw invalid(`an uplink and a tag are for vlan networks, not for ${encap}`, 'give --encap vlan too');
  }
  if (policyDefault !== '') throw invalid('a vlan network has no policies', 'leave --policy-default drop out');
  if (uplink === '' || vlanTag === 0)
    throw invalid('a vlan network needs an uplink and a tag', 'give --uplink IFACE and --tag N');
  if (!isUplink(uplink))
    throw invalid(`"${middleCut(uplink)}" is not the name of an interface`, 'at most 15 characters, no "/" or blank');
  if (!isVlanTag(vlanTag)) throw invalid(`${vlanTag} is not a VLAN tag`, 'choose 1 to 4094');
  return wire;
}

/** @throws INVALID_ARGUMENT a way out that the network is not to have */
export function checkWayOut(internal: boolean, publishBy: string): void {
  if (internal && publishBy === BY_DOCKER)
    throw invalid(
      'an internal network has no way out, so Docker cannot lead it out either',
      'leave --internal or --publish-by docker out',
    );
}

/** @returns empty for Weft */
function checkPublishBy(who: string): string {
  if (who === '' || who === 'weft') return '';
  if (who === BY_DOCKER) return who;
  throw invalid(`"${middleCut(who)}" cannot publish ports`, 'choose --publish-by weft or docker');
}

/** @returns empty for turned by chance */
function checkDnsOrder(order: string): string {
  if (order === '' || order === 'rotate') return '';
  if (order === NEAREST) return order;
  throw invalid(`names cannot be answered in the order "${middleCut(order)}"`, 'choose --dns-order rotate or nearest');
}

/** @returns empty for allow */
export function checkPolicyDefault(what: string): string {
  if (what === '' || what === 'allow') return '';
  if (what === DROP) return what;
  throw invalid(`"${middleCut(what)}" cannot be what policies end with`, 'choose --policy-default allow or drop');
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
}

function checkVni(vni: number, encap: Encap): number | null {
  if (vni === 0) return null;
  if (encap === 'vlan') throw invalid('a vlan network has no VNI', 'leave --vni out: --uplink and --tag name it');
  if (!Number.isInteger(vni) || vni < 1 || vni > MAX_VNI)
    throw invalid(`${vni} is not a VNI`, `choose 1 to ${MAX_VNI}, or leave --vni out`);
  return vni;
}

export function checkMtu(mtu: number): number | null {
  if (mtu === 0) return null;
  if (!Number.isInteger(mtu) || mtu < MIN_MTU || mtu > MAX_MTU)
    throw invalid(`an MTU of ${mtu} is not possible`, `choose ${MIN_MTU} to ${MAX_MTU}, or leave --mtu out`);
  return mtu;
}

/** The second half of `docker network create`; without a name only its options are judged. @throws INVALID_ARGUMENT */
export function checkBind(bind: NetworkBind, network: Pick<Network, 'subnets'>): void {
  if (bind.name !== '') checkName(bind.name);
  checkTexts(bind.labels, bind.options);
  networkOptions(bind.options);
  for (const gateway of [bind.gateway, bind.gateway6])
    if (gateway !== '') checkInNetwork('the gateway', gateway, network);
  for (const [name, address] of Object.entries(bind.auxAddresses))
    checkInNetwork(`the auxiliary address ${name}`, address, network);
}
