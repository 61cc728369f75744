import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { REG, TABLE } from '../../../agent/flows/pipeline.ts';
import { carriedOf } from '../../../agent/gateway/errors.ts';
import { errorEnds, renamed } from '../../../agent/gateway/quoted.ts';
import { checksum } from '../../../agent/multicast/frame.ts';
import { rejection } from '../../../agent/policies/reject-frame.ts';

const ip4 = (text: string): Buffer => Buffer.from(text.split('.').map(Number));
const ip6 = (last: number): Buffer =>
  Buffer.concat([Buffer.from('fd000000000000000000000000', 'hex'), Buffer.from([0, 0, last])]);

/** UDP with a right checksum. */
function udp(source: Buffer, destination: Buffer): Buffer {
  const segment = Buffer.from('9c400035000c0000deadbeef', 'hex');
  const tail = Buffer.alloc(8);
  tail.writeUInt32BE(segment.length, 0);
  tail[7] = 17;
  const pseudo = source.length === 4 ? Buffer.from([0, 17, 0, segment.length]) : tail;
  segment.writeUInt16BE(checksum([source, destination, pseudo, segment]), 6);
  const macs = Buffer.from('025765667401025765667402', 'hex');
  if (source.length === 16) {
    const header = Buffer.from('60000000000c1140', 'hex');
    return Buffer.concat([macs, Buffer.from([0x86, 0xdd]), header, source, destination, segment]);
  }
  const header = Buffer.concat([Buffer.from('45000020000040004011', 'hex'), Buffer.alloc(2), source, destination]);
  header.writeUInt16BE(checksum([header]), 10);
  return Buffer.concat([macs, Buffer.from([8, 0]), header, segment]);
}

/** Addresses in the error's header and in what it quotes; every checksum must be 0. */
function seen(frame: Buffer): { ends: string[]; sums: number[] } {
  const six = frame.readUInt16BE(12) === 0x86dd;
  const size = six ? 16 : 4;
  const [outer, icmp] = six ? [22, 54] : [26, 34];
  const quoted = icmp + 8;
  const [inner, segment] = six ? [quoted + 8, quoted + 40] : [quoted + 12, quoted + 20];
  const at = (from: number): Buffer => frame.subarray(from, from + size);
  const pseudo = (from: number, length: number, protocol: number): Buffer => {
    const tail = Buffer.alloc(8);
    tail.writeUInt32BE(length, 0);
    tail[7] = protocol;
    return Buffer.concat([frame.subarray(from, from + 2 * size), six ? tail : Buffer.from([0, protocol, 0, length])]);
  };
  const body = frame.subarray(segment);
  const message = frame.subarray(icmp);
  return {
    ends: [at(outer), at(outer + size), at(inner), at(inner + size)].map((b) => b.toString('hex')),
    sums: [
      six ? 0 : checksum([frame.subarray(14, 34)]),
      six ? 0 : checksum([frame.subarray(quoted, quoted + 20)]),
      checksum(six ? [pseudo(outer, message.length, 58), message] : [message]),
      checksum([pseudo(inner, body.length, 17), body]),
    ],
  };
}

const CASES = [
  ['IPv4', ip4('169.254.70.1'), ip4('10.1.0.2'), ip4('198.51.100.7')],
  ['IPv6', ip6(70), ip6(2), ip6(99)],
] as const;

describe.each(CASES)('an ICMP error over %s', (_, transit, own, other) => {
  it('that comes in gets the endpoint’s own address, at both ends of the matter', () => {
    // What `rejection` makes is an error that quotes its argument.
    const error = rejection(udp(transit, other))!;
    const out = renamed(error, 'destination', { was: transit, now: own })!;
    expect(seen(out)).toEqual({ ends: [other, own, own, other].map((b) => b.toString('hex')), sums: [0, 0, 0, 0] });
  });

  it('that goes out gets that by which the host knows it', () => {
    const error = rejection(udp(other, own))!;
    const out = renamed(error, 'source', { was: own, now: transit })!;
    expect(seen(out)).toEqual({
      ends: [transit, other, other, transit].map((b) => b.toString('hex')),
      sums: [0, 0, 0, 0],
    });
  });

  it('about somebody else’s packet is nobody’s', () => {
    const error = rejection(udp(other, own))!;
    expect(renamed(error, 'source', { was: transit, now: own })).toBeNull();
    expect(renamed(udp(transit, other), 'destination', { was: transit, now: own })).toBeNull();
  });

  it('may be cut anywhere, and be filled with anything', () => {
    const error = rejection(udp(transit, other))!;
    fc.assert(
      fc.property(fc.nat(error.length), fc.uint8Array({ maxLength: 40 }), fc.nat(error.length), (length, noise, at) => {
        const frame = Buffer.from(error.subarray(0, length));
        frame.set(noise.subarray(0, Math.max(0, frame.length - at)), Math.min(at, frame.length));
        const out = renamed(frame, 'destination', { was: transit, now: own });
        expect(out === null || out.length <= frame.length).toBe(true);
        errorEnds(frame);
      }),
      { numRuns: 2000 },
    );
  });
});

describe('the agent', () => {
  const endpoint = {
    id: 'e',
    ip: '10.1.0.2',
    ip6: '',
    mac: '02:58:0a:01:00:02',
    transit: '169.254.70.1',
  };
  const sources = {
    journal: { endpoints: new Map([['e', endpoint]]) },
    ofport: (id: string) => (id === 'e' ? 5 : null),
  } as unknown as Parameters<typeof carriedOf>[1];
  const [, transit, own, other] = CASES[0];

  it('sends it to the endpoint, or to the host', () => {
    const into = carriedOf(
      { data: rejection(udp(transit, other))!, fields: new Map([['in_port', 9n]]), table: TABLE.classify },
      sources,
    );
    expect(into).toMatchObject({ inPort: 9, actions: [{ type: 'output', port: 5 }] });
    expect(Buffer.from(into!.data).toString('hex', 0, 12)).toBe('02580a010002025765667401');
    const out = carriedOf(
      {
        data: rejection(udp(other, own))!,
        fields: new Map<'in_port' | typeof REG.out, bigint>([
          ['in_port', 5n],
          [REG.out, 9n],
        ]),
        table: TABLE.routing,
      },
      sources,
    );
    expect(out).toMatchObject({ inPort: 5, actions: [{ type: 'output', port: 9 }] });
    expect(Buffer.from(out!.data).toString('hex', 0, 12)).toBe('025765667402025765667401');
    const stray = rejection(udp(ip4('169.254.70.2'), other))!;
    expect(carriedOf({ data: stray, fields: new Map([['in_port', 9n]]), table: TABLE.classify }, sources)).toBeNull();
  });
});
