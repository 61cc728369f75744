/** Whom a trace is between, what packets there can be, and the way from host to host, with hosts that answer what they are told to. */
import { describe, expect, it } from 'vitest';
import { packetOf } from '../../../coordinator/api/trace.ts';
import { endsOf, partyText } from '../../../coordinator/trace/parties.ts';
import { type Ask, follow } from '../../../coordinator/trace/way.ts';
import { TraceRequest } from '../../../gen/weft/v1/control.ts';
import {
  Endpoint,
  ExternalPeer,
  Host,
  Network,
  Service,
  TraceAnswer,
  TracePacket,
} from '../../../gen/weft/v1/types.ts';
import { WeftError } from '../../../lib/errors.ts';

const endpoint = (id: string, networkId: string, hostId: string, name: string, ...ips: string[]): Endpoint =>
  Endpoint.fromPartial({ id: id.repeat(16), networkId, hostId, ips, container: { id: `c${id}`.repeat(8), name } });
const keyed = <T extends { readonly id: string }>(...all: T[]): Map<string, T> =>
  new Map(all.map((one) => [one.id, one]));

const web = Network.fromPartial({
  id: 'n1',
  name: 'web',
  subnets: ['10.1.0.0/24', 'fd01::/64'],
  gateways: ['10.1.0.1'],
});
const data = Network.fromPartial({ id: 'n2', name: 'data', subnets: ['10.2.0.0/24'] });
const host = (n: number): Host =>
  Host.fromPartial({ id: `h${n}`, name: `h${n}`, vteps: [{ address: `192.0.2.${n}`, encaps: ['vxlan'] }] });
const a = endpoint('aaaa', 'n1', 'h1', 'web-1', '10.1.0.2', 'fd01::2');
const b = endpoint('bbbb', 'n1', 'h2', 'web-2', '10.1.0.18', 'fd01::18');
const two = endpoint('cccc', 'n2', 'h1', 'web-1', '10.2.0.2');
const db = endpoint('dddd', 'n2', 'h2', 'db-1', '10.2.0.18');
const twin = endpoint('eeee', 'n1', 'h2', 'twin', '10.1.0.19');
const other = endpoint('ffff', 'n1', 'h3', 'twin', '10.1.0.35');
const six = endpoint('abab', 'n1', 'h3', 'six', 'fd01::35');

const state: Parameters<typeof follow>[0] = {
  hosts: keyed(host(1), host(2), host(3)),
  networks: keyed(web, data),
  endpoints: new Map([
    ['n1', keyed(a, b, twin, other, six)],
    ['n2', keyed(two, db)],
  ]),
  services: new Map([
    [
      'n1',
      new Map([
        [
          'shop',
          Service.fromPartial({ id: 's1', networkId: 'n1', name: 'shop', ips: ['10.1.0.200'], selector: { app: 'x' } }),
        ],
      ]),
    ],
  ]),
  blocks: new Map(),
  externals: new Map([['n1', keyed(ExternalPeer.fromPartial({ id: 'p1', name: 'router', vtep: '192.0.2.99' }))]]),
};
const ends = (source: string, destination: string, family = 0, only: Network | null = null) =>
  endsOf(state, { source, destination, family }, only);
const shown = (source: string, destination: string, family = 0, only: Network | null = null): string => {
  const e = ends(source, destination, family, only);
  const [from, to] = [partyText(state, e.source, e.from), partyText(state, e.destination, e.to)];
  return `${from} ${e.from} to ${to} ${e.to} on ${e.network?.name ?? '-'}`;
};

