import { describe, expect, test } from 'vitest';
import { addressPlan, isPartition, pickBlock, pickBlockContaining } from '../../../coordinator/alloc/blocks.ts';
import { checkBind, checkSpec } from '../../../coordinator/alloc/spec.ts';
import { DEFAULT_POOL, pickSubnet, ulaPool } from '../../../coordinator/alloc/subnets.ts';
import { pickVni } from '../../../coordinator/alloc/vnis.ts';
import type { NetworkSpec } from '../../../coordinator/contract.ts';
import { Network } from '../../../gen/weft/v1/types.ts';
import { type Cidr, familyOfText, formatCidr, formatIp, parseCidr, parseIp } from '../../../lib/addr.ts';
import { WeftError } from '../../../lib/errors.ts';
import { aSpec } from '../../integration/etcd/support.ts';

const text = (cidr: Cidr | null): string | null => (cidr === null ? null : formatCidr(cidr));
const small = { range: parseCidr('10.0.0.0/22'), prefix: 120 };

describe('subnets from the pool', () => {
  test('the lowest free one that overlaps nothing', () => {
    expect(text(pickSubnet(DEFAULT_POOL, [], []))).toBe('10.128.0.0/20');
    expect(text(pickSubnet(DEFAULT_POOL, [parseCidr('10.128.0.0/20')], []))).toBe('10.128.16.0/20');
    // Smaller, larger and foreign ones.
    const taken = ['10.128.15.0/30', '10.128.32.0/19', '10.0.0.0/9', '192.168.0.0/16'].map(parseCidr);
    expect(text(pickSubnet(DEFAULT_POOL, taken, []))).toBe('10.128.16.0/20');
    expect(text(pickSubnet(DEFAULT_POOL, [...taken, parseCidr('10.128.16.0/20')], []))).toBe('10.128.64.0/20');
    expect(text(pickSubnet(DEFAULT_POOL, [parseCidr('10.0.0.0/8')], []))).toBe(null);
  });

  test('resting ones last, the one that rests longest first', () => {
    const resting = [
      { cidr: parseCidr('10.0.0.0/24'), since: '2025-01-01T00:02:00Z' },
      { cidr: parseCidr('10.0.2.0/24'), since: '2025-01-01T00:01:00Z' },
    ];
    expect(text(pickSubnet(small, [], resting))).toBe('10.0.1.0/24');
    const taken = ['10.0.1.0/24', '10.0.3.0/24'].map(parseCidr);
    expect(text(pickSubnet(small, taken, resting))).toBe('10.0.2.0/24');
    expect(text(pickSubnet(small, [...taken, parseCidr('10.0.2.0/23')], resting))).toBe('10.0.0.0/24');
    expect(text(pickSubnet(small, [parseCidr('10.0.0.0/22')], resting))).toBe(null);
  });
});

describe('subnets of IPv6', () => {
  test('/64s of a unique local /48 that the cluster id tells', () => {
    const pool = ulaPool('0123456789abcdef');
    expect(formatCidr(pool.range)).toBe('fd67:89ab:cdef::/48');
    expect(text(pickSubnet(pool, [], []))).toBe('fd67:89ab:cdef::/64');
    const taken = ['fd67:89ab:cdef::/64', '10.0.0.0/8', 'fd67:89ab:cdef:1:8000::/65'].map(parseCidr);
    expect(text(pickSubnet(pool, taken, []))).toBe('fd67:89ab:cdef:2::/64');
    expect(pickSubnet(pool, [parseCidr('fd00::/8')], [])).toBe(null);
  });

  test('which families a network has', () => {
    const families = (more: Partial<NetworkSpec>): string => {
      const { four, six } = checkSpec(aSpec('n', more));
      const one = (of: typeof four): string => (of === null ? '-' : (text(of.subnet) ?? 'picked'));
      return `${one(four)} ${one(six)}`;
    };
    expect(families({})).toBe('picked -');
    expect(families({ ipv6: true })).toBe('picked picked');
    expect(families({ subnets: ['fd00:1::/64'] })).toBe('- fd00:1::/64');
    expect(families({ subnets: ['fd00:1::/64'], ipv6: true })).toBe('picked fd00:1::/64');
    expect(families({ subnets: ['fd00:1::/64', '10.0.0.0/24'] })).toBe('10.0.0.0/24 fd00:1::/64');
    expect(families({ subnets: ['10.0.0.0/24'], ipv6: true })).toBe('10.0.0.0/24 picked');
    expect(families({ ipv6: true, ipv6Only: true })).toBe('- picked');
  });
});

