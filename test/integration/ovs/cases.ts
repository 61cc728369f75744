/** One case for each match field and each action, with the prerequisites that Open vSwitch demands. */
import type { Action, FieldName, KnownMatch, MatchField, Subfield } from '../../../agent/openflow/flow.ts';
import { OFPP } from '../../../agent/openflow/flow.ts';

const is = (field: FieldName, value: bigint | number, mask?: bigint | number): KnownMatch =>
  mask === undefined ? { field, value: BigInt(value) } : { field, value: BigInt(value), mask: BigInt(mask) };

export const IP = is('eth_type', 0x0800);
export const IP6 = is('eth_type', 0x86dd);
export const ARP = is('eth_type', 0x0806);
const TCP = [IP, is('ip_proto', 6)];
const UDP = [IP, is('ip_proto', 17)];
const TCP6 = [IP6, is('ip_proto', 6)];
const ICMP6 = [IP6, is('ip_proto', 58)];
const NS = [...ICMP6, is('icmpv6_type', 135), is('icmpv6_code', 0)];
const NA = [...ICMP6, is('icmpv6_type', 136), is('icmpv6_code', 0)];
const FE80 = 0xfe80_0000_0000_0000_0258_0aff_fe80_0005n;
const PREFIX = ((1n << 64n) - 1n) << 64n;

const matches: readonly (readonly MatchField[])[] = [
  [],
  [is('in_port', 1)],
  [is('in_port', OFPP.LOCAL)],
  [is('metadata', 0x1234)],
  [is('metadata', 0x5600, 0xff00)],
  [is('eth_dst', 0x02580a800040n, 0xffffffffffc0n)],
  [is('eth_src', 0x02580a800041n)],
  [is('eth_dst', 0x010000000000n, 0x010000000000n)],
  [is('eth_type', 0x88cc)],
  [IP],
  [IP6],
  [ARP],
  [is('vlan_vid', 0x1005)],
  [is('vlan_vid', 0x1005), is('vlan_pcp', 3)],
  [is('vlan_vid', 0, 0x1fff)],
  [is('vlan_vid', 0x1000, 0x1000)],
  [is('vlan_vid', 0x1000, 0x1000), is('vlan_pcp', 3)],
  [is('vlan_tci', 0x7005)],
  [is('vlan_tci', 0, 0x1fff)],
  [IP, is('ip_dscp', 46)],
  [IP, is('ip_ecn', 1)],
  [IP, is('ip_proto', 1)],
  [IP, is('ip_proto', 50)],
  [IP, is('nw_ttl', 64)],
  [IP, is('nw_frag', 1, 1)],
  [IP, is('nw_frag', 0)],
  [IP, is('nw_frag', 3)],
  [IP, is('nw_frag', 0, 2)],
  [IP, is('ipv4_src', 0x0a800005), is('ipv4_dst', 0x0a800040, 0xffffffc0)],
  [IP, is('ipv4_src', 0x0a000005, 0xff0000ff)],
  [...TCP, is('tcp_src', 80), is('tcp_dst', 0x1000, 0xf000)],
  [...TCP, is('tcp_flags', 2, 0x12)],
  [...TCP, is('tcp_flags', 0x12)],
  [...UDP, is('udp_src', 53), is('udp_dst', 67)],
  [IP, is('ip_proto', 132), is('sctp_src', 1), is('sctp_dst', 2)],
  [IP, is('ip_proto', 1), is('icmp_type', 3), is('icmp_code', 4)],
  [...TCP6, is('tcp_dst', 443)],
  [IP6, is('ip_proto', 17), is('udp_dst', 546)],
  [IP6, is('ip_proto', 44)],
  [IP6, is('ipv6_src', FE80), is('ipv6_dst', FE80 & PREFIX, PREFIX)],
  [IP6, is('ipv6_dst', 1n)],
  [IP6, is('ipv6_dst', 0x0a000001n)],
  [IP6, is('ipv6_dst', 0xffff_0a00_0001n)],
  [IP6, is('ipv6_dst', 0x2001_0db8_0000_0001_0000_0000_0000_0001n)],
  [IP6, is('ipv6_dst', 0x2001_0db8_0001_0000_0001_0001_0001_0001n)],
  [IP6, is('ipv6_label', 5)],
  [IP6, is('ipv6_label', 0x10, 0xf0)],
  [...ICMP6, is('icmpv6_type', 135)],
  [...NS, is('nd_target', FE80), is('nd_sll', 0x02580a800041n)],
  [...NA, is('nd_target', FE80 & PREFIX, PREFIX), is('nd_tll', 0x02580a800041n)],
  [ARP, is('arp_op', 1), is('arp_spa', 0x0a800005), is('arp_tpa', 0x0a800040, 0xffffffc0)],
  [ARP, is('arp_op', 2), is('arp_sha', 0x02580a800041n), is('arp_tha', 0, 0xffffffffffff)],
  [is('eth_type', 0x8035), is('arp_op', 3)],
  [is('tun_id', 0x1234)],
  [is('tun_id', 0)],
  [is('tun_id', 0, 0xff)],
  [is('tun_src', 0x0a630001), is('tun_dst', 0x0a630000, 0xffff0000)],
  [is('tun_ipv6_src', FE80), is('tun_ipv6_dst', FE80)],
  [is('pkt_mark', 7)],
  [is('pkt_mark', 0, 1)],
  [is('conj_id', 12)],
  ...Array.from({ length: 16 }, (_, i) => [is(`reg${i}` as FieldName, i + 1)]),
  [is('reg0', 0), is('reg1', 0x10, 0xf0)],
  [is('xreg1', 0x1_0000_0002n)],
  [is('xxreg1', 0x1_0000_0002_0000_0003_0000_0004n)],
  [IP, is('ct_state', 0x21, 0x21)],
  [IP, is('ct_state', 0x22, 0x23), is('ct_zone', 5), is('ct_mark', 0x80000000, 0x80000000)],
  [IP, is('ct_mark', 0), is('ct_label', 0x1234_0000_0000_0000_0001n)],
  [IP, is('ct_label', 0x1200, 0xff00)],
  [IP, is('ct_state', 0x22, 0x22), is('ct_nw_src', 0x0a000001), is('ct_nw_dst', 0x0a000000, 0xff000000)],
  [IP, is('ct_state', 0x22, 0x22), is('ct_nw_proto', 6), is('ct_tp_src', 80), is('ct_tp_dst', 0x10, 0xf0)],
  [IP6, is('ct_state', 0x22, 0x22), is('ct_ipv6_src', FE80), is('ct_ipv6_dst', FE80 & PREFIX, PREFIX)],
];