describe('between whom', () => {
  it.each([
    ['web-1', 'web-2', 'h1/web-1 10.1.0.2 to h2/web-2 10.1.0.18 on web'],
    ['h1/web-1', 'db-1', 'h1/web-1 10.2.0.2 to h2/db-1 10.2.0.18 on data'],
    ['web-1', '10.2.0.18', 'h1/web-1 10.2.0.2 to h2/db-1 10.2.0.18 on data'],
    ['web-1', '10.1.0.77', 'h1/web-1 10.1.0.2 to 10.1.0.77 10.1.0.77 on web'],
    ['bbbb', 'aaaa', 'h2/web-2 10.1.0.18 to h1/web-1 10.1.0.2 on web'],
    ['web-2', 'shop', 'h2/web-2 10.1.0.18 to service shop 10.1.0.200 on web'],
    ['web-2', '10.1.0.200', 'h2/web-2 10.1.0.18 to service shop 10.1.0.200 on web'],
    ['web-2', 'h3/twin', 'h2/web-2 10.1.0.18 to h3/twin 10.1.0.35 on web'],
    ['web-2', 'six', 'h2/web-2 fd01::18 to h3/six fd01::35 on web'],
    ['web-2', '192.0.2.3', 'h2/web-2 10.1.0.18 to host h3 192.0.2.3 on web'],
    ['web-2', 'db-1', 'h2/web-2 10.1.0.18 to h2/db-1 10.2.0.18 on web'],
    ['203.0.113.1', 'h1', '203.0.113.1 203.0.113.1 to host h1 192.0.2.1 on -'],
  ])('%s to %s', (from, to, want) => expect(shown(from, to)).toBe(want));

  it('of the family that is asked for', () =>
    expect(shown('web-1', 'web-2', 6)).toContain('fd01::2 to h2/web-2 fd01::18'));

  it('in the network that is asked for', () => {
    expect(shown('web-1', '203.0.113.1', 0, data)).toBe('h1/web-1 10.2.0.2 to 203.0.113.1 203.0.113.1 on data');
    expect(shown('web-1', 'web-2', 0, web)).toContain('on web');
  });

  it.each<[string, string, string, number, Network | null]>([
    ['nobody', 'web-1', 'NOT_FOUND', 0, null],
    ['web-1', 'nobody', 'NOT_FOUND', 0, null],
    ['203.0.113.1', '203.0.113.2', 'NOT_FOUND', 0, null],
    ['203.0.113.1', 'web-1', 'NOT_FOUND', 0, null],
    ['', 'web-1', 'INVALID_ARGUMENT', 0, null],
    ['web-2', 'twin', 'INVALID_ARGUMENT', 0, null],
    ['web-1', '203.0.113.1', 'INVALID_ARGUMENT', 0, null],
    ['web-2', 'web-1', 'FAILED_PRECONDITION', 0, data],
    ['db-1', 'six', 'FAILED_PRECONDITION', 0, null],
    ['db-1', 'h1/web-1', 'FAILED_PRECONDITION', 6, data],
  ])('not from %j to %j: %s', (from, to, code, family, only) =>
    expect(() => ends(from, to, family, only)).toThrow(expect.objectContaining({ code })),
  );
});