describe('VNIs', () => {
  const range = { first: 4096, last: 4098 };
  test('the lowest that is neither taken nor resting, then the one that rests longest', () => {
    expect(pickVni(range, new Set([4096]), new Map())).toBe(4097);
    expect(pickVni(range, new Set([4096]), new Map([[4097, 'b']]))).toBe(4098);
    const resting = new Map([
      [4097, 'b'],
      [4098, 'a'],
    ]);
    expect(pickVni(range, new Set([4096]), resting)).toBe(4098);
    expect(pickVni(range, new Set([4096, 4097, 4098]), resting)).toBe(null);
  });
});

describe('what a user may ask a network to be', () => {
  const cases: readonly (readonly [string, Partial<NetworkSpec>, string, RegExp])[] = [
    ['no name of Docker', { name: '-x' }, 'INVALID_ARGUMENT', /not a network name/],
    ['a slash', { name: 'a/b' }, 'INVALID_ARGUMENT', /not a network name/],
    ['64 characters', { name: 'a'.repeat(64) }, 'INVALID_ARGUMENT', /not a network name/],
    ["Docker's own", { name: 'bridge' }, 'INVALID_ARGUMENT', /Docker's own/],
    ['malformed', { subnets: ['10.0.0/8'] }, 'INVALID_ARGUMENT', /not an IPv4 prefix/],
    ['shut, and led out', { internal: true, publishBy: 'docker' }, 'INVALID_ARGUMENT', /internal network/],
    ['shut, by options', { internal: true, options: { 'weft.publish-by': 'docker' } }, 'INVALID_ARGUMENT', /internal/],
    ['no length', { subnets: ['10.0.0.0'] }, 'INVALID_ARGUMENT', /not an IPv4 prefix/],
    ['leading zero', { subnets: ['010.0.0.0/8'] }, 'INVALID_ARGUMENT', /not an IPv4 prefix/],
    ['length 33', { subnets: ['10.0.0.0/33'] }, 'INVALID_ARGUMENT', /not an IPv4 prefix/],
    ['host bits', { subnets: ['10.0.0.1/24'] }, 'INVALID_ARGUMENT', /host bits/],
    ['loopback', { subnets: ['127.1.0.0/16'] }, 'INVALID_ARGUMENT', /loopback/],
    ['multicast', { subnets: ['239.0.0.0/24'] }, 'INVALID_ARGUMENT', /multicast/],
    ['zero', { subnets: ['0.0.0.0/0'] }, 'INVALID_ARGUMENT', /this network/],
    ['transit', { subnets: ['fd57:6566:7400::/80'] }, 'INVALID_ARGUMENT', /hosts know/],
    ['link-local', { subnets: ['169.254.1.0/24'] }, 'INVALID_ARGUMENT', /link-local/],
    ['reserved', { subnets: ['255.255.255.0/24'] }, 'INVALID_ARGUMENT', /reserved/],
    ['/31', { subnets: ['10.0.0.0/31'] }, 'INVALID_ARGUMENT', /no room/],
    ['/32', { subnets: ['10.0.0.0/32'] }, 'INVALID_ARGUMENT', /no room/],
    ['two', { subnets: ['10.0.0.0/24', '10.0.1.0/24'] }, 'UNIMPLEMENTED', /two IPv4 subnets/],
    ['two of IPv6', { subnets: ['fd00::/64', 'fd01::/64'] }, 'UNIMPLEMENTED', /two IPv6 subnets/],
    ['link-local of IPv6', { subnets: ['fe80::/64'] }, 'INVALID_ARGUMENT', /link-local/],
    ['multicast of IPv6', { subnets: ['ff05::/64'] }, 'INVALID_ARGUMENT', /multicast/],
    ['loopback of IPv6', { subnets: ['::/64'] }, 'INVALID_ARGUMENT', /reserved/],
    ['IPv4 as IPv6', { subnets: ['::ffff:10.0.0.0/104'] }, 'INVALID_ARGUMENT', /not an IPv6 prefix/],
    ['host bits of IPv6', { subnets: ['fd00::1/64'] }, 'INVALID_ARGUMENT', /host bits/],
    ['/127', { subnets: ['fd00::/127'] }, 'INVALID_ARGUMENT', /no room/],
    ['gateway of no family', { subnets: ['fd00::/64'], gateways: ['10.0.0.1'] }, 'INVALID_ARGUMENT', /a family/],
    ['gateway = network 6', { subnets: ['fd00::/64'], gateways: ['fd00::'] }, 'INVALID_ARGUMENT', /network address/],
    ['far ip-range', { subnets: ['fd00::/64'], ipRange: 'fd00:0:0:0:1::/80' }, 'INVALID_ARGUMENT', /automatic/],
    ['vlan without uplink', { encap: 'vlan', vlanTag: 5 }, 'INVALID_ARGUMENT', /needs an uplink and a tag/],
    ['vlan without tag', { encap: 'vlan', uplink: 'eth1' }, 'INVALID_ARGUMENT', /needs an uplink and a tag/],
    ['vlan tag', { encap: 'vlan', uplink: 'eth1', vlanTag: 4095 }, 'INVALID_ARGUMENT', /not a VLAN tag/],
    ['vlan uplink', { encap: 'vlan', uplink: 'a/b', vlanTag: 5 }, 'INVALID_ARGUMENT', /not the name of an interface/],
    ['vlan with VNI', { encap: 'vlan', uplink: 'eth1', vlanTag: 5, vni: 7 }, 'INVALID_ARGUMENT', /no VNI/],
    ['tag without vlan', { vlanTag: 5 }, 'INVALID_ARGUMENT', /for vlan networks/],
    ['encap as option', { options: { 'weft.encap': 'nvgre' } }, 'INVALID_ARGUMENT', /nvgre/],
    ['unknown encap', { encap: 'nvgre' }, 'INVALID_ARGUMENT', /nvgre/],
    ['--encrypt', { encrypted: true }, 'UNIMPLEMENTED', /encryption/],
    ['--space', { space: 'Other/x' }, 'INVALID_ARGUMENT', /name of an address space/],
    ['project', { project: 'other' }, 'UNIMPLEMENTED', /projects/],
    ['ip-range outside', { subnets: ['10.0.0.0/24'], ipRange: '10.0.1.0/26' }, 'INVALID_ARGUMENT', /not inside/],
    ['ip-range larger', { subnets: ['10.0.0.0/24'], ipRange: '10.0.0.0/16' }, 'INVALID_ARGUMENT', /not inside/],
    ['ip-range alone', { ipRange: '10.0.0.0/26' }, 'INVALID_ARGUMENT', /needs its subnet/],
    ['gateway outside', { subnets: ['10.0.0.0/24'], gateways: ['10.0.1.1'] }, 'INVALID_ARGUMENT', /not in the subnet/],
    ['gateway = network', { subnets: ['10.0.0.0/24'], gateways: ['10.0.0.0'] }, 'INVALID_ARGUMENT', /network address/],
    ['gateway = broadcast', { subnets: ['10.0.0.0/24'], gateways: ['10.0.0.255'] }, 'INVALID_ARGUMENT', /broadcast/],
    ['gateway malformed', { subnets: ['10.0.0.0/24'], gateways: ['10.0.0'] }, 'INVALID_ARGUMENT', /not an IPv4 addr/],
    ['gateway alone', { gateways: ['10.0.0.1'] }, 'INVALID_ARGUMENT', /needs its subnet/],
    ['two gateways', { subnets: ['10.0.0.0/24'], gateways: ['10.0.0.1', '10.0.0.2'] }, 'INVALID_ARGUMENT', /more gat/],
    ['VNI too large', { vni: 2 ** 24 }, 'INVALID_ARGUMENT', /not a VNI/],
    ['small MTU', { mtu: 67 }, 'INVALID_ARGUMENT', /MTU of 67/],
    ['order of names', { dnsOrder: 'near' }, 'INVALID_ARGUMENT', /order "near"/],
    ['end of policies', { policyDefault: 'deny' }, 'INVALID_ARGUMENT', /"deny" cannot be/],
    [
      'policies of a vlan',
      { encap: 'vlan', uplink: 'eth1', vlanTag: 7, policyDefault: 'drop' },
      'INVALID_ARGUMENT',
      /vlan network has no policies/,
    ],
    ['large MTU', { mtu: 65_536 }, 'INVALID_ARGUMENT', /MTU of 65536/],
  ];
  test.each(cases)('refused: %s', (_, change, code, message) => {
    const error = catching(() => checkSpec(aSpec('n', change)));
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    // Every refusal says what to do.
    expect(error.hint).toBeTruthy();
  });

  test('labels and options are bounded, and an option that nobody knows is refused', () => {
    const half = 'a'.repeat(32_768 - 1);
    expect(() => checkSpec(aSpec('n', { labels: { k: half }, options: { o: half } }))).not.toThrow();
    for (const change of [
      { labels: { k: half }, options: { o: `${half}a` } },
      { labels: { '': 'v' } },
      { options: { k: '\0' } },
    ])
      expect(catching(() => checkSpec(aSpec('n', change))).code).toBe('INVALID_ARGUMENT');
    for (const key of ['weft.speed', 'com.docker.network.bridge.name'])
      expect(catching(() => checkSpec(aSpec('n', { options: { [key]: '1' } }))).code).toBe('UNIMPLEMENTED');
    const { message } = catching(() => checkSpec(aSpec('x'.repeat(1_000_000))));
    expect(message).toMatch(/^"x+…x+" is not a network name$/);
    expect(message.length).toBeLessThan(200);
  });

  test('accepted: defaults, everything given, and a reservation without name', () => {
    const plain = { publishBy: '', dnsOrder: '', policyDefault: '' };
    const wire = { encap: 'vxlan', uplink: '', vlanTag: 0, allowTrust: false, ...plain };
    const family = { subnet: null, ipRange: null, gateway: null };
    expect(checkSpec(aSpec('n'))).toEqual({ space: 'default', vni: null, four: family, six: null, mtu: null, wire });
    const options = { 'weft.encap': 'vlan', 'weft.uplink': 'eth1', 'weft.tag': '100', 'weft.allow-trust': 'true' };
    const vlan = { encap: 'vlan', uplink: 'eth1', vlanTag: 100, allowTrust: true, ...plain };
    expect(checkSpec(aSpec('', { options }))).toMatchObject({ wire: vlan });
    for (const key of ['weft.mtu', 'com.docker.network.driver.mtu'])
      expect(checkSpec(aSpec('', { options: { [key]: '1400' } }))).toMatchObject({ mtu: 1400 });
    for (const [order, kept] of [
      ['rotate', ''],
      ['nearest', 'nearest'],
    ] as const) {
      const wanted = { wire: { dnsOrder: kept } };
      expect(checkSpec(aSpec('', { options: { 'weft.dns-order': order } }))).toMatchObject(wanted);
      expect(checkSpec(aSpec('', { dnsOrder: order }))).toMatchObject(wanted);
    }
    for (const [asked, policyDefault] of [
      ['allow', ''],
      ['drop', 'drop'],
    ] as const) {
      const wanted = { wire: { policyDefault } };
      expect(checkSpec(aSpec('', { options: { 'weft.policy-default': asked } }))).toMatchObject(wanted);
      expect(checkSpec(aSpec('', { policyDefault: asked }))).toMatchObject(wanted);
    }
    const all = { subnets: ['10.5.0.0/30'], gateways: ['10.5.0.2'], ipRange: '10.5.0.0/31', vni: 7, mtu: 9000 };
    expect(checkSpec(aSpec('n', { ...all, encap: 'vxlan', space: 'a.b-c' }))).toMatchObject({
      space: 'a.b-c',
      vni: 7,
      mtu: 9000,
    });
    expect(checkSpec(aSpec(''))).toMatchObject({ vni: null });
  });

  test('the second half of docker network create', () => {
    const bind = {
      name: 'n',
      labels: {},
      options: {},
      internal: false,
      attachable: false,
      gateway: '',
      gateway6: '',
      auxAddresses: {},
      joins: '',
      ipv6: false,
    };
    const subnet = { subnets: ['10.0.0.0/24'] };
    expect(() => checkBind(bind, subnet)).not.toThrow();
    expect(() => checkBind({ ...bind, name: '' }, subnet)).not.toThrow();
    expect(catching(() => checkBind({ ...bind, name: '-' }, subnet)).code).toBe('INVALID_ARGUMENT');
    expect(catching(() => checkBind({ ...bind, options: { 'weft.x': '' } }, subnet)).code).toBe('UNIMPLEMENTED');
    expect(catching(() => checkBind({ ...bind, gateway: '10.0.1.1' }, subnet)).code).toBe('INVALID_ARGUMENT');
    expect(catching(() => checkBind({ ...bind, auxAddresses: { a: '10.0.0.255' } }, subnet)).message).toMatch(/aux/);
  });
});

describe('blocks', () => {
  const plan = (subnet: string, ipRange = '', aux: Record<string, string> = {}) => {
    const gateway = formatIp(parseCidr(subnet).base + 1n);
    const network = { subnets: [subnet], ipRange, gateways: [gateway], auxAddresses: aux };
    return addressPlan(Network.fromPartial(network), familyOfText(subnet))!;
  };

  test('the usual length while there is one, then the largest that is left', () => {
    const p = plan('10.0.0.0/24');
    expect(text(pickBlock(p, []))).toBe('10.0.0.0/28');
    expect(text(pickBlock(p, [parseCidr('10.0.0.4/32')]))).toBe('10.0.0.16/28');
    expect(text(pickBlock(p, ['10.0.0.0/25', '10.0.0.128/26', '10.0.0.196/30'].map(parseCidr)))).toBe('10.0.0.208/28');
    const full = ['10.0.0.0/25', '10.0.0.128/26', '10.0.0.196/30', '10.0.0.200/32', '10.0.0.208/28'].map(parseCidr);
    expect(text(pickBlock(p, [...full, parseCidr('10.0.0.224/27')]))).toBe('10.0.0.192/30');
    expect(pickBlock(p, [parseCidr('10.0.0.0/24')])).toBe(null);
  });

  test('parts without an address for an endpoint are no blocks', () => {
    const p = plan('10.0.0.0/30');
    expect(text(pickBlock(p, []))).toBe('10.0.0.0/30');
    expect(text(pickBlock(p, [parseCidr('10.0.0.2/32')]))).toBe(null);
    expect(text(pickBlock(plan('10.0.0.0/30', '', { a: '10.0.0.2' }), []))).toBe(null);
  });

  test('only from the ip-range', () => {
    const p = plan('10.0.0.0/16', '10.0.4.0/28');
    expect(text(pickBlock(p, []))).toBe('10.0.4.0/29');
    expect(pickBlock(p, [parseCidr('10.0.4.0/28')])).toBe(null);
    // A given address may be anywhere in the subnet, and gets a block of its own there.
    expect(text(pickBlockContaining(p, [], parseIp('10.0.9.9')))).toBe('10.0.9.9/32');
    expect(text(pickBlockContaining(p, [], parseIp('10.0.4.9')))).toBe('10.0.4.8/29');
  });

  test('of IPv6: from the low 32 bits, or the address alone', () => {
    const p = plan('fd00:1::/64');
    expect(text(pickBlock(p, []))).toBe('fd00:1::/122');
    expect(text(pickBlock(p, [parseCidr('fd00:1::/122')]))).toBe('fd00:1::40/122');
    expect(text(pickBlockContaining(p, [], parseIp('fd00:1::1:7')))).toBe('fd00:1::1:0/122');
    expect(text(pickBlockContaining(p, [], parseIp('fd00:1::1:0:0:7')))).toBe('fd00:1::1:0:0:7/128');
    expect(pickBlockContaining(p, [], parseIp('fd00:1::'))).toBe(null);
    expect(pickBlockContaining(p, [], parseIp('fd00:1::1'))).toBe(null);
    expect(pickBlockContaining(p, [], parseIp('fd00:1:0:0:ffff:ffff:ffff:ffff'))).not.toBe(null);
    expect(pickBlockContaining(p, [], parseIp('fd00:2::5'))).toBe(null);
    expect(text(pickBlock(plan('fd00:1::/64', 'fd00:1::100/120'), []))).toBe('fd00:1::100/124');
    expect(text(pickBlock(plan('fd00:1::/126'), []))).toBe('fd00:1::/126');
  });

  test('the largest free one around an address', () => {
    const p = plan('10.0.0.0/24');
    const ip = parseIp('10.0.0.20');
    expect(text(pickBlockContaining(p, [], ip))).toBe('10.0.0.16/28');
    expect(text(pickBlockContaining(p, [parseCidr('10.0.0.24/30')], ip))).toBe('10.0.0.16/29');
    expect(text(pickBlockContaining(p, [parseCidr('10.0.0.21/32')], ip))).toBe('10.0.0.20/32');
    expect(pickBlockContaining(p, [parseCidr('10.0.0.0/27')], ip)).toBe(null);
    expect(pickBlockContaining(p, [], parseIp('10.0.0.1'))).toBe(null);
    expect(pickBlockContaining(p, [], parseIp('10.0.0.255'))).toBe(null);
    expect(pickBlockContaining(p, [], parseIp('10.0.1.0'))).toBe(null);
  });

  test('what a host may keep of a block', () => {
    const block = parseCidr('10.0.0.0/28');
    const parts = (...texts: string[]) => isPartition(block, texts.map(parseCidr));
    expect(parts()).toBe(true);
    expect(parts('10.0.0.8/29', '10.0.0.0/32')).toBe(true);
    expect(parts('10.0.0.8/29', '10.0.0.8/32')).toBe(false);
    expect(parts('10.0.0.16/32')).toBe(false);
  });
});

function catching(run: () => unknown): WeftError {
  try {
    run();
  } catch (error) {
    return WeftError.from(error);
  }
  throw new Error('nothing was thrown');
}
