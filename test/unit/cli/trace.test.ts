/** weft trace: what it asks of a coordinator, and what it prints. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { TraceResponse } from '../../../gen/weft/v1/control.ts';
import { FakeControl } from './fake-control.ts';

let fake: FakeControl;
beforeAll(async () => {
  fake = await FakeControl.start();
});
afterAll(async () => {
  await fake[Symbol.asyncDispose]();
});

const answer = (verdict: string, reason: string): TraceResponse =>
  TraceResponse.fromPartial({
    verdict,
    reason,
    source: 'h1/a',
    destination: 'h2/b',
    network: 'blue',
    host: 'h2',
    packet: { sourceIp: '10.1.0.2', destinationIp: '10.1.0.18', sourcePort: 40_000, destinationPort: 80, ttl: 64 },
    hops: [
      { host: 'h1', engine: 'express', stage: 'fdb', what: 'it is there', detail: 'fdb net 1 = remote' },
      {
        host: 'h2',
        engine: 'openvswitch',
        stage: 'l2',
        table: 28,
        what: 'nobody\u001b[2J has it',
        detail: 'table=28,…',
      },
    ],
  });

beforeEach(() => {
  fake.calls.length = 0;
  fake.answers.clear();
  fake.answers.set('trace', () => answer('delivered', 'b on h2 gets it'));
});

describe('what is asked', () => {
  const asked = async (...args: string[]): Promise<unknown> => {
    const r = await fake.run('trace', 'a', 'b', ...args);
    expect(r.err).toBe('');
    return fake.calls.find((c) => c.method === 'trace')?.request;
  };

  it.each<[string, object]>([
    ['9042/tcp', { protocol: 'tcp', port: 9042 }],
    ['tcp/9042', { protocol: 'tcp', port: 9042 }],
    ['udp/53', { protocol: 'udp', port: 53 }],
    ['sctp/7', { protocol: 'sctp', port: 7 }],
    ['icmp', { protocol: 'icmp', port: 0, icmpType: undefined }],
    ['icmp/3/4', { protocol: 'icmp', icmpType: 3, icmpCode: 4 }],
  ])('%s', async (port, want) => expect(await asked(port)).toMatchObject({ source: 'a', destination: 'b', ...want }));

  it('with all that a packet can have', async () => {
    const flags = ['--network', 'n', '--established', '--from-port', '53', '--from-ip', '10.1.0.9', '--ttl', '3'];
    expect(
      await asked('80/tcp', ...flags, '--from-mac', '02:00:00:00:00:01', '--length', '1400', '--ipv6'),
    ).toMatchObject({
      network: 'n',
      established: true,
      fromPort: 53,
      fromIp: '10.1.0.9',
      fromMac: '02:00:00:00:00:01',
      ttl: 3,
      length: 1400,
      family: 6,
    });
  });

  it.each([
    [['70000/tcp'], 2],
    [['tcp/0'], 2],
    [['80-90/tcp'], 2],
    [['tcp'], 2],
    [['http'], 2],
    [['80/tcp', '--ttl', '256'], 1],
    [['80/tcp', '--ttl', 'x'], 2],
    [['80/tcp', '--from-port', '0'], 1],
    [['80/tcp', '--length', '20'], 1],
    [['80/tcp', '--network', ''], 1],
    [['80/tcp', '--ttl', '1', '--ttl', '2'], 2],
  ])('not %j: exit %i, and nobody is asked', async (args, code) => {
    expect(await fake.run('trace', 'a', 'b', ...args)).toMatchObject({ code, out: '' });
    expect(fake.calls).toEqual([]);
  });
});

describe('what is said', () => {
  it.each([
    ['delivered', 0],
    ['answered', 0],
    ['left', 0],
    ['dropped', 1],
    ['rejected', 1],
    ['misdelivered', 1],
    ['unknown', 1],
  ])('%s: exit %i', async (verdict, code) => {
    fake.answers.set('trace', () => answer(verdict, 'so it is'));
    const r = await fake.run('trace', 'a', 'b', '80/tcp');
    expect(r.code).toBe(code);
    expect(r.out.split('\n').at(-2)).toBe(`${verdict}: so it is`);
  });

  it('a hop a line, and nothing of theirs that a terminal would obey', async () => {
    expect((await fake.run('trace', 'a', 'b', '80/tcp')).out).toBe(
      [
        'h1/a → h2/b, 80/tcp on blue (10.1.0.2:40000 → 10.1.0.18:80)',
        'HOST   ENGINE        STAGE   WHAT',
        'h1     express       fdb     it is there',
        'h2     openvswitch   28 l2   nobody [2J has it',
        'delivered: b on h2 gets it',
        '',
      ].join('\n'),
    );
    expect((await fake.run('trace', 'a', 'b', '80/tcp', '--detail')).out).toContain('  fdb net 1 = remote\n');
  });

  it('as JSON no key is left out', async () => {
    expect((await fake.run('trace', 'a', 'b', '80/tcp', '--json')).json()).toEqual({
      source: 'h1/a',
      destination: 'h2/b',
      network: 'blue',
      port: '80/tcp',
      packet: {
        sourceIp: '10.1.0.2',
        destinationIp: '10.1.0.18',
        sourcePort: 40_000,
        destinationPort: 80,
        icmpType: 0,
        icmpCode: 0,
        ttl: 64,
        length: 0,
        established: false,
      },
      verdict: 'delivered',
      reason: 'b on h2 gets it',
      host: 'h2',
      hops: [
        { host: 'h1', engine: 'express', stage: 'fdb', table: null, what: 'it is there', detail: 'fdb net 1 = remote' },
        { host: 'h2', engine: 'openvswitch', stage: 'l2', table: 28, what: expect.any(String), detail: 'table=28,…' },
      ],
    });
  });

  it('no agent at that socket', async () => {
    const r = await fake.run('trace', 'a', 'b', '80/tcp', '--socket', '/nonexistent/agent.sock');
    expect(r).toMatchObject({ code: 1, out: '' });
    expect(r.err).toContain('No agent of this host answers on /nonexistent/agent.sock');
  });
});
