/**
 * The host's part of the way out and in, in nftables (nft(8)): what containers send gets the host's address, and ports of the host lead
 * to containers. The state of connections is the kernel's: it survives the agent and Open vSwitch. And on the links between containers
 * and Open vSwitch the host itself hears nothing and says nothing. Pure.
 */
import { canonicalIp, type Family, familyOfText, formatIp, tryParseIp } from '../../lib/addr.ts';
import { formatCidr, parseIp } from '../../lib/ip.ts';
import { formatIp6 } from '../../lib/ip6.ts';
import { deviceOf, type LocalEndpoint, type LocalNetwork } from '../contract.ts';
import { GATEWAY, GATEWAY_SWITCH, TUNNEL_SWITCH } from '../link/names.ts';
import { TRANSIT, TRANSIT6, transit6 } from './addresses.ts';
import { ANY4, ANY6 } from './ports.ts';

/** Families of our tables, all of this name. */
export const NFT_TABLE = 'weft';
export const NFT_FAMILIES = ['inet', 'arp'] as const;

/** One port of the host, and where it leads. */
export interface Publication {
  readonly protocol: string;
  /** ANY4, ANY6 or an address of the host. */
  readonly hostIp: string;
  readonly hostPort: number;
  /** Transit address. */
  readonly to: string;
  readonly port: number;
}

export function publicationsOf(endpoints: Iterable<LocalEndpoint>): Publication[] {
  const out: Publication[] = [];
  for (const { external, transit } of endpoints) {
    if (external === undefined || transit === undefined) continue;
    for (const { protocol, hostIp, hostPort, port } of external.ports) {
      const to = familyOfText(hostIp) === 4 ? transit : formatIp6(transit6(parseIp(transit)));
      out.push({ protocol, hostIp, hostPort, to, port });
    }
  }
  return out.sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
}

const keyOf = (p: Publication): string => `${p.protocol} ${p.hostIp} ${String(p.hostPort).padStart(5, '0')}`;

const CIDR = {
  4: formatCidr(TRANSIT),
  6: `${formatIp(TRANSIT6.base)}/${TRANSIT6.prefix}`,
} as const;
const WORD = { 4: 'ip', 6: 'ip6' } as const;
const FAMILIES: readonly Family[] = [4, 6];
const gw = `"${GATEWAY}"`;

/** Bridges of Docker's own: between them and us only published ports are open. */
const DOCKERS_BRIDGES = ['"docker0"', '"docker_gwbridge"', '"br-*"'];

/** A user-space switch reads a link beside the kernel, which would answer there as well, for any address of the host. */
const OWN_LINKS = ['wft*', 'wfk*', 'wfo*', 'wfg*', 'wfh*', TUNNEL_SWITCH, GATEWAY_SWITCH];

/** Others cannot be written there: '*' stands for many, quotes end a name. */
const PLAIN = /^[\w.-]+$/;

/** A source address of what an endpoint sends to the world. */
export interface Source {
  /** Transit address. */
  readonly of: string;
  /** Null: its network wants one that the host has not, so nothing leaves. */
  readonly as: string | null;
}

/** Who comes from outside has none of the addresses of the network that he comes into. */
export interface Inside {
  /** Transit address. */
  readonly to: string;
  /** Of the network behind it, of the same family; CIDR. */
  readonly subnet: string;
}

export interface NftModel {
  readonly publications: readonly Publication[];
  /** Of those that do not leave by the address of the host's interface; in the order of their transit addresses. */
  readonly sources: readonly Source[];
  readonly inside: readonly Inside[];
  /** VTEPs of the mesh, canonical, sorted. */
  readonly vteps: readonly string[];
  /** The user's devices that are endpoints' ports. */
  readonly devices: readonly string[];
}

/** @param hostIps addresses of the host, canonical; `vteps` of the mesh */
export function nftModel(
  endpoints: Iterable<LocalEndpoint>,
  networks: ReadonlyMap<string, LocalNetwork>,
  hostIps: ReadonlySet<string>,
  vteps: Iterable<string>,
): NftModel {
  const all = [...endpoints];
  const devices = all.map(deviceOf).filter((name) => name !== null && PLAIN.test(name)) as string[];
  return {
    publications: publicationsOf(all),
    sources: all.flatMap((e) => sourcesOf(e, networks.get(e.networkId)?.network.egressIps ?? [], hostIps)),
    inside: all.flatMap((e) => {
      const subnets = networks.get(e.networkId)?.network.subnets ?? [];
      return e.transit === undefined ? [] : insideOf([e.transit, formatIp6(transit6(parseIp(e.transit)))], subnets);
    }),
    // Other hosts say what theirs are: nothing but an address gets into a program of nft's.
    vteps: [...new Set([...vteps].filter((ip) => tryParseIp(ip) !== null).map(canonicalIp))].sort(),
    devices: devices.sort(),
  };
}