describe('the packet', () => {
  const of = (more: Partial<TraceRequest> = {}, to = 'web-2') =>
    packetOf(TraceRequest.fromPartial({ protocol: 'tcp', port: 80, ...more }), ends('web-1', to, 0, web));

  it('is an opening one unless something else is said', () => {
    expect(of()).toMatchObject({ protocol: 6, sourcePort: 40_000, destinationPort: 80, ttl: 64, established: false });
    expect(of({ protocol: 'icmp', port: 0 })).toMatchObject({ protocol: 1, icmpType: 8, destinationPort: 0 });
    expect(of({ protocol: 'icmp', port: 0 }, 'six')).toMatchObject({ protocol: 58, icmpType: 128 });
    expect(of({ fromIp: '10.1.0.9', fromMac: '02:AA:00:00:00:01', fromPort: 53, ttl: 3, length: 1400 })).toMatchObject({
      sourceIp: '10.1.0.9',
      sourceMac: '02:aa:00:00:00:01',
      sourcePort: 53,
      ttl: 3,
      length: 1400,
    });
  });

  it.each<[Partial<TraceRequest>, string?]>([
    [{ protocol: 'gre' }],
    [{ port: 0 }],
    [{ port: 65_536 }],
    [{ fromPort: 70_000 }],
    [{ ttl: 256 }],
    [{ length: 70_000 }],
    [{ protocol: 'icmp', icmpType: 256 }],
    [{ fromIp: 'fd01::9' }],
    [{ fromIp: '10.1.0.300' }],
    [{ fromMac: 'x' }],
    [{}, '224.0.0.5'],
    [{}, '127.0.0.1'],
    [{}, '255.255.255.255'],
    [{}, 'ff02::1'],
  ])('there is none like %j %s', (more, to) =>
    expect(() => of(more, to)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' })),
  );
});

describe('the way', () => {
  const tunnel = (toVtep: string): TraceAnswer =>
    TraceAnswer.fromPartial({ outcome: 'tunnel', tunnel: { fromVtep: '192.0.2.1', toVtep, encap: 'vxlan', key: 7 } });
  const to = (e: Endpoint): TraceAnswer => TraceAnswer.fromPartial({ outcome: 'delivered', endpointId: e.id });
  const end = (outcome: string, reason: string, engine = 'openvswitch'): TraceAnswer =>
    TraceAnswer.fromPartial({ outcome, reason, hops: [{ engine }] });
  /** Answers in turn; whom they were asked of. */
  const way = async (from: string, destination: string, ...answers: (TraceAnswer | Error)[]) => {
    const hosts: string[] = [];
    const ask: Ask = (h) => {
      hosts.push(h.name);
      const answer = answers[hosts.length - 1] ?? new Error('asked too often');
      return answer instanceof Error ? Promise.reject(answer) : Promise.resolve(answer);
    };
    const found = await follow(state, ends(from, destination), TracePacket.fromPartial({}), ask);
    return { verdict: found.verdict, reason: found.reason, host: found.host, hosts };
  };

  it('on one host, and on two', async () => {
    expect(await way('web-2', 'h2/twin', to(twin))).toMatchObject({
      verdict: 'delivered',
      reason: 'twin on h2 gets it',
    });
    expect(await way('web-1', 'web-2', tunnel('192.0.2.2'), to(b))).toEqual({
      verdict: 'delivered',
      reason: 'web-2 on h2 gets it',
      host: 'h2',
      hosts: ['h1', 'h2'],
    });
  });

  it('to somebody else', async () =>
    expect(await way('web-1', 'web-2', tunnel('192.0.2.3'), to(other))).toMatchObject({
      verdict: 'misdelivered',
      reason: 'twin on h3 gets it, which is not h2/web-2',
    }));

  it('where no host is, or an external peer, or one that is away', async () => {
    expect(await way('web-1', 'web-2', tunnel('192.0.2.77'))).toMatchObject({ verdict: 'dropped' });
    expect(await way('web-1', 'web-2', tunnel('192.0.2.99'))).toMatchObject({
      verdict: 'left',
      reason: 'it goes to peer router (192.0.2.99), which is no host of the mesh',
    });
    const away = new WeftError('FAILED_PRECONDITION', 'Host h2 is not connected.');
    expect(await way('web-1', 'web-2', tunnel('192.0.2.2'), away)).toMatchObject({
      verdict: 'unknown',
      reason: 'host h2 is not connected',
    });
  });

  it('out, and in by another host’s port', async () => {
    const out = { ...end('outside', 'it leaves'), packet: TracePacket.fromPartial({ destinationIp: '192.0.2.3' }) };
    expect(await way('web-2', '192.0.2.3', out, to(other))).toMatchObject({
      verdict: 'delivered',
      hosts: ['h2', 'h3'],
    });
    expect(await way('web-2', '203.0.113.1', end('outside', 'it leaves'))).toMatchObject({
      verdict: 'left',
      reason: 'it leaves',
    });
  });

  it('between networks that nothing leads between', async () => {
    const apart = /^no route: h2\/web-2 \(web\) and h2\/db-1 \(data\) share no network, and no router leads/;
    expect((await way('web-2', 'db-1', end('outside', 'it leaves'))).reason).toMatch(apart);
    expect((await way('web-2', 'db-1', end('dropped', 'no route there', 'kernel'))).reason).toMatch(apart);
    // A router leads there: what its own tables say is the reason.
    expect((await way('web-2', 'db-1', end('dropped', 'the default of network data'))).reason).toBe(
      'the default of network data',
    );
  });

  it('what nobody has, no host holds', async () => {
    const here = 'no endpoint of network web that h1 knows has 10.1.0.77 (02:…)';
    expect((await way('web-2', '10.1.0.77', end('dropped', here))).reason).toBe(`no host holds 10.1.0.77: ${here}`);
    expect((await way('web-2', 'h2/twin', end('dropped', here))).reason).toBe(here);
  });

  it('in a circle it ends', async () => {
    const round = Array.from({ length: 10 }, (_, i) => tunnel(`192.0.2.${(i % 2) + 1}`));
    expect(await way('web-1', 'web-2', ...round)).toMatchObject({
      verdict: 'unknown',
      reason: 'it goes round in circles',
    });
  });
});
