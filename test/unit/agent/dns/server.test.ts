import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect } from 'node:net';
import { decode, encode } from 'dns-packet';
import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { DnsServer } from '../../../../agent/dns/server.ts';
import { parseQuery } from '../../../../agent/dns/wire.ts';
import { systemClock } from '../../../../lib/clock.ts';
import { silentLog } from '../../../../lib/log.ts';
import { indexWith, network, remote, service } from './names-fixture.ts';
import { CROWD, counters, edns, query, type Reply, running, tcp, tcpQuery, udp, udpBytes } from './server-fixture.ts';

const data = (reply: Reply): unknown[] => (reply.answers ?? []).map((record) => 'data' in record && record.data);
const flag = (message: Buffer, bits: number): Buffer => {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(copy.readUInt16BE(2) | bits, 2);
  return copy;
};

describe('the resolver', () => {
  it('answers by UDP and TCP alike, with the question as it was asked', async () => {
    await using dns = await running();
    const replies = [
      await udp(dns.ports.udp, query('oNe.Web', 'A')),
      ...(await tcp(dns.ports.tcp, tcpQuery('oNe.Web', 'A'))),
    ];
    expect(replies.length).toBe(2);
    for (const reply of replies) {
      expect(reply).toMatchObject({
        id: 4711,
        flag_qr: true,
        flag_aa: true,
        flag_ra: true,
        flag_rd: true,
        flag_tc: false,
      });
      expect(reply.questions).toEqual([{ name: 'oNe.Web', type: 'A', class: 'IN' }]);
      expect(reply.answers).toMatchObject([{ name: 'oNe.Web', type: 'A', ttl: 0, data: '10.128.0.2' }]);
    }
    expect(dns.counted.seen).toEqual(['udp answered', 'tcp answered']);
  });

  it('says every type, and says no properly', async () => {
    await using dns = await running();
    const ask = (name: string, type: string): Promise<Reply> => udp(dns.ports.udp, query(name, type));
    expect(data(await ask('one', 'AAAA'))).toEqual(['fd00:1::2']);
    expect(data(await ask('2.0.128.10.in-addr.arpa', 'PTR'))).toEqual(['one.web', 'one.web.weft']);
    expect(await ask('one', 'SRV')).toMatchObject({ rcode: 'NOERROR', answers: [], authorities: [] });
    const soa = { name: 'weft', type: 'SOA', ttl: 0, data: { mname: 'dns.weft', minimum: 0 } };
    expect(await ask('no.weft', 'A')).toMatchObject({ rcode: 'NXDOMAIN', answers: [], authorities: [soa] });
    expect(await ask('example.com', 'A')).toMatchObject({ rcode: 'SERVFAIL', flag_aa: false });
    expect(dns.counted.seen.slice(2)).toEqual(['udp empty', 'udp nxdomain', 'udp servfail']);
  });

  it('keeps to the size that was asked for, and gives all by TCP', async () => {
    await using dns = await running();
    const ask = (more = {}): Promise<Buffer> => udpBytes(dns.ports.udp, query('many', 'A', more));
    for (const [more, limit] of [
      [{}, 512],
      [edns(100), 512],
      [edns(900), 900],
      [edns(65_000), 1232],
    ] as const) {
      const bytes = await ask(more);
      expect(bytes.length).toBeLessThanOrEqual(limit);
      expect(bytes.length).toBeGreaterThan(limit - 16);
      expect(bytes.readUInt16BE(2) & 0x0200).toBe(0x0200);
    }
    const [whole] = await tcp(dns.ports.tcp, tcpQuery('many', 'A'));
    expect(whole?.flag_tc).toBe(false);
    expect(new Set(data(whole!)).size).toBe(CROWD);
  });

  it('gives SRV records with the addresses of their targets, as far as there is room', async () => {
    const labels = { app: 'api' };
    const others = Array.from({ length: 60 }, (_, i) =>
      remote({ network: 'web', name: `m${i}`, ips: [`10.128.1.${i + 2}`, `fd00:1::${i + 2}`] }, { labels }),
    );
    const virtual = service('web', 'api', { ips: ['10.128.0.9', 'fd00:1::9'] });
    const services = [virtual, service('web', 'all', { selector: labels })];
    const index = indexWith({ networks: [network('web')], others, services });
    await using dns = await running({ index: () => index });
    const ask = (name: string, more = {}): Promise<Reply> => udp(dns.ports.udp, query(name, 'SRV', more));
    const one = await ask('_80._TCP.Api.web', edns(1232));
    expect(one.answers).toMatchObject([
      { name: '_80._TCP.Api.web', type: 'SRV', ttl: 0, data: { priority: 0, weight: 1, port: 80, target: 'api.web' } },
    ]);
    expect(one.additionals).toMatchObject([
      { name: 'api.web', type: 'A', ttl: 0, data: '10.128.0.9' },
      { name: 'api.web', type: 'AAAA', data: 'fd00:1::9' },
      { type: 'OPT' },
    ]);
    const cut = await ask('_80._tcp.all', edns(1232));
    expect(cut.flag_tc).toBe(true);
    expect(cut.answers?.length).toBeLessThan(60);
    expect(cut.additionals).toMatchObject([{ type: 'OPT' }]);
    // All targets, not all of their addresses.
    const few = indexWith({ networks: [network('web')], others: others.slice(0, 12), services });
    await using less = await running({ index: () => few });
    const bytes = await udpBytes(less.ports.udp, query('_80._tcp.all', 'SRV'));
    expect(bytes.length).toBeLessThanOrEqual(512);
    const full = decode(bytes);
    expect(full.answers?.length).toBe(12);
    expect(full).toMatchObject({ flag_tc: false });
    expect(full.additionals?.length).toBeGreaterThan(0);
    expect(full.additionals?.length).toBeLessThan(24);
    const [whole] = await tcp(dns.ports.tcp, tcpQuery('_80._tcp.all', 'SRV'));
    expect(whole?.answers?.length).toBe(60);
    expect(whole?.additionals?.length).toBe(120);
  });

  it('refuses what it does not do', async () => {
    await using dns = await running({ asker: (source) => (source === '127.0.0.1' ? null : { networks: [] }) });
    await using own = await running();
    const ask = async (message: Buffer, port = own.ports.udp): Promise<string | undefined> =>
      (await udp(port, message)).rcode;
    expect(await ask(query('one', 'A'), dns.ports.udp)).toBe('REFUSED');
    expect((await tcp(dns.ports.tcp, tcpQuery('one', 'A')))[0]?.rcode).toBe('REFUSED');
    expect(await ask(query('one', 'A', { questions: [{ type: 'A', class: 'CH', name: 'one' }] }))).toBe('REFUSED');
    expect(await ask(query('one', 'AXFR'))).toBe('REFUSED');
    expect(await ask(flag(query('one', 'A'), 4 << 11))).toBe('NOTIMP');
    const two = { questions: [{ type: 'A', name: 'one' } as const, { type: 'A', name: 'one' } as const] };
    expect(await ask(query('one', 'A', two))).toBe('FORMERR');
    expect(await ask(query('one', 'A', { questions: [] }))).toBe('FORMERR');
    expect(await ask(query('one', 'A').subarray(0, 14))).toBe('FORMERR');
    const badVersion = await udp(own.ports.udp, query('one', 'A', edns(1232, 1)));
    expect(badVersion.additionals).toMatchObject([{ type: 'OPT', extendedRcode: 1 }]);
    // Neither a response nor half a header is answered: what comes back is the answer to the next one.
    const next = query('one', 'A', { id: 7 });
    expect((await udp(own.ports.udp, flag(query('one', 'A'), 0x8000), Buffer.from('too short'), next)).id).toBe(7);
    expect(own.counted.seen).toEqual(
      expect.arrayContaining(['udp dropped response', 'udp dropped short', 'udp badvers', 'udp notimp']),
    );
  });

  it('answers with addresses once they have been learned, and not before', async () => {
    const told: unknown[] = [];
    const installed = Promise.withResolvers<void>();
    const learn = (who: unknown, name: string, answered: () => unknown, own: boolean): Promise<void> => {
      told.push([who, name, answered(), own]);
      return installed.promise;
    };
    const forward = (message: Buffer): Promise<Buffer> => {
      const { id = 0, questions = [] } = decode(message);
      const answers = [{ name: questions[0]!.name, type: 'A', data: '198.51.100.7', ttl: 30 } as const];
      return Promise.resolve(encode({ type: 'response', id, questions, answers }));
    };
    await using dns = await running({ forward, learn });
    let answered = 0;
    const asked = ['One.', 'www.Example.org', 'api.example.org', 'one.web.weft'].map(async (name) => {
      const reply = await udp(dns.ports.udp, query(name, 'A'));
      answered++;
      return reply.answers?.length;
    });
    await vi.waitFor(() => expect(told).toHaveLength(4));
    expect(answered).toBe(0);
    installed.resolve();
    expect(await Promise.all(asked)).toEqual([1, 1, 1, 1]);
    const asker = { networks: ['web'] };
    expect(told).toEqual(
      expect.arrayContaining([
        [asker, 'one', [{ ip: '10.128.0.2', ttl: 0 }], true],
        [asker, 'www.example.org', [{ ip: '198.51.100.7', ttl: 30 }], false],
        // A container that is called like a name of the world.
        [asker, 'api.example.org', [{ ip: '10.128.0.2', ttl: 0 }], false],
        [asker, 'one.web.weft', [{ ip: '10.128.0.2', ttl: 0 }], true],
      ]),
    );
  });

  it('gives back what was forwarded, cut to what fits', async () => {
    const forward = (message: Buffer): Promise<Buffer> =>
      Promise.resolve(flag(Buffer.concat([message, Buffer.alloc(600)]), 0x8000));
    await using dns = await running({ forward });
    expect((await udpBytes(dns.ports.udp, query('example.com', 'A', edns(1232)))).length).toBeGreaterThan(600);
    const cut = await udp(dns.ports.udp, query('example.com', 'A'));
    expect(cut).toMatchObject({ flag_tc: true, questions: [{ name: 'example.com' }] });
    await using failing = await running({ forward: () => Promise.reject(new Error('lost')) });
    expect((await udp(failing.ports.udp, query('example.com', 'A'))).rcode).toBe('SERVFAIL');
  });

  it('waits for its address', async () => {
    const holder = createSocket('udp4').bind(0, '127.0.0.1');
    await once(holder, 'listening');
    const { port } = holder.address();
    const told: unknown[] = [];
    const log = Object.assign(silentLog(), { info: (_: unknown, event: unknown) => told.push(event) });
    const o = { address: '127.0.0.1', port, clock: systemClock(), log, counters: counters(), retryMs: 10 };
    await using server = new DnsServer({ ...o, handler: () => Buffer.alloc(12) });
    server.start();
    await expect.poll(() => told).toEqual(['DNS cannot listen yet']);
    expect(server.listening).toBe(false);
    holder.close();
    expect((await server.up()).udp).toBe(port);
  });
});

