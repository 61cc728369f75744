/**
 * Which devices Weft may take as a port. Pure. What belongs to the host itself never: hardware, a device with an address or with the
 * default route (invariant I8), a port of somebody else's bridge.
 */
import { WeftError } from '../../lib/errors.ts';
import { isOurLink } from '../link/names.ts';

export interface Device {
  readonly name: string;
  /** Kind of a virtual device ("tun", "veth"); null = hardware, or the loopback. */
  readonly kind: string | null;
  /** "ether"; a tun device without Ethernet has "none". */
  readonly linkType: string;
  readonly mtu: number;
  readonly up: boolean;
  /** Bridge or bond that it belongs to. */
  readonly master: string | null;
  /** address/prefix; those of link scope, which the kernel gives by itself, are left out. */
  readonly addresses: readonly string[];
}

/** Their other end is a virtual machine, a namespace or a process: never a wire. */
const KINDS: ReadonlySet<string> = new Set(['tun', 'veth', 'macvtap']);

/** Bytes: IFNAMSIZ is 16 with the terminating zero. */
const LONGEST = 15;

/** A name that the kernel gives to a device (dev_valid_name; it takes "%" for a place where a number goes), and that can be read. */
export const isLinkName = (name: string): boolean =>
  /^[^\s/:%\p{Cc}]+$/u.test(name) && Buffer.byteLength(name) <= LONGEST && name !== '.' && name !== '..';

/** Reads `ip -j -d addr show dev NAME`; null when it is not as expected. */
export function parseDevice(json: string): Device | null {
  const items: unknown = json.trim() === '' ? [] : JSON.parse(json);
  const o = (Array.isArray(items) ? items : []).find((i) => typeof i === 'object' && 'ifname' in i) as
    | {
        ifname: string;
        link_type?: string;
        mtu?: number;
        flags?: string[];
        master?: string;
        linkinfo?: { info_kind?: string };
        addr_info?: { local?: string; prefixlen?: number; scope?: string }[];
      }
    | undefined;
  if (o === undefined) return null;
  return {
    name: o.ifname,
    kind: o.linkinfo?.info_kind ?? null,
    linkType: o.link_type ?? '',
    mtu: o.mtu ?? 0,
    up: o.flags?.includes('UP') === true,
    master: o.master ?? null,
    addresses: (o.addr_info ?? [])
      .filter((a) => a.local !== undefined && a.scope !== 'link')
      .map((a) => `${a.local}/${a.prefixlen}`),
  };
}

/** @throws FAILED_PRECONDITION, INVALID_ARGUMENT: why it is not taken */
export function judgeDevice(d: Device, around: { defaultRoute: boolean; bridge: string | null }): void {
  const refuse = (message: string, hint: string): never => {
    throw new WeftError('FAILED_PRECONDITION', message, { hint });
  };
  const { name, kind } = d;
  const takes = 'weft attach takes taps, ends of veth pairs and macvtaps';
  if (around.bridge === name || name === 'ovs-netdev' || name === 'ovs-system')
    refuse(`${name} is Open vSwitch's own device`, takes);
  if (isOurLink(name)) refuse(`${name} is a link of Weft's own`, takes);
  if (d.linkType === 'loopback') refuse(`${name} is the host's loopback`, takes);
  if (kind === null) refuse(`${name} is a physical interface: Weft leaves the host's own to the host`, takes);
  if (!KINDS.has(kind ?? '')) refuse(`${name} is a ${kind} device, which cannot be attached`, takes);
  if (d.linkType !== 'ether')
    refuse(`${name} carries IP packets, not Ethernet frames`, `make a tap: ip tuntap add dev ${name} mode tap`);
  if (around.defaultRoute) refuse(`the host's default route goes through ${name}`, takes);
  const [address] = d.addresses;
  if (address !== undefined)
    refuse(
      `${name} has address ${address} on this host`,
      `is it really the right one? Then: ip addr del ${address} dev ${name}`,
    );
  if (d.master !== null) refuse(`${name} belongs to ${d.master}`, `take it out first: ip link set ${name} nomaster`);
  if (around.bridge !== null)
    refuse(
      `${name} is a port of Open vSwitch's bridge ${around.bridge}`,
      `take it out first: ovs-vsctl del-port ${around.bridge} ${name}`,
    );
}
