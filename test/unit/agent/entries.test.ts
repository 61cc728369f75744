import { expect, test } from 'vitest';
import { addressesOf, behindHost } from '../../../agent/plan/entries.ts';
import { Block, Endpoint } from '../../../gen/weft/v1/types.ts';
import { formatCidr, parseCidr } from '../../../lib/addr.ts';
import { formatIp } from '../../../lib/ip.ts';
import { formatIp6 } from '../../../lib/ip6.ts';
import { formatMac } from '../../../lib/mac.ts';

const SUBNET6 = parseCidr('fd00::/64');
const BLOCKS = ['10.0.0.32/28', 'fd00::40/122', 'fd00::1:0:0:7/128'].map((cidr) => Block.fromPartial({ cidr }));

const behind = (...endpoints: Partial<Endpoint>[]) => {
  const all = endpoints.map((e) => ({ ...Endpoint.fromPartial({ express: true }), ...e }));
  const { blocks, blocks6, entries, withheld } = behindHost(BLOCKS, all, SUBNET6);
  return {
    blocks: [...blocks.map((b) => `${formatIp(b.base)}/${b.prefix}`), ...blocks6.map(formatCidr)],
    entries: entries.map(
      (e) => `${formatMac(e.mac)} ${e.ip === null ? '-' : formatIp(e.ip)} ${e.ip6 === null ? '-' : formatIp6(e.ip6)}`,
    ),
    withheld: withheld.map(formatMac),
  };
};

test('blocks of addresses that their last 32 bits tell; what they describe needs no entry', () => {
  const both = { ips: ['10.0.0.33', 'fd00::41'], mac: '02:58:0a:00:00:21' };
  const alone = { ips: ['fd00::42'], mac: '02:59:00:00:00:42' };
  expect(behind(both, alone)).toEqual({ blocks: ['10.0.0.32/28', 'fd00::40/122'], entries: [], withheld: [] });
});

test('an entry has what no block tells: given MACs, addresses of other hosts’ blocks, far ones', () => {
  expect(behind({ ips: ['10.0.0.33', 'fd00::41'], mac: '02:aa:00:00:00:01', givenMac: true }).entries).toEqual([
    '02:aa:00:00:00:01 10.0.0.33 fd00::41',
  ]);
  expect(behind({ ips: ['10.0.0.33', 'fd00::90'], mac: '02:58:0a:00:00:21' }).entries).toEqual([
    '02:58:0a:00:00:21 - fd00::90',
  ]);
  expect(behind({ ips: ['10.0.0.99', 'fd00::41'], mac: '02:58:0a:00:00:63' }).entries).toEqual([
    '02:58:0a:00:00:63 10.0.0.99 -',
  ]);
  expect(behind({ ips: ['10.0.0.33', 'fd00::1:0:0:7'], mac: '02:58:0a:00:00:21' }).entries).toEqual([
    '02:58:0a:00:00:21 - fd00::1:0:0:7',
  ]);
});

test('what may not take the express path is named by MAC and alias', () => {
  expect(behind({ ips: ['10.0.0.33', 'fd00::41'], mac: '02:58:0a:00:00:21', express: false }).withheld).toEqual([
    '02:58:0a:00:00:21',
    '02:59:00:00:00:41',
  ]);
  const out = behind({ ips: ['10.0.0.99', 'fd00::41'], mac: '02:58:0a:00:00:63', express: false });
  expect(out.withheld).toEqual(['02:59:00:00:00:41']);
});

test('a local endpoint has an alias where others use one', () => {
  const of = (ip: string, ip6: string) => {
    const { alias } = addressesOf({ ip, ip6, prefix6: 64 });
    return alias === null ? null : formatMac(alias);
  };
  expect(of('10.0.0.2', 'fd00::41')).toBe('02:59:00:00:00:41');
  expect(of('', 'fd00::1:0:0:7')).toBe(null);
  expect(of('10.0.0.2', '')).toBe(null);
});