describe('a TCP connection', () => {
  it('takes many queries at once, in whatever pieces, also when each is forwarded', async () => {
    const forward = (message: Buffer): Promise<Buffer> => Promise.resolve(flag(message, 0x8000));
    await using dns = await running({ forward });
    const all = Buffer.concat(
      Array.from({ length: 500 }, (_, id) => tcpQuery(id % 3 === 0 ? 'example.com' : 'one', 'A', { id })),
    );
    const pieces = Array.from({ length: Math.ceil(all.length / 77) }, (_, i) => all.subarray(77 * i, 77 * i + 77));
    const ids = (await tcp(dns.ports.tcp, ...pieces)).map((reply) => reply.id ?? -1);
    expect(ids.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 500 }, (_, id) => id));
  });

  it('is closed when idle, when it sends what is no query, and beyond its number', async () => {
    await using dns = await running({}, { idleMs: 50, maxConnectionsOfOne: 2 });
    const closed = async (bytes: Uint8Array): Promise<void> => {
      const socket = connect(dns.ports.tcp, '127.0.0.1').on('error', () => undefined);
      socket.write(bytes);
      socket.resume();
      // Not events.once(), which a reset, too, would fail.
      await new Promise<void>((resolve) => void socket.on('close', () => resolve()));
    };
    await closed(Buffer.alloc(0));
    await closed(tcpQuery('one', 'A').subarray(0, 10));
    await closed(Buffer.from([0xff, 0xff, 1, 2, 3]));
    await closed(Buffer.from([0, 3, 1, 2, 3]));
    await Promise.all(Array.from({ length: 6 }, () => closed(Buffer.alloc(0))));
    expect(dns.counted.seen).toEqual(
      expect.arrayContaining(['tcp dropped size', 'tcp dropped short', 'tcp dropped limit']),
    );
    await expect.poll(() => dns.server.connections).toBe(0);
  });

  it('that nobody reads from does not fill the memory', async () => {
    await using dns = await running();
    const socket = connect(dns.ports.tcp, '127.0.0.1');
    const closed = Promise.withResolvers<void>();
    socket.on('error', () => undefined).on('close', () => closed.resolve());
    socket.pause();
    const some = Buffer.concat(Array.from({ length: 200 }, () => tcpQuery('many', 'A')));
    const more = (error?: Error | null): void => {
      if (error == null && !socket.destroyed) socket.write(some, more);
    };
    more();
    await closed.promise;
    expect(dns.counted.seen).toContain('tcp dropped limit');
  });
});

