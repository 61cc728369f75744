import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  bytes,
  checksum,
  groupMac,
  icmp6Frame,
  ip4Frame,
  pseudoHeader,
  readFrame,
} from '../../../agent/multicast/frame.ts';
import { QUERIER_IP6, QUERIER_MAC, queryFrame } from '../../../agent/multicast/queries.ts';
import { isPrunable, type Message, readMessage } from '../../../agent/multicast/reports.ts';
import { parseIp } from '../../../lib/ip.ts';
import { formatIp6, parseIp6 } from '../../../lib/ip6.ts';

const MAC = 0x02580a800002n;
const SELF = BigInt(parseIp('10.128.0.2'));
const v4 = (text: string): bigint => BigInt(parseIp(text));

const igmp = (hex: string): Buffer => {
  const message = Buffer.from(hex.replaceAll(' ', ''), 'hex');
  message.writeUInt16BE(checksum([message]), 2);
  return message;
};
const from4 = (payload: Buffer): Buffer => ip4Frame({ mac: MAC, source: SELF, destination: v4('224.0.0.22') }, payload);
const from6 = (hex: string, source = parseIp6('fe80::58:aff:fe80:2')): Buffer =>
  icmp6Frame({ mac: MAC, source, destination: parseIp6('ff02::16') }, Buffer.from(hex.replaceAll(' ', ''), 'hex'));
const read = (frame: Buffer): Message | null => {
  const datagram = readFrame(frame);
  return datagram === null ? null : readMessage(datagram);
};
const changes = (frame: Buffer): string[] | string => {
  const message = read(frame);
  if (message === null) return 'nothing';
  if (message.kind === 'query') return 'query';
  return message.changes.map(({ group, wants }) => (wants ? '+' : '-') + group.toString(16));
};

describe('reports', () => {
  it.each([
    ['IGMPv1 report', '12 00 0000 ef010203', ['+ef010203']],
    ['IGMPv2 report', '16 00 0000 ef010203', ['+ef010203']],
    ['IGMPv2 leave', '17 00 0000 ef010203', ['-ef010203']],
    ['IGMPv2 query', '11 64 0000 00000000', 'query'],
    ['IGMPv3 query', '11 64 0000 00000000 02 7d 0000', 'query'],
    ['v3, to exclude none: joins', '22 00 0000 0000 0001 04 00 0000 ef010203', ['+ef010203']],
    ['v3, is exclude with sources', '22 00 0000 0000 0001 02 00 0001 ef010203 0a000001', ['+ef010203']],
    ['v3, to include none: leaves', '22 00 0000 0000 0001 03 00 0000 ef010203', ['-ef010203']],
    ['v3, to include some: joins', '22 00 0000 0000 0001 03 00 0001 ef010203 0a000001', ['+ef010203']],
    ['v3, allows sources', '22 00 0000 0000 0001 05 00 0002 ef010203 0a000001 0a000002', ['+ef010203']],
    ['v3, blocks sources: tells nothing', '22 00 0000 0000 0001 06 00 0001 ef010203 0a000001', []],
    ['v3, record of another kind', '22 00 0000 0000 0001 09 00 0000 ef010203', []],
    [
      'v3, several records, one with auxiliary data',
      '22 00 0000 0000 0003 04 01 0000 ef010203 ffffffff 03 00 0000 ef010204 04 00 0000 ef010205',
      ['+ef010203', '-ef010204', '+ef010205'],
    ],
    ['groups of the link', '22 00 0000 0000 0002 04 00 0000 e00000fb 04 00 0000 e0000101', ['+e0000101']],
    ['what is no group', '16 00 0000 0a000001', []],
    ['v3, more records than there are', '22 00 0000 0000 0002 04 00 0000 ef010203', 'nothing'],
    ['v3, more sources than there are', '22 00 0000 0000 0001 04 00 ffff ef010203', 'nothing'],
    ['DVMRP', '13 00 0000 00000000', 'nothing'],
    ['too short', '16 00 0000', 'nothing'],
  ])('%s', (_name, hex, expected) => {
    expect(changes(from4(igmp(hex)))).toEqual(expected);
  });

  it('with a wrong checksum are none', () => {
    const message = igmp('16 00 0000 ef010203');
    message[2] = message[2]! ^ 1;
    expect(changes(from4(message))).toBe('nothing');
  });

  const FF15 = 'ff15 0000 0000 0000 0000 0000 0000 0001';
  const GROUP = 'ff150000000000000000000000000001';
  it.each([
    ['MLDv1 report', `83 00 0000 0000 0000 ${FF15}`, [`+${GROUP}`]],
    ['MLDv1 done', `84 00 0000 0000 0000 ${FF15}`, [`-${GROUP}`]],
    ['MLD query', `82 00 0000 2710 0000 ${'00'.repeat(16)} 02 7d 0000`, 'query'],
    ['v2, to exclude none', `8f 00 0000 0000 0001 04 00 0000 ${FF15}`, [`+${GROUP}`]],
    ['v2, to include none', `8f 00 0000 0000 0001 03 00 0000 ${FF15}`, [`-${GROUP}`]],
    ['v2, a group of the link', '8f 00 0000 0000 0001 04 00 0000 ff02 0000 0000 0000 0000 0001 ff80 0002', []],
    ['v2, cut', '8f 00 0000 0000 0001 04 00 0000 ff15', 'nothing'],
    ['neighbour solicitation', `87 00 0000 0000 0000 ${FF15}`, 'nothing'],
  ])('%s', (_name, hex, expected) => {
    expect(changes(from6(hex))).toEqual(expected);
  });

  it('of IPv6 come from this link: link-local or no address, hop limit 1', () => {
    const report = `8f 00 0000 0000 0001 04 00 0000 ${FF15}`;
    expect(changes(from6(report, 0n))).toEqual([`+${GROUP}`]);
    expect(changes(from6(report, parseIp6('fd00::2')))).toBe('nothing');
    const far = from6(report);
    far[14 + 7] = 64;
    expect(changes(far)).toBe('nothing');
  });
});

