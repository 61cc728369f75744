/** Names of the links (netdevs) that Weft makes: they say whose they are, to an agent without memory. Pure. */

const ENDPOINT = /^wf[tckoghi][0-9a-f]{12}$/;
/** IFNAMSIZ is 16 with the terminating zero: three letters and twelve hex digits of the endpoint's id. */
const ID_DIGITS = 12;

const named = (prefix: string) => (endpointId: string) => prefix + endpointId.slice(0, ID_DIGITS);
/** The host's side of an endpoint's veth pair. */
export const hostLink = named('wft');
/** The container's side, before Docker renames it to eth0. */
export const containerLink = named('wfc');
/** Where frames of the endpoint that are not for the express path go on to Open vSwitch: the kernel's side of a second pair. */
export const slowLink = named('wfk');
/** The other side of that pair, a port of br-weft. */
export const switchLink = named('wfo');

/** The gate of an endpoint with a rate: what it sends waits at the one end, and goes on from the other. */
export const gateLink = named('wfg');
export const gateExit = named('wfh');

/** Beside an endpoint's link, where eBPF does not lead to a gate: what it sends waits there (an ifb). */
export const beside = named('wfi');
export const besideOf = (hostLinkName: string): string => `wfi${hostLinkName.slice(3)}`;

/** The kernel-tunnel backend's way between br-weft and the tunnel devices: the kernel's side, and the port of br-weft. */
export const TUNNEL_KERNEL = 'weft-tk';
export const TUNNEL_SWITCH = 'weft-to';
/** Between the host itself and br-weft: the host's end, with addresses, and the port of br-weft. */
export const GATEWAY = 'weft-gw';
export const GATEWAY_SWITCH = 'weft-go';
/** Tunnel devices of the kernel by encapsulation, all with their key and peer in metadata (ip-link(8), `external`). */
export const TUNNEL_DEVICE = { vxlan: 'weft-vxlan', geneve: 'weft-geneve', gre: 'weft-gre' } as const;
export type TunnelEncap = keyof typeof TUNNEL_DEVICE;

const SINGLE: ReadonlySet<string> = new Set([
  TUNNEL_KERNEL,
  TUNNEL_SWITCH,
  GATEWAY,
  GATEWAY_SWITCH,
  ...Object.values(TUNNEL_DEVICE),
]);

/** Of the host itself, not of an endpoint. */
export const isSingle = (name: string): boolean => SINGLE.has(name);
export const isContainerLink = (name: string): boolean => ENDPOINT.test(name) && name.startsWith('wfc');
export const isOurLink = (name: string): boolean => ENDPOINT.test(name) || isSingle(name);

/** Both ends of a pair go together, and are known by one of them: the kernel's side. */
export function primaryOf(name: string): string {
  if (name === TUNNEL_SWITCH) return TUNNEL_KERNEL;
  if (name === GATEWAY_SWITCH) return GATEWAY;
  if (name.startsWith('wfc')) return `wft${name.slice(3)}`;
  if (name.startsWith('wfh')) return `wfg${name.slice(3)}`;
  return name.startsWith('wfo') ? `wfk${name.slice(3)}` : name;
}

/** The ends of the pair that `name` belongs to, the primary first; one name where it has no other end. */
export function endsOf(name: string): readonly string[] {
  const primary = primaryOf(name);
  if (primary === TUNNEL_KERNEL) return [primary, TUNNEL_SWITCH];
  if (primary === GATEWAY) return [primary, GATEWAY_SWITCH];
  if (primary.startsWith('wft')) return [primary, `wfc${primary.slice(3)}`];
  if (primary.startsWith('wfg')) return [primary, `wfh${primary.slice(3)}`];
  return primary.startsWith('wfk') ? [primary, `wfo${primary.slice(3)}`] : [primary];
}
