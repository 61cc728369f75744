/** What can be done to links, and what is there: the vocabulary between the planner and the driver. Pure. */
import { isOurLink, type TunnelEncap } from './names.ts';
import { type Command, command } from './words.ts';

export interface Link {
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
  /** Kernel's number of the device; null = not read yet. */
  readonly ifindex: number | null;
  /** address/prefix of those that it has, without link-local ones of IPv6; absent: not read. */
  readonly addresses?: readonly string[];
}

/** What the host has on its end of a link. */
export interface HostEnd {
  readonly mac: string;
  /** address/prefix, IPv6 ones as hosts have them: without what is beside them. */
  readonly addresses: readonly string[];
  /** IPv6 prefix that is behind a neighbour which does not need to be asked for. */
  readonly behind?: { readonly cidr: string; readonly address: string; readonly mac: string };
}

/** An address in a container, and how it is written there. */
export interface Joined {
  /** Path of the container's network namespace. */
  readonly sandbox: string;
  readonly interfaceName: string;
  /** address/prefix, one or two. */
  readonly addresses: readonly string[];
  /** CIDR; reached directly. */
  readonly routes?: readonly string[];
  /** Ranges that are reached by a gateway of its network. */
  readonly ways?: readonly { readonly cidr: string; readonly via: string }[];
  /** Addresses that lead everywhere else. */
  readonly gateways?: readonly string[];
}

export type LinkStep =
  | {
      /** An endpoint's pair: the host's side, and the container's side with the endpoint's MAC. */
      readonly kind: 'addVeth';
      readonly host: string;
      readonly container: string;
      readonly mtu: number;
      readonly mac: string;
    }
  | {
      /** A running container lost its interface (someone deleted the pair): make it again inside the sandbox. */
      readonly kind: 'restoreVeth';
      readonly host: string;
      readonly container: string;
      readonly mtu: number;
      readonly mac: string;
      readonly joined: Joined;
    }
  | {
      /** A way between the kernel and br-weft. */
      readonly kind: 'addPair';
      readonly name: string;
      readonly peer: string;
      readonly mtu: number;
      /** Of `name`; absent: nothing is said there. */
      readonly host?: HostEnd;
      /** Addresses are rewritten in what it carries, and that leaves the host. */
      readonly rewritten?: true;
      /** Open vSwitch does not read it: segments stay whole on it. */
      readonly whole?: true;
    }
  /** Where what comes in by another link waits (ip-link(8), ifb). */
  | { readonly kind: 'addIfb'; readonly name: string; readonly mtu: number }
  | {
      readonly kind: 'addTunnel';
      readonly name: string;
      readonly encap: TunnelEncap;
      /** The VTEPs are IPv6 addresses. */
      readonly ipv6: boolean;
      readonly udpPort: number;
      readonly mtu: number;
    }
  | {
      readonly kind: 'setLink';
      readonly name: string;
      readonly peer: string | null;
      readonly mtu: number;
      readonly host?: HostEnd;
    }
  | { readonly kind: 'delLink'; readonly name: string };

/**
 * Commands in the host's namespace (ip-link(8)). A device is never named without "dev" or "name" before it: it may be called like a
 * word that ip knows.
 */
export function hostCommands(step: LinkStep): Command[] {
  switch (step.kind) {
    case 'addVeth':
    case 'restoreVeth': {
      const { host, container, mtu, mac } = step;
      return [
        command`link add name ${host} mtu ${mtu} type veth peer name ${container} mtu ${mtu} address ${mac}`,
        // The host has no address of its own there, and says nothing.
        command`link set dev ${host} addrgenmode none up`,
      ];
    }
    case 'addPair': {
      const { name, peer, mtu } = step;
      return [
        command`link add name ${name} mtu ${mtu} type veth peer name ${peer} mtu ${mtu}`,
        command`link set dev ${peer} addrgenmode none up`,
        command`link set dev ${name} addrgenmode none up`,
        ...hostEnd(name, step.host),
      ];
    }
    case 'addIfb':
      return [
        command`link add name ${step.name} mtu ${step.mtu} type ifb`,
        command`link set dev ${step.name} addrgenmode none up`,
      ];
    case 'addTunnel':
      return [
        [...command`link add name ${step.name} mtu ${step.mtu} type`, ...tunnelType(step)],
        command`link set dev ${step.name} addrgenmode none up`,
      ];
    case 'setLink': {
      const { name, peer, mtu } = step;
      return [
        ...[name, ...(peer === null ? [] : [peer])].map((end) => command`link set dev ${end} mtu ${mtu} up`),
        // What somebody else has added there goes.
        ...(step.host === undefined ? [] : [command`addr flush dev ${name}`]),
        ...hostEnd(name, step.host),
      ];
    }
    case 'delLink':
      return [command`link del dev ${step.name}`];
  }
}