/** @param transits of one thing, each of its family; `subnets` of its network */
export const insideOf = (transits: readonly string[], subnets: readonly string[]): Inside[] =>
  subnets.flatMap((subnet) => {
    const to = transits.find((ip) => familyOfText(ip) === (subnet.includes(':') ? 6 : 4));
    return to === undefined ? [] : [{ to, subnet }];
  });

function sourcesOf(e: LocalEndpoint, egressIps: readonly string[], hostIps: ReadonlySet<string>): Source[] {
  const { transit } = e;
  if (transit === undefined) return [];
  return FAMILIES.flatMap((family) => {
    const wanted = egressIps.filter((ip) => familyOfText(ip) === family);
    if (wanted.length === 0 || (family === 4 ? e.ip : e.ip6) === '') return [];
    const of = family === 4 ? transit : formatIp6(transit6(parseIp(transit)));
    return [{ of, as: wanted.find((ip) => hostIps.has(ip)) ?? null }];
  });
}

/** Egress addresses of networks with endpoints here of which the host has none: sentences, sorted. */
export function egressProblems(
  endpoints: Iterable<LocalEndpoint>,
  networks: ReadonlyMap<string, LocalNetwork>,
  hostIps: ReadonlySet<string>,
): string[] {
  const found = new Set<string>();
  for (const e of endpoints) {
    const network = networks.get(e.networkId)?.network;
    if (network !== undefined && sourcesOf(e, network.egressIps, hostIps).some(({ as }) => as === null))
      found.add(
        `containers of network ${network.name} do not leave the mesh from here: the host has none of its egress addresses ${network.egressIps.join(', ')}`,
      );
  }
  return [...found].sort();
}

/** Replaces the tables as a whole, in one transaction: no packet meets half of them. */
export function renderNft({ publications, sources, inside, vteps, devices }: NftModel): string {
  const unheard = [...OWN_LINKS, ...devices].map((name) => `iifname "${name}" drop`);
  return [
    ...NFT_FAMILIES.flatMap((family) => [`table ${family} ${NFT_TABLE}`, `delete table ${family} ${NFT_TABLE}`]),
    `table arp ${NFT_TABLE} {`,
    ...chain('input', 'filter', 'input', 'filter', unheard),
    '}',
    `table inet ${NFT_TABLE} {`,
    ...FAMILIES.flatMap((family) => [
      ...maps(family, publications),
      ...leaving(family, sources),
      ...tunnelEnds(family, vteps),
      ...forged(family, inside),
    ]),
    ...chain('guard', 'filter', 'prerouting', 'raw', [
      ...unheard,
      // route_localnet lets the host's own loopback reach published ports; containers have no business there.
      `iifname ${gw} ip daddr 127.0.0.0/8 drop`,
      `iifname ${gw} ip saddr != ${CIDR[4]} drop`,
      `iifname ${gw} ip6 saddr != { ${CIDR[6]}, fe80::/10 } drop`,
      // A host says so of its published ports, which are behind a smaller MTU: it would hold for the tunnel to it too.
      'ip saddr @vteps4 icmp type destination-unreachable icmp code frag-needed drop',
      'ip6 saddr @vteps6 icmpv6 type packet-too-big drop',
    ]),
    ...chain('prerouting', 'nat', 'prerouting', 'dstnat', FAMILIES.flatMap(dnat)),
    ...chain('output', 'nat', 'output', '-100', FAMILIES.flatMap(dnat)),
    ...chain('forward', 'filter', 'forward', 'filter', [
      `iifname ${gw} ct status dnat accept`,
      // Where nobody is kept the kernel need not know how to reject.
      ...FAMILIES.filter((family) => sources.some((s) => s.as === null && familyOfText(s.of) === family)).map(
        (family) =>
          `iifname ${gw} ${WORD[family]} saddr @kept${family} ct state new reject with icmpx type admin-prohibited`,
      ),
      `iifname ${gw} oifname ${gw} drop`,
      ...DOCKERS_BRIDGES.map((name) => `iifname ${gw} oifname ${name} meta oifkind "bridge" ct state new drop`),
      ...FAMILIES.map((family) => `oifname ${gw} ${WORD[family]} daddr . ${WORD[family]} saddr @inside${family} drop`),
      `oifname ${gw} ct status dnat accept`,
      `oifname ${gw} ct state established,related accept`,
      `oifname ${gw} drop`,
    ]),
    ...chain('postrouting', 'nat', 'postrouting', 'srcnat', FAMILIES.flatMap(snat)),
    '}',
    '',
  ].join('\n');
}