describe('frames', () => {
  it('that are fragments, cut, or of other protocols are none', () => {
    const whole = from4(igmp('16 00 0000 ef010203'));
    expect(readFrame(whole)).toMatchObject({ family: 4, ttl: 1, protocol: 2, source: SELF });
    for (let cut = 0; cut < whole.length; cut++) expect(readFrame(whole.subarray(0, cut))).toBeNull();
    const fragment = Buffer.from(whole);
    fragment[14 + 6] = 0x20;
    expect(readFrame(fragment)).toBeNull();
    const arp = Buffer.from(whole);
    arp.writeUInt16BE(0x0806, 12);
    expect(readFrame(arp)).toBeNull();
    // Padding of short frames is no payload.
    expect(readFrame(Buffer.concat([whole, Buffer.alloc(20)]))?.payload).toHaveLength(8);
  });

  it('of any bytes: read or not, never an error', () => {
    const sources = [
      from4(igmp('22 00 0000 0000 0001 04 00 0000 ef010203')),
      from6(`8f 00 0000 0000 0001 04 00 0000 ${'ff15'.padEnd(32, '0')}`),
    ];
    fc.assert(
      fc.property(
        fc.constantFrom(...sources),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 6 }),
        fc.nat(),
        fc.uint8Array({ maxLength: 40 }),
        (source, damage, cut, more) => {
          const frame = Buffer.concat([source, more]);
          for (const [at, byte] of damage) frame[at % frame.length] = byte;
          read(frame.subarray(0, cut % (frame.length + 1)));
        },
      ),
      { numRuns: 2000 },
    );
  });

  it('behind endless extension headers are not looked for', () => {
    const chain = Buffer.concat(Array.from({ length: 8 }, () => Buffer.from('0000000000000000', 'hex')));
    const header = Buffer.alloc(40);
    header[0] = 0x60;
    header.writeUInt16BE(chain.length, 4);
    const frame = Buffer.concat([Buffer.alloc(12), Buffer.from('86dd', 'hex'), header, chain]);
    expect(readFrame(frame)).toBeNull();
  });
});

describe('queries', () => {
  it('of IPv4 are what a v3 host expects', () => {
    const frame = queryFrame({ family: 4, group: null, maxResponseMs: 10_000, source: v4('10.128.0.1') });
    expect(frame.toString('hex')).toBe(
      '01005e000001' +
        '025800000000' +
        '0800' + // to all systems
        '46c000240000000001023992' +
        '0a800001' +
        'e0000001' +
        '94040000' + // TTL 1, router alert
        '1164ec1e00000000' +
        '027d0000',
    );
    expect(read(frame)).toEqual({ kind: 'query' });
    const one = readFrame(queryFrame({ family: 4, group: v4('239.1.2.3'), maxResponseMs: 1000, source: 0n }));
    expect(one).toMatchObject({ destination: v4('239.1.2.3'), source: 0n, ttl: 1 });
    expect(one?.payload.toString('hex')).toMatch(/^110a....ef010203027d0000$/);
    expect(checksum([one!.payload])).toBe(0);
  });

  it('of IPv6 are what a v2 host expects', () => {
    const frame = queryFrame({ family: 6, group: null, maxResponseMs: 10_000, source: 0n });
    expect(formatIp6(QUERIER_IP6)).toBe('fe80::58:ff:fe00:0');
    expect(frame.subarray(0, 6).toString('hex')).toBe('333300000001');
    expect(read(frame)).toEqual({ kind: 'query' });
    const datagram = readFrame(frame);
    expect(datagram).toMatchObject({ source: QUERIER_IP6, destination: parseIp6('ff02::1'), ttl: 1 });
    expect(datagram?.payload.toString('hex')).toMatch(/^8200....27100000(00){16}027d0000$/);
    const pseudo = pseudoHeader(QUERIER_IP6, parseIp6('ff02::1'), datagram!.payload.length);
    expect(checksum([pseudo, datagram!.payload])).toBe(0);
    expect(QUERIER_MAC >> 40n).toBe(2n);
  });
});

describe('groups', () => {
  it('have the MACs of RFC 1112 and RFC 2464', () => {
    expect(groupMac(4, v4('224.129.2.3'))).toBe(0x01005e010203n);
    expect(groupMac(6, parseIp6('ff15::1:2'))).toBe(0x333300010002n);
    expect(bytes(0x0102n, 4).toString('hex')).toBe('00000102');
  });

  it('of the link, and of the host, are not pruned', () => {
    const prunable = (text: string): boolean =>
      text.includes(':') ? isPrunable(6, parseIp6(text)) : isPrunable(4, v4(text));
    expect(['224.0.1.0', '239.255.255.250', 'ff05::1', 'ff15::1', 'ff0e::1', 'ff32::1'].map(prunable)).toEqual([
      true,
      true,
      true,
      true,
      true,
      false,
    ]);
    expect(
      ['224.0.0.1', '224.0.0.251', '10.0.0.1', '255.255.255.255', 'ff02::fb', 'ff01::1', 'fe80::1', '::'].map(prunable),
    ).toEqual(Array.from({ length: 8 }, () => false));
  });
});
