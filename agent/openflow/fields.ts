/**
 * The packet fields that flows match and set (ovs-fields(7)): width, wire identity, names in text. Pure.
 *
 * Wire identities are (class, field) of OXM/NXM type-length-value headers. The first is the one that Open vSwitch uses
 * when it speaks OpenFlow 1.4; the others mean the same and are understood.
 */

/** How a value is written in text. */
export type Format = 'hex' | 'decimal' | 'mac' | 'ipv4' | 'ipv6' | 'port' | 'ctState' | 'tcpFlags' | 'frag' | 'hex128';

export interface FieldSpec {
  /** Meaningful low bits. */
  readonly bits: number;
  /** Bytes of the value on the wire. */
  readonly bytes: number;
  readonly format: Format;
  /** `[class, field]`, and the experimenter where the class is EXPERIMENTER. */
  readonly wire: readonly (readonly [cls: number, field: number, experimenter?: number])[];
  /** Name in the match of a dumped flow. */
  readonly text: string;
  /** Name after `->` of set_field. */
  readonly setName: string;
  /** Name as a subfield, in move, load and output. */
  readonly subfield: string;
  /** Bits as a subfield, where they are fewer: a VLAN id has no "tag is there" bit then. */
  readonly subfieldBits: number;
  /** `[class, field, bytes]` as a subfield, where they are others: Open vSwitch sets an in_port of 16 bits only. */
  readonly subfieldWire?: readonly [cls: number, field: number, bytes: number];
}

export const NXM_OF = 0x0000;
export const NXM_NX = 0x0001;
export const OXM = 0x8000;
export const OXM_PKT_REG = 0x8001;
export const ERICSSON = 0x1000;
export const EXPERIMENTER = 0xffff;
export const ONF = 0x4f4e4600;
export const NICIRA = 0x00002320;

interface Options {
  readonly bits?: number;
  readonly format?: Format;
  readonly text?: string;
  readonly setName?: string;
  readonly subfieldBits?: number;
  readonly subfieldWire?: readonly [cls: number, field: number, bytes: number];
}

type Row = Omit<FieldSpec, 'text' | 'setName' | 'subfieldBits'> & Options;

/** @param nxm name and number in NXM; the class follows from the name. */
function field(bytes: number, oxm: number | null, nxm: readonly [string, number] | string, options: Options = {}): Row {
  const [subfield, number] = typeof nxm === 'string' ? [nxm, null] : nxm;
  const wire: (readonly [number, number])[] = [];
  if (oxm !== null) wire.push([OXM, oxm]);
  if (number !== null) wire.push([subfield.startsWith('NXM_OF') ? NXM_OF : NXM_NX, number]);
  return { bits: bytes * 8, format: 'hex', bytes, wire, subfield, ...options };
}

const decimal = { format: 'decimal' } as const;
const mac = { format: 'mac' } as const;
const ipv4 = { format: 'ipv4' } as const;
const ipv6 = { format: 'ipv6' } as const;

const reg = (n: number) => field(4, null, [`NXM_NX_REG${n}`, n]);
const xreg = (n: number) => ({ ...field(8, null, `OXM_OF_PKT_REG${n}`), wire: [[OXM_PKT_REG, n]] as const });
const xxreg = (n: number) => field(16, null, [`NXM_NX_XXREG${n}`, 111 + n], { format: 'hex128' });

