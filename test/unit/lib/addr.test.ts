import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  blockPrefix,
  blockSpace,
  canonicalIp,
  containsCidr,
  familyOf,
  formatCidr,
  formatIp,
  halves,
  isUsable,
  lastOf,
  lengthOf,
  overlaps,
  parseCidr,
  parseIp,
  subnetOf,
  tryParseIp,
} from '../../../lib/addr.ts';
import { formatIp6, linkLocalOf, tryParseIp6 } from '../../../lib/ip6.ts';
import { aliasMac, defaultMac, formatMac, isNear, parseMac } from '../../../lib/mac.ts';

describe('IPv6 text', () => {
  // RFC 5952 §4 and its examples.
  test.each([
    ['2001:0db8::0001', '2001:db8::1'],
    ['2001:db8:0:0:0:0:2:1', '2001:db8::2:1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:DB8::A', '2001:db8::a'],
    ['0:0:0:0:0:0:0:0', '::'],
    ['::1', '::1'],
    ['1::', '1::'],
    ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
    ['::2:3:4:5:6:7:8', '0:2:3:4:5:6:7:8'],
  ])('%s is %s', (given, canonical) => expect(canonicalIp(given)).toBe(canonical));

  test.each([
    '',
    ':',
    ':::',
    '1::2::3',
    '1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7:8::',
    '::12345',
    ':1:2:3:4:5:6:7',
    '1:2:3:4:5:6:7:',
    'fe80::1%eth0',
    'fd00::1/64',
    '::ffff:10.0.0.1',
    '::1.2.3.4',
    'g::1',
    ' ::1',
  ])('%j is none', (text) => expect(tryParseIp6(text)).toBe(null));

  test('what is written is read again', () => {
    fc.assert(fc.property(fc.bigInt(0n, (1n << 128n) - 1n), (ip) => tryParseIp6(formatIp6(ip)) === ip));
  });

  test('IPv4 written as IPv6 is neither', () => {
    expect(tryParseIp('::ffff:a00:1')).toBe(null);
    expect(() => parseIp('::ffff:a00:1')).toThrow(/not an IPv6 address/);
    expect(() => parseIp('10.1')).toThrow(/not an IPv4 address/);
  });

  test('link-local address of a MAC', () =>
    expect(formatIp6(linkLocalOf(parseMac('02:58:0a:80:00:07')))).toBe('fe80::58:aff:fe80:7'));
});

describe('prefixes of both families', () => {
  test('lengths as written', () => {
    for (const text of ['10.128.0.0/20', '0.0.0.0/0', '10.0.0.1/32', 'fd00:1::/64', '::/0', 'fd00::1/128'])
      expect(formatCidr(parseCidr(text))).toBe(text);
    expect(lengthOf(parseCidr('10.0.0.0/8'))).toBe(8);
    expect(lengthOf(parseCidr('fd00::/8'))).toBe(8);
  });

  test.each(['10.0.0.0/33', 'fd00::/129', 'fd00::', 'fd00::/064', 'fd00::/6x', '::ffff:a00:0/104'])('%s is none', (t) =>
    expect(() => parseCidr(t)).toThrow(/not an IPv. prefix/),
  );

  test('host bits are named', () => {
    expect(() => parseCidr('fd00::1/64')).toThrow(/host bits/);
    expect(() => parseCidr('10.0.0.1/24')).toThrow(/host bits/);
  });

  test('families never meet', () => {
    expect(overlaps(parseCidr('0.0.0.0/0'), parseCidr('fd00::/8'))).toBe(false);
    expect(familyOf(parseIp('255.255.255.255'))).toBe(4);
    expect(familyOf(parseIp('::1'))).toBe(6);
    const network = { subnets: ['10.0.0.0/24', 'fd00::/64'] };
    expect(subnetOf(network, 6)).toEqual(parseCidr('fd00::/64'));
    expect(subnetOf({ subnets: ['fd00::/64'] }, 4)).toBe(null);
  });

  test('usable: no network address, and of IPv4 no broadcast address', () => {
    const six = parseCidr('fd00::/64');
    expect(isUsable(six, six.base)).toBe(false);
    expect(isUsable(six, lastOf(six))).toBe(true);
    const four = parseCidr('10.0.0.0/24');
    expect([four.base, lastOf(four)].map((ip) => isUsable(four, ip))).toEqual([false, false]);
  });

  test('blocks', () => {
    const of = (text: string): string => `/${blockPrefix(blockSpace(parseCidr(text)))}`;
    expect(['10.0.0.0/16', '10.0.0.0/20', '10.0.0.0/24', '10.0.0.0/30'].map(of)).toEqual([
      '/122',
      '/123',
      '/124',
      '/126',
    ]);
    expect(['fd00::/64', 'fd00::/112', 'fd00::/120', 'fd00::/126'].map(of)).toEqual(['/122', '/122', '/124', '/126']);
    expect(formatCidr(blockSpace(parseCidr('fd00:1::/64')))).toBe('fd00:1::/96');
  });

  test('halves', () => {
    fc.assert(
      fc.property(fc.bigInt(0n, (1n << 128n) - 1n), fc.nat(127), (ip, prefix) => {
        const cidr = { base: (ip >> BigInt(128 - prefix)) << BigInt(128 - prefix), prefix };
        const [low, high] = halves(cidr);
        expect(containsCidr(cidr, low) && containsCidr(cidr, high) && !overlaps(low, high)).toBe(true);
        expect(lastOf(low) + 1n).toBe(high.base);
        expect(lastOf(high)).toBe(lastOf(cidr));
      }),
    );
  });
});

describe('default MACs', () => {
  test('follow from the IPv4 address, else from the last 32 bits', () => {
    expect(defaultMac('10.128.0.7', 'fd00::7', 64)).toEqual({ mac: '02:58:0a:80:00:07', own: false });
    expect(defaultMac('', 'fd00::1:7', 64)).toEqual({ mac: '02:59:00:01:00:07', own: false });
    expect(formatMac(aliasMac(parseIp('fd00::1:7')))).toBe('02:59:00:01:00:07');
  });

  test('of far addresses differ although their last 32 bits do not', () => {
    const [a, b] = ['fd00::1:0:0:7', 'fd00::2:0:0:7'].map((ip) => defaultMac('', ip, 64));
    expect([a?.own, b?.own]).toEqual([true, true]);
    expect(a?.mac).not.toBe(b?.mac);
    expect(isNear(parseIp('fd00::1:0:0:7'), 64)).toBe(false);
    expect(isNear(parseIp('fd00::1:0:0:7'), 112)).toBe(true);
  });

  test('text of an IPv4 address is kept', () => expect(formatIp(parseIp('10.0.0.1'))).toBe('10.0.0.1'));
});