const text = (fields: readonly MatchField[]): string =>
  fields
    .map((f) =>
      f.field === 'raw'
        ? 'raw'
        : `${f.field}=${f.value.toString(16)}${f.mask === undefined ? '' : `/${f.mask.toString(16)}`}`,
    )
    .join(' ') || 'everything';

export const MATCH_CASES: readonly (readonly [string, readonly MatchField[]])[] = matches.map((m) => [text(m), m]);

const out: Action = { type: 'output', port: 2 };
const set = (field: FieldName, value: bigint | number, mask?: bigint | number): Action => ({
  type: 'set_field',
  ...is(field, value, mask),
});
const move = (src: FieldName, dst: FieldName, nBits: number, srcOfs = 0, dstOfs = 0): Action => ({
  type: 'move',
  src,
  srcOfs,
  dst,
  dstOfs,
  nBits,
});
const part = (field: FieldName, nBits: number, ofs = 0): Subfield => ({ field, ofs, nBits });

export const ACTION_CASES: readonly (readonly [string, readonly MatchField[], readonly Action[]])[] = [
  ['drop', [], []],
  ['output', [], [out]],
  [
    'output to reserved ports',
    [],
    [
      { type: 'output', port: OFPP.LOCAL },
      { type: 'output', port: OFPP.FLOOD },
    ],
  ],
  ['normal', [], [{ type: 'output', port: OFPP.NORMAL }]],
  ['in_port', [is('in_port', 3)], [{ type: 'in_port' }]],
  ['output_reg', [], [{ type: 'output_reg', field: 'reg15' }]],
  ['output_reg of bits', [], [{ type: 'output_reg', field: 'reg1', ofs: 4, nBits: 16 }]],
  [
    'set registers',
    [],
    [set('reg0', 0), set('reg15', 0xffffffffn), set('reg1', 0x10, 0xf0), set('xreg2', 5), set('xxreg3', 6)],
  ],
  ['set metadata, marks', [], [set('metadata', 5), set('pkt_mark', 1), set('metadata', 0x100, 0xff00)]],
  ['set tunnel', [], [set('tun_id', 0x64), set('tun_dst', 0x0a630002), set('tun_src', 0x0a630001), out]],
  ['set tunnel over IPv6', [], [set('tun_ipv6_dst', FE80), set('tun_ipv6_src', FE80), out]],
  [
    'set Ethernet',
    [],
    [
      set('eth_src', 0x02580a800041n),
      set('eth_dst', 0xffffffffffffn),
      set('eth_src', 0x025800000000n, 0xffff00000000n),
      out,
    ],
  ],
  ['set VLAN', [is('vlan_vid', 0x1005)], [set('vlan_vid', 0x1006), set('vlan_pcp', 2), out]],
  [
    'push and pop VLAN',
    [is('vlan_vid', 0, 0x1fff)],
    [{ type: 'push_vlan', etherType: 0x88a8 }, set('vlan_vid', 0x1006), out, { type: 'pop_vlan' }, out],
  ],
  [
    'set IPv4',
    [IP],
    [
      set('ipv4_src', 0x0a000001),
      set('ipv4_dst', 0x0a000002),
      set('ip_dscp', 46),
      set('ip_ecn', 1),
      set('nw_ttl', 5),
      { type: 'dec_ttl' },
      out,
    ],
  ],
  ['set part of IPv4', [IP], [set('ipv4_dst', 0x0a000000, 0xff000000), out]],
  ['set IPv6', [IP6], [set('ipv6_src', FE80), set('ipv6_dst', 1), set('ipv6_label', 3), out]],
  ['set ports', TCP, [set('tcp_src', 80), set('tcp_dst', 8080), out]],
  ['set UDP ports', UDP, [set('udp_src', 80), set('udp_dst', 8080), out]],
  ['set ICMP', [IP, is('ip_proto', 1)], [set('icmp_type', 0), set('icmp_code', 0), out]],
  [
    'load and move in_port',
    [],
    [{ type: 'load', field: 'in_port', ofs: 0, nBits: 16, value: 0n }, move('in_port', 'reg0', 16), out],
  ],
  [
    'ARP responder',
    [ARP, is('arp_op', 1), is('arp_tpa', 0x0a800040, 0xffffffc0)],
    [
      move('eth_src', 'eth_dst', 48),
      move('arp_sha', 'arp_tha', 48),
      set('eth_src', 0x025800000000n),
      move('arp_tpa', 'eth_src', 32),
      set('arp_sha', 0x025800000000n),
      move('arp_tpa', 'arp_sha', 32),
      move('arp_tpa', 'reg7', 32),
      move('arp_spa', 'arp_tpa', 32),
      move('reg7', 'arp_spa', 32),
      set('arp_op', 2),
      { type: 'in_port' },
    ],
  ],
  [
    'ND solicitation',
    [...NS, is('nd_target', FE80)],
    [set('icmpv6_type', 136), set('icmpv6_code', 0), set('nd_target', FE80), { type: 'resubmit', table: 9 }],
  ],
  ['ND advertisement', NA, [set('nd_tll', 0x025800000000n), move('nd_target', 'nd_tll', 32), { type: 'in_port' }]],
  [
    'move bits',
    [],
    [
      move('reg0', 'reg1', 8, 16, 24),
      move('tun_id', 'metadata', 24),
      move('reg0', 'reg1', 1, 3, 4),
      move('xxreg0', 'xxreg1', 128),
    ],
  ],
  [
    'move from fields without an NXM name',
    [is('vlan_vid', 0x1000, 0x1000)],
    [move('vlan_vid', 'reg1', 12), move('vlan_tci', 'reg2', 16), move('metadata', 'xreg3', 64)],
  ],
  [
    'load',
    [],
    [
      { type: 'load', field: 'reg0', ofs: 0, nBits: 32, value: 0n },
      { type: 'load', field: 'reg1', ofs: 8, nBits: 16, value: 0xabcdn },
      { type: 'load', field: 'tun_id', ofs: 0, nBits: 64, value: 5n },
      { type: 'load', field: 'eth_src', ofs: 32, nBits: 16, value: 0x0258n },
      out,
    ],
  ],
  [
    'resubmit',
    [],
    [
      { type: 'resubmit', table: 20 },
      { type: 'resubmit', table: 21, port: 4 },
      { type: 'resubmit', table: 255, port: 5 },
    ],
  ],
  ['goto', [], [set('reg0', 1), { type: 'goto', table: 30 }]],
  ['goto alone', [], [{ type: 'goto', table: 254 }]],
  ['controller', [], [{ type: 'controller', maxLen: 128 }]],
  ['controller with userdata', [], [{ type: 'controller', maxLen: 0xffff, userdata: '01aabbccddeeff0011' }, out]],
  ['controller with all of it', [], [{ type: 'controller', maxLen: 256, userdata: '02', meter: 9, id: 3, reason: 0 }]],
  ['controller with a meter', [], [{ type: 'controller', maxLen: 0xffff, meter: 9 }]],
  [
    'learn',
    [],
    [
      {
        type: 'learn',
        table: 48,
        priority: 300,
        idleTimeout: 60,
        hardTimeout: 600,
        finIdleTimeout: 1,
        finHardTimeout: 2,
        cookie: 0x5765667430000001n,
        limit: 16,
        flags: 3,
        specs: [
          { to: 'match', dst: part('reg0', 32), from: part('reg0', 32) },
          { to: 'match', dst: part('eth_dst', 48), from: part('eth_src', 48) },
          { to: 'match', dst: part('eth_type', 16), from: 0x0800n },
          { to: 'match', dst: part('ipv4_dst', 32), from: 0x0a000001n },
          { to: 'match', dst: part('reg5', 8, 8), from: 0xabn },
          { to: 'load', dst: part('reg2', 16), from: part('in_port', 16) },
          { to: 'load', dst: part('reg3', 20, 4), from: 5n },
          { to: 'load', dst: part('reg4', 32), from: 0n },
          { to: 'output', from: part('in_port', 16) },
        ],
      },
    ],
  ],
  [
    'learn with little, in a list',
    [],
    [
      out,
      { type: 'learn', table: 1, priority: 32768, specs: [{ to: 'match', dst: part('tun_id', 64), from: 7n }] },
      { type: 'learn', table: 2, priority: 1, hardTimeout: 5, specs: [] },
      { type: 'goto', table: 9 },
    ],
  ],
  ['set_queue', [], [{ type: 'set_queue', queue: 3 }, out]],
  ['conjunction', [is('reg0', 1)], [{ type: 'conjunction', id: 7, clause: 0, nClauses: 2 }]],
  ['ct', [IP], [{ type: 'ct', table: 40, zone: 5 }]],
  ['ct, zone in a register', [IP], [{ type: 'ct', table: 40, zone: { field: 'reg1', ofs: 0, nBits: 16 } }]],
  [
    'ct commit',
    TCP,
    [
      {
        type: 'ct',
        commit: true,
        force: true,
        zone: 9,
        alg: 21,
        exec: [set('ct_mark', 1), set('ct_label', 5), set('ct_mark', 2, 0xf)],
      },
      out,
    ],
  ],
  [
    'multipath',
    [],
    [{ type: 'multipath', hash: 'symmetric_l3l4', algorithm: 'hrw', links: 3, to: part('reg7', 16, 16) }, out],
  ],
  ['check_pkt_larger', [], [{ type: 'check_larger', bytes: 1414, field: 'reg7', bit: 0 }, out]],
  ['ct bare, ct_clear', [IP], [{ type: 'ct' }, { type: 'ct_clear' }, out]],
];