/** In the order in which Open vSwitch prints them; an encoder orders by `ENCODE_ORDER`. */
const TABLE = {
  pkt_mark: field(4, null, ['NXM_NX_PKT_MARK', 33]),
  conj_id: field(4, null, ['NXM_NX_CONJ_ID', 37], decimal),
  ct_state: field(4, null, ['NXM_NX_CT_STATE', 105], { format: 'ctState' }),
  ct_zone: field(2, null, ['NXM_NX_CT_ZONE', 106]),
  ct_mark: field(4, null, ['NXM_NX_CT_MARK', 107]),
  ct_label: field(16, null, ['NXM_NX_CT_LABEL', 108], { format: 'hex128' }),
  ct_nw_src: field(4, null, ['NXM_NX_CT_NW_SRC', 120], ipv4),
  ct_ipv6_src: field(16, null, ['NXM_NX_CT_IPV6_SRC', 122], ipv6),
  ct_nw_dst: field(4, null, ['NXM_NX_CT_NW_DST', 121], ipv4),
  ct_ipv6_dst: field(16, null, ['NXM_NX_CT_IPV6_DST', 123], ipv6),
  ct_nw_proto: field(1, null, ['NXM_NX_CT_NW_PROTO', 119], decimal),
  ct_tp_src: field(2, null, ['NXM_NX_CT_TP_SRC', 124], decimal),
  ct_tp_dst: field(2, null, ['NXM_NX_CT_TP_DST', 125], decimal),
  reg0: reg(0),
  reg1: reg(1),
  reg2: reg(2),
  reg3: reg(3),
  reg4: reg(4),
  reg5: reg(5),
  reg6: reg(6),
  reg7: reg(7),
  reg8: reg(8),
  reg9: reg(9),
  reg10: reg(10),
  reg11: reg(11),
  reg12: reg(12),
  reg13: reg(13),
  reg14: reg(14),
  reg15: reg(15),
  xreg0: xreg(0),
  xreg1: xreg(1),
  xreg2: xreg(2),
  xreg3: xreg(3),
  xreg4: xreg(4),
  xreg5: xreg(5),
  xreg6: xreg(6),
  xreg7: xreg(7),
  xxreg0: xxreg(0),
  xxreg1: xxreg(1),
  xxreg2: xxreg(2),
  xxreg3: xxreg(3),
  tun_id: field(8, 38, ['NXM_NX_TUN_ID', 16]),
  tun_src: field(4, null, ['NXM_NX_TUN_IPV4_SRC', 31], ipv4),
  tun_dst: field(4, null, ['NXM_NX_TUN_IPV4_DST', 32], ipv4),
  tun_ipv6_src: field(16, null, ['NXM_NX_TUN_IPV6_SRC', 109], ipv6),
  tun_ipv6_dst: field(16, null, ['NXM_NX_TUN_IPV6_DST', 110], ipv6),
  metadata: field(8, 2, 'OXM_OF_METADATA'),
  in_port: field(4, 0, 'NXM_OF_IN_PORT', {
    format: 'port',
    setName: 'in_port_oxm',
    subfieldBits: 16,
    subfieldWire: [NXM_OF, 0, 2],
  }),
  vlan_vid: field(2, 6, 'OXM_OF_VLAN_VID', { ...decimal, bits: 13, subfieldBits: 12 }),
  vlan_pcp: field(1, 7, 'OXM_OF_VLAN_PCP', { ...decimal, bits: 3 }),
  vlan_tci: field(2, null, ['NXM_OF_VLAN_TCI', 4]),
  eth_src: field(6, 4, ['NXM_OF_ETH_SRC', 2], { ...mac, text: 'dl_src' }),
  eth_dst: field(6, 3, ['NXM_OF_ETH_DST', 1], { ...mac, text: 'dl_dst' }),
  eth_type: field(2, 5, ['NXM_OF_ETH_TYPE', 3], { text: 'dl_type' }),
  ipv6_src: field(16, 26, ['NXM_NX_IPV6_SRC', 19], ipv6),
  ipv6_dst: field(16, 27, ['NXM_NX_IPV6_DST', 20], ipv6),
  ipv6_label: field(4, 28, ['NXM_NX_IPV6_LABEL', 27], { bits: 20 }),
  arp_spa: field(4, 22, ['NXM_OF_ARP_SPA', 16], ipv4),
  arp_tpa: field(4, 23, ['NXM_OF_ARP_TPA', 17], ipv4),
  ipv4_src: field(4, 11, ['NXM_OF_IP_SRC', 7], { ...ipv4, text: 'nw_src', setName: 'ip_src' }),
  ipv4_dst: field(4, 12, ['NXM_OF_IP_DST', 8], { ...ipv4, text: 'nw_dst', setName: 'ip_dst' }),
  ip_proto: field(1, 10, ['NXM_OF_IP_PROTO', 6], { ...decimal, text: 'nw_proto', setName: 'nw_proto' }),
  arp_op: field(2, 21, ['NXM_OF_ARP_OP', 15], decimal),
  arp_sha: field(6, 24, ['NXM_NX_ARP_SHA', 17], mac),
  arp_tha: field(6, 25, ['NXM_NX_ARP_THA', 18], mac),
  ip_dscp: field(1, 8, 'OXM_OF_IP_DSCP', { ...decimal, bits: 6, text: 'nw_tos' }),
  ip_ecn: field(1, 9, ['NXM_NX_IP_ECN', 28], { ...decimal, bits: 2, text: 'nw_ecn', setName: 'nw_ecn' }),
  nw_ttl: field(1, null, ['NXM_NX_IP_TTL', 29], decimal),
  nw_frag: field(1, null, ['NXM_NX_IP_FRAG', 26], { bits: 2, format: 'frag', setName: 'ip_frag' }),
  icmp_type: field(1, 19, ['NXM_OF_ICMP_TYPE', 13], decimal),
  icmp_code: field(1, 20, ['NXM_OF_ICMP_CODE', 14], decimal),
  icmpv6_type: field(1, 29, ['NXM_NX_ICMPV6_TYPE', 21], { ...decimal, text: 'icmp_type' }),
  icmpv6_code: field(1, 30, ['NXM_NX_ICMPV6_CODE', 22], { ...decimal, text: 'icmp_code' }),
  nd_target: field(16, 31, ['NXM_NX_ND_TARGET', 23], ipv6),
  nd_sll: field(6, 32, ['NXM_NX_ND_SLL', 24], mac),
  nd_tll: field(6, 33, ['NXM_NX_ND_TLL', 25], mac),
  nd_reserved: { ...field(4, null, 'ERICOXM_OF_ICMPV6_ND_RESERVED', decimal), wire: [[ERICSSON, 1]] as const },
  nd_options_type: { ...field(1, null, 'ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE', decimal), wire: [[ERICSSON, 2]] as const },
  tcp_src: field(2, 13, ['NXM_OF_TCP_SRC', 9], { ...decimal, text: 'tp_src' }),
  udp_src: field(2, 15, ['NXM_OF_UDP_SRC', 11], { ...decimal, text: 'tp_src' }),
  sctp_src: field(2, 17, 'OXM_OF_SCTP_SRC', { ...decimal, text: 'tp_src' }),
  tcp_dst: field(2, 14, ['NXM_OF_TCP_DST', 10], { ...decimal, text: 'tp_dst' }),
  udp_dst: field(2, 16, ['NXM_OF_UDP_DST', 12], { ...decimal, text: 'tp_dst' }),
  sctp_dst: field(2, 18, 'OXM_OF_SCTP_DST', { ...decimal, text: 'tp_dst' }),
  tcp_flags: {
    ...field(2, null, ['NXM_NX_TCP_FLAGS', 34], { bits: 12, format: 'tcpFlags' }),
    wire: [
      [EXPERIMENTER, 42, ONF],
      [NXM_NX, 34],
      [OXM, 42],
    ] as const,
  },
} as const satisfies Record<string, Row>;