/** Where ports lead: those of every address, and those of one. */
function maps(family: Family, publications: readonly Publication[]): string[] {
  const type = family === 4 ? 'ipv4_addr' : 'ipv6_addr';
  const of = publications.filter((p) => familyOfText(p.hostIp) === family);
  const target = (p: Publication): string => `${p.to} . ${p.port}`;
  const isAny = (p: Publication): boolean => p.hostIp === ANY4 || p.hostIp === ANY6;
  const map = (name: string, key: string, elements: readonly string[]): string[] => [
    `  map ${name}${family} {`,
    `    type ${key} : ${type} . inet_service`,
    ...(elements.length === 0 ? [] : [`    elements = { ${elements.join(', ')} }`]),
    '  }',
  ];
  return [
    ...map(
      'any',
      'inet_proto . inet_service',
      of.filter(isAny).map((p) => `${p.protocol} . ${p.hostPort} : ${target(p)}`),
    ),
    ...map(
      'one',
      `${type} . inet_proto . inet_service`,
      of.filter((p) => !isAny(p)).map((p) => `${p.hostIp} . ${p.protocol} . ${p.hostPort} : ${target(p)}`),
    ),
  ];
}

/** By which address what leaves does so, and who does not leave. */
function leaving(family: Family, sources: readonly Source[]): string[] {
  const type = family === 4 ? 'ipv4_addr' : 'ipv6_addr';
  const of = sources.filter((s) => familyOfText(s.of) === family).sort((a, b) => (a.of < b.of ? -1 : 1));
  const block = (head: string, body: string, elements: readonly string[]): string[] => [
    `  ${head}${family} {`,
    `    type ${body}`,
    ...(elements.length === 0 ? [] : [`    elements = { ${elements.join(', ')} }`]),
    '  }',
  ];
  return [
    ...block(
      'map from',
      `${type} : ${type}`,
      of.flatMap((s) => (s.as === null ? [] : [`${s.of} : ${s.as}`])),
    ),
    ...block(
      'set kept',
      type,
      of.flatMap((s) => (s.as === null ? [s.of] : [])),
    ),
  ];
}

function forged(family: Family, inside: readonly Inside[]): string[] {
  const type = family === 4 ? 'ipv4_addr' : 'ipv6_addr';
  const of = inside.filter((i) => familyOfText(i.to) === family).map((i) => `${i.to} . ${i.subnet}`);
  return [
    `  set inside${family} {`,
    `    type ${type} . ${type}`,
    '    flags interval',
    ...(of.length === 0 ? [] : [`    elements = { ${of.sort().join(', ')} }`]),
    '  }',
  ];
}

function tunnelEnds(family: Family, vteps: readonly string[]): string[] {
  const of = vteps.filter((ip) => familyOfText(ip) === family);
  return [
    `  set vteps${family} {`,
    `    type ${family === 4 ? 'ipv4_addr' : 'ipv6_addr'}`,
    ...(of.length === 0 ? [] : [`    elements = { ${of.join(', ')} }`]),
    '  }',
  ];
}

function chain(name: string, type: string, hook: string, priority: string, rules: readonly string[]): string[] {
  return [
    `  chain ${name} {`,
    `    type ${type} hook ${hook} priority ${priority}; policy accept;`,
    ...rules.map((rule) => `    ${rule}`),
    '  }',
  ];
}

const dnat = (family: Family): string[] => {
  const nf = family === 4 ? 'ipv4' : 'ipv6';
  const local = `meta nfproto ${nf} fib daddr type local`;
  const to = `dnat ${WORD[family]} to`;
  return [
    `${local} ${to} ${WORD[family]} daddr . meta l4proto . th dport map @one${family}`,
    `${local} ${to} meta l4proto . th dport map @any${family}`,
  ];
};

/** Who comes from outside is seen as what it is; the host's loopback and other containers of the host, as the host. */
const snat = (family: Family): string[] => [
  `oifname ${gw} ${WORD[family]} saddr ${family === 4 ? `{ 127.0.0.0/8, ${CIDR[4]} }` : CIDR[6]} ct status dnat masquerade`,
  `oifname != ${gw} snat ${WORD[family]} to ${WORD[family]} saddr map @from${family}`,
  `oifname != ${gw} ${WORD[family]} saddr ${CIDR[family]} masquerade`,
];