/** Scope link: never the source of what goes elsewhere (ip-address(8)). */
const hostEnd = (name: string, host: HostEnd | undefined): Command[] =>
  host === undefined
    ? []
    : [
        command`link set dev ${name} address ${host.mac}`,
        ...host.addresses.map((a) =>
          a.includes(':')
            ? command`addr replace ${a} nodad dev ${name}`
            : command`addr replace ${a} scope link dev ${name}`,
        ),
        ...(host.behind === undefined
          ? []
          : [
              command`neigh replace ${host.behind.address} lladdr ${host.behind.mac} nud permanent dev ${name}`,
              command`route replace ${host.behind.cidr} via ${host.behind.address} dev ${name}`,
            ]),
      ];

/** `external`: key, addresses and options come with each frame. Peers over IPv6 may leave the UDP checksum out (RFC 6935). */
function tunnelType(step: LinkStep & { kind: 'addTunnel' }): Command {
  if (step.encap === 'gre') return [step.ipv6 ? 'ip6gretap' : 'gretap', 'external'];
  return command`${step.encap} external dstport ${step.udpPort} udp6zerocsumrx`;
}

type Restore = LinkStep & { kind: 'restoreVeth' };

/** Apart from the others: of a path that is no namespace any more ip(8) complains by ending. */
export const moveCommand = ({ container, joined }: Restore): Command =>
  command`link set dev ${container} netns ${joined.sandbox}`;

/** Commands inside the sandbox. */
export function sandboxCommands({ container, joined }: Restore): Command[] {
  const { interfaceName, addresses, routes = [], ways = [], gateways = [] } = joined;
  return [
    // Nobody else can have it: no need to ask (RFC 4862 §5.4). Before the name, which somebody else's link may have by now.
    ...addresses.map((a) =>
      a.includes(':')
        ? command`addr add ${a} nodad dev ${container}`
        : command`addr add ${a} broadcast + dev ${container}`,
    ),
    command`link set dev ${container} name ${interfaceName}`,
    command`link set dev ${interfaceName} up`,
    ...routes.map((cidr) => command`route replace ${cidr} dev ${interfaceName}`),
    ...ways.map(({ cidr, via }) => command`route replace ${cidr} via ${via} dev ${interfaceName}`),
    ...gateways.map((ip) => command`route replace default via ${ip} dev ${interfaceName}`),
  ];
}

/** What the kernel has told of a link; null: it is gone from the host's namespace. */
export interface LinkChange {
  readonly name: string;
  readonly link: Link | null;
}

/**
 * A line of `ip -o monitor link`: "3: wft…@wfc…: <BROADCAST,UP> mtu 1450 …", with "Deleted " before it. Null when of no concern. A name may
 * have an "@" of its own.
 */
export function parseNotice(line: string, concerns: (name: string) => boolean = isOurLink): LinkChange | null {
  const m = /^(Deleted )?(\d+): ([^:\s]+): <([^>]*)> mtu (\d+) /.exec(line);
  const shown = m?.[3] ?? '';
  const name = [shown, shown.replace(/@[^@]*$/, '')].find(concerns);
  if (m === null || name === undefined) return null;
  if (m[1] !== undefined) return { name, link: null };
  const up = (m[4] ?? '').split(',').includes('UP');
  return { name, link: { name, mtu: Number(m[5]), up, ifindex: Number(m[2]) } };
}

/** Reads `ip -j addr show`: what concerns us only. Entries that are not as expected are left out. */
export function parseLinks(json: string, concerns: (name: string) => boolean = isOurLink): Map<string, Link> {
  const out = new Map<string, Link>();
  const items: unknown = json.trim() === '' ? [] : JSON.parse(json);
  for (const item of Array.isArray(items) ? items : []) {
    const o = item as { ifname?: unknown; ifindex?: unknown; mtu?: unknown; flags?: unknown; addr_info?: unknown };
    if (typeof o.ifname !== 'string' || typeof o.mtu !== 'number' || !Array.isArray(o.flags)) continue;
    const ifindex = typeof o.ifindex === 'number' ? o.ifindex : null;
    if (!concerns(o.ifname)) continue;
    const addresses = addressesOf(o.addr_info);
    const link = { name: o.ifname, mtu: o.mtu, up: o.flags.includes('UP'), ifindex };
    out.set(o.ifname, addresses.length === 0 ? link : { ...link, addresses });
  }
  return out;
}

function addressesOf(info: unknown): string[] {
  return (Array.isArray(info) ? info : []).flatMap((item) => {
    const { family, local, prefixlen, scope } = item as Readonly<Record<string, unknown>>;
    return family === 'inet' || (family === 'inet6' && scope !== 'link')
      ? [`${String(local)}/${String(prefixlen)}`]
      : [];
  });
}
