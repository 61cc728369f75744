/**
 * Encapsulations: what they cost of the underlay's MTU, and which hosts can carry them. Pure.
 * Headers in front of an inner IP packet, besides the outer IP header (20 or 40 bytes): inner Ethernet 14; VXLAN 8 and UDP 8 (RFC
 * 7348); Geneve 8 without options and UDP 8 (RFC 8926); GRE 4 and its key 4 (RFC 2890).
 */
import { WeftError } from '../../lib/errors.ts';
import type { Host } from '../../lib/model.ts';

export const ENCAPS = ['vxlan', 'geneve', 'gre', 'vlan'] as const;
export type Encap = (typeof ENCAPS)[number];

/** Of an underlay of which nothing is known. */
export const USUAL_MTU = 1500;
export const MAX_MTU = 65_535;
/** IPv4 needs 68 (RFC 791), IPv6 1280 (RFC 8200). */
export const leastMtu = (ipv6: boolean): number => (ipv6 ? 1280 : 68);

const INNER: Readonly<Record<Encap, number>> = { vxlan: 30, geneve: 30, gre: 22, vlan: 0 };

/** Bytes of the underlay's MTU that the encapsulation takes. */
export const overheadOf = (encap: Encap, outer: 'ipv4' | 'ipv6'): number =>
  encap === 'vlan' ? 0 : INNER[encap] + (outer === 'ipv6' ? 40 : 20);

export const isEncap = (text: string): text is Encap => (ENCAPS as readonly string[]).includes(text);

/** A name that Linux takes for an interface (dev_valid_name in net/core/dev.c). */
export const isUplink = (text: string): boolean => /^[^/:\s\0]{1,15}$/.test(text) && text !== '.' && text !== '..';

export const isVlanTag = (tag: number): boolean => Number.isInteger(tag) && tag >= 1 && tag <= 4094;

/** What decides how a network travels. */
export interface Carriage {
  readonly encap: Encap;
  /** Only for "vlan". */
  readonly uplink: string;
}

const reasonOf = (host: Host, probe: string): string => host.probes.find((p) => p.name === probe)?.reason ?? '';

/** Null, or why the host cannot carry it: the agent's own words where it has some. */
export function cannotCarry(host: Host, { encap, uplink }: Carriage): string | null {
  if (encap !== 'vlan') {
    if (host.vteps.some((vtep) => vtep.encaps.includes(encap))) return null;
    return reasonOf(host, `encap/${encap}`) || `it has no ${encap}`;
  }
  if (!host.capabilities.includes('encap/vlan')) return reasonOf(host, 'encap/vlan') || 'it has no vlan networks';
  if (host.capabilities.includes(`uplink/${uplink}`)) return null;
  return reasonOf(host, `uplink/${uplink}`) || `it has no uplink ${uplink}`;
}

/** @throws FAILED_PRECONDITION when there are connected hosts, and none of them can carry it; they are named */
export function checkCarried(connected: readonly Host[], carriage: Carriage): void {
  const reasons = connected.map((host) => cannotCarry(host, carriage));
  if (connected.length === 0 || reasons.includes(null)) return;
  const shown = connected.slice(0, 5).map((host, i) => `${host.name} (${reasons[i]})`);
  const more = connected.length > 5 ? ` and ${connected.length - 5} more` : '';
  const what = carriage.encap === 'vlan' ? `vlan on ${carriage.uplink}` : carriage.encap;
  throw new WeftError('FAILED_PRECONDITION', `no connected host can carry ${what}: ${shown.join(', ')}${more}`, {
    hint:
      carriage.encap === 'vlan'
        ? 'name an interface without an address that the hosts have (they look for new ones every 10 s): weft host inspect'
        : 'choose another encapsulation: weft host inspect shows what each host has',
  });
}

/** Largest MTU that a network can have on the host; null where its underlay's is not known. */
export function largestOn(host: Host, { encap, uplink }: Carriage): number | null {
  if (encap === 'vlan') {
    // The agent says the uplink's MTU as the result of its probe.
    const found = Number(host.probes.find((p) => p.name === `uplink/${uplink}`)?.result);
    return Number.isInteger(found) && found > 0 ? found : null;
  }
  if (host.underlayMtu === 0) return null;
  const six = host.vteps.some((vtep) => vtep.address.includes(':') && vtep.encaps.includes(encap));
  return host.underlayMtu - overheadOf(encap, six ? 'ipv6' : 'ipv4');
}

export interface Bound {
  readonly mtu: number;
  /** The host that sets it; null = none, it is the usual one. */
  readonly host: Host | null;
}

/** The largest MTU that every connected host that can carry the network lets through. */
export function largestMtu(connected: readonly Host[], carriage: Carriage): Bound {
  let bound: Bound | null = null;
  for (const host of connected) {
    const largest = cannotCarry(host, carriage) === null ? largestOn(host, carriage) : null;
    if (largest !== null && (bound === null || largest < bound.mtu)) bound = { mtu: largest, host };
  }
  const usual = USUAL_MTU - overheadOf(carriage.encap, 'ipv4');
  return bound === null ? { mtu: usual, host: null } : { ...bound, mtu: Math.min(bound.mtu, MAX_MTU) };
}

/**
 * The MTU of a new network.
 * @param wanted null = the largest
 * @throws FAILED_PRECONDITION above what a connected host lets through, INVALID_ARGUMENT below what IP needs
 */
export function chooseMtu(
  connected: readonly Host[],
  carriage: Carriage,
  wanted: number | null,
  ipv6: boolean,
): number {
  const { mtu, host } = largestMtu(connected, carriage);
  const least = leastMtu(ipv6);
  if (wanted !== null && ipv6 && wanted < least)
    throw new WeftError('INVALID_ARGUMENT', `an MTU of ${wanted} is too small for IPv6`, {
      hint: `choose ${least} or more, or leave --mtu out`,
    });
  if (wanted === null) {
    if (mtu >= least) return mtu;
    throw new WeftError(
      'FAILED_PRECONDITION',
      `${carrierOf(host, carriage)}, which leaves only ${mtu} bytes for the network`,
      {
        hint: 'set the MTU of the underlay interface higher',
      },
    );
  }
  if (host === null || wanted <= mtu) return wanted;
  throw new WeftError(
    'FAILED_PRECONDITION',
    `an MTU of ${wanted} is too large: ${carrierOf(host, carriage)}, so the largest with ${carriage.encap} is ${mtu}`,
    { hint: `choose ${mtu} or less, or leave --mtu out; weft doctor mtu shows what gets through` },
  );
}

/** What sets the bound, in words. */
function carrierOf(host: Host | null, carriage: Carriage): string {
  if (host === null) return 'the underlay';
  if (carriage.encap !== 'vlan') return `the underlay of ${host.name} has MTU ${host.underlayMtu}`;
  return `${carriage.uplink} of ${host.name} has MTU ${largestOn(host, carriage)}`;
}

/** Null, or the sentence about a network that is too large for the host. */
export function mtuConflict(
  host: Host,
  network: { readonly name: string; readonly mtu: number; readonly encap: string; readonly uplink: string },
): string | null {
  const { encap } = network;
  if (!isEncap(encap)) return null;
  const largest = largestOn(host, { encap, uplink: network.uplink });
  if (largest === null || network.mtu <= largest) return null;
  const underlay = encap === 'vlan' ? largest : host.underlayMtu;
  return `network ${network.name} has MTU ${network.mtu}, ${host.name}'s underlay carries ${underlay} (${largest} inside ${encap}): larger packets are lost; weft doctor mtu --network ${network.name} shows which paths`;
}