describe('hostile input', () => {
  const VALID = [query('one', 'A'), query('many', 'A', edns(1232)), query('2.0.128.10.in-addr.arpa', 'PTR', edns(512))];
  const mutated = fc
    .tuple(
      fc.constantFrom(...VALID),
      fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { minLength: 1, maxLength: 6 }),
      fc.nat(80),
    )
    .map(([valid, changes, length]) => {
      const copy = Buffer.from(valid);
      for (const [at, byte] of changes) copy[at % copy.length] = byte;
      return length % 4 === 0 ? copy.subarray(0, length) : copy;
    });
  const hostile = fc.oneof(
    fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    mutated,
  );

  it('is parsed or refused, quickly, and never throws', () => {
    fc.assert(
      fc.property(hostile, (bytes) => ['query', 'bad', 'drop'].includes(parseQuery(bytes, 'udp').kind)),
      { numRuns: 10_000 },
    );
  });

  it('10,000 datagrams and their like by TCP leave it as it was', async () => {
    await using dns = await running();
    const messages = fc.sample(hostile, 10_000);
    const socket = createSocket('udp4').bind(0, '127.0.0.1');
    await once(socket, 'listening');
    for (let i = 0; i < messages.length; i += 50) {
      await Promise.all(
        messages
          .slice(i, i + 50)
          .map((m) => new Promise((resolve) => socket.send(m, dns.ports.udp, '127.0.0.1', resolve))),
      );
      // In step with it: nothing is lost in a full socket.
      expect(data(await udp(dns.ports.udp, query('one', 'A')))).toEqual(['10.128.0.2']);
    }
    socket.close();
    expect(dns.counted.seen.filter((seen) => seen.startsWith('udp')).length).toBe(10_000 + messages.length / 50);
    for (const message of messages.slice(0, 300)) await tcp(dns.ports.tcp, message);
    expect(data((await tcp(dns.ports.tcp, tcpQuery('one', 'A')))[0]!)).toEqual(['10.128.0.2']);
  });
});