export type FieldName = keyof typeof TABLE;

export const FIELD_NAMES = Object.freeze(Object.keys(TABLE)) as readonly FieldName[];

export const FIELDS: Readonly<Record<FieldName, FieldSpec>> = Object.fromEntries(
  Object.entries(TABLE as Record<string, Row>).map(([name, spec]) => [
    name,
    {
      ...spec,
      text: spec.text ?? name,
      setName: spec.setName ?? name,
      subfieldBits: spec.subfieldBits ?? spec.bits,
    },
  ]),
) as Record<FieldName, FieldSpec>;

/** All ones over the meaningful bits. */
export const fullMask = (name: FieldName): bigint => (1n << BigInt(FIELDS[name].bits)) - 1n;

/** Prerequisites must precede what depends on them, on the wire and in a canonical match. */
const FIRST: readonly FieldName[] = [
  'in_port',
  'eth_type',
  'ip_proto',
  'arp_op',
  'icmp_type',
  'icmpv6_type',
  'vlan_vid',
  'ct_state',
  'ct_nw_proto',
];

export const ENCODE_ORDER: ReadonlyMap<FieldName, number> = new Map(
  [...FIRST, ...FIELD_NAMES.filter((name) => !FIRST.includes(name))].map((name, index) => [name, index]),
);

const wireKey = (cls: number, number: number, experimenter: number): string => `${cls}.${number}.${experimenter}`;

const BY_WIRE: ReadonlyMap<string, FieldName> = new Map(
  FIELD_NAMES.flatMap((name) =>
    FIELDS[name].wire.map(([cls, number, experimenter]) => [wireKey(cls, number, experimenter ?? 0), name] as const),
  ),
);

/** The field of a wire header; undefined for one that is not in the table. */
export const fieldOf = (cls: number, number: number, experimenter = 0): FieldName | undefined =>
  BY_WIRE.get(wireKey(cls, number, experimenter));
