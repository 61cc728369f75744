import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BpfAddress, BpfBackend, BpfModel, BpfService } from '../../../agent/bpf/model.ts';
import { parseIp } from '../../../lib/ip.ts';
import { parseIp6 } from '../../../lib/ip6.ts';
import { parseMac } from '../../../lib/mac.ts';
import { type BpfHost, type Container, counting, inside } from '../../harness/bpf.ts';
import { NET, Pair } from '../../harness/bpf-pair.ts';
import { Dialog } from '../../harness/dialog.ts';

/** Connections through virtual addresses, between containers of two hosts. */

const SOON = { timeout: 5_000, interval: 20 };
const GATEWAY = '02:57:65:66:74:01';
const PORT = 8080;
const VIRTUAL = { IPv4: '10.128.9.1', IPv6: 'fd00:128::9:1' } as const;
type Family = keyof typeof VIRTUAL;
const FAMILIES = ['IPv4', 'IPv6'] as const;
const SEGMENTS = fileURLToPath(new URL('../../harness/segments.pl', import.meta.url));
/** Several segments of 64 KiB in flight, and more than the buffers hold. */
const LARGE = 8 << 20;

const addressOf = (ip: string): BpfAddress =>
  ip.includes(':') ? { family: 6, address: parseIp6(ip) } : { family: 4, address: parseIp(ip) };
/** fd00:128:: and the last byte of the IPv4 address. */
const ip6Of = (c: Container): string => `fd00:128::${c.ip.split('.')[3]}`;

describe('services of two hosts', () => {
  let pair: Pair;
  const servers: Dialog[] = [];
  let client: Dialog;

  const ipOf = (c: Container, family: Family): string => (family === 'IPv4' ? c.ip : ip6Of(c));
  const backend = (c: Container, family: Family): BpfBackend => ({
    address: addressOf(ipOf(c, family)),
    mac: parseMac(c.mac),
    port: PORT,
  });
  const services = (of: readonly Container[], more: Partial<BpfService> = {}): BpfService[] =>
    FAMILIES.flatMap((family, i) =>
      ([6, 17] as const).map((protocol, j) => ({
        id: 1 + i * 2 + j,
        index: NET,
        address: addressOf(VIRTUAL[family]),
        protocol,
        port: 80,
        affinity: 0,
        backends: of.map((c) => backend(c, family)),
        ...more,
      })),
    );
  /** As it is with services, and IPv6. */
  const model = (m: BpfModel, on: BpfHost, all: readonly BpfService[], express: boolean): BpfModel => ({
    ...m,
    ports: m.ports.map((p) => {
      const c = on.containers.find((one) => one.port.ifindex === p.ifindex);
      return { ...p, express, ip6: c === undefined ? null : parseIp6(ip6Of(c)) };
    }),
    fdb: m.fdb.map((e) => ({ ...e, express })),
    blocks: m.blocks.map((b) => ({ ...b, express })),
    services: all,
  });
  const serve = async (all: readonly BpfService[], express = true): Promise<void> => {
    await pair.a.apply(model(pair.modelA, pair.a, all, express));
    await pair.b.apply(model(pair.modelB, pair.b, all, express));
  };

  beforeAll(async () => {
    pair = await Pair.start();
    const all = [pair.ca, pair.cb, pair.cc];
    for (const c of all) {
      const ip = (...args: string[]) => inside(c.netns, 'ip', ...args);
      const known = (what: string, mac: string) =>
        ip('neigh', 'replace', what, 'lladdr', mac, 'dev', 'eth0', 'nud', 'permanent');
      await inside(c.netns, 'sysctl', '-qw', 'net.ipv6.conf.eth0.disable_ipv6=0');
      await ip('addr', 'add', `${ip6Of(c)}/64`, 'dev', 'eth0', 'nodad');
      // Open vSwitch answers for virtual addresses, which is not of this test.
      for (const virtual of Object.values(VIRTUAL)) await known(virtual, GATEWAY);
      for (const other of all)
        if (other !== c) await known(other.ip, other.mac).then(() => known(ip6Of(other), other.mac));
    }
    servers.push(await Dialog.serve(pair.ca.netns, PORT, 'ca'));
    servers.push(await Dialog.serve(pair.cb.netns, PORT, 'cb'));
    servers.push(await Dialog.serve(pair.cc.netns, PORT, 'cc'));
    client = Dialog.client(pair.ca.netns);
  });
  afterAll(async () => {
    await client?.[Symbol.asyncDispose]();
    for (const s of servers) await s[Symbol.asyncDispose]();
    await pair?.[Symbol.asyncDispose]();
  });

  describe.each([
    ['by the express path', true],
    ['by Open vSwitch', false],
  ] as const)('%s', (_how, express) => {
    describe.each(FAMILIES)('%s', (family) => {
      const where = ['the other side of the tunnel', 'the same host', 'the client itself'] as const;
      it.each(where)('a backend on %s: it sees the client, TCP and UDP, small and large', async (place) => {
        const [c, name] =
          place === where[0] ? [pair.cb, 'cb'] : place === where[1] ? [pair.cc, 'cc'] : ([pair.ca, 'ca'] as const);
        const seen = place === where[2] ? VIRTUAL[family] : ipOf(pair.ca, family);
        await serve(services([c]), express);
        const counted = await counting(pair.a.driver);
        expect(await client.ask('open', 'one', VIRTUAL[family], 80, 0)).toBe('open');
        expect(await client.ask('who', 'one')).toMatch(new RegExp(`^${name} ${seen} \\d+$`));
        expect(await client.ask('get', 'one', LARGE)).toBe('right');
        expect(await client.ask('put', 'one', LARGE)).toBe('right');
        expect(await client.ask('close', 'one')).toBe('closed');
        for (const size of [100, 1_400])
          expect(await client.ask('udp', VIRTUAL[family], 80, 0, size)).toBe(`${name} ${seen}`);
        // In fragments.
        expect(await client.ask('udp', VIRTUAL[family], 80, 0, 8_000)).toBe(`${name} ${seen}`);
        const after = await counted();
        expect(after).toMatchObject({ service: expect.any(Number) });
        expect(after).not.toHaveProperty('failed');
        expect(after).not.toHaveProperty('service_fragment');
      });

      it('datagrams that leave the client as one segment arrive one by one', async () => {
        await serve(services([pair.cb]), express);
        const receive = ['perl', SEGMENTS, 'receive', ipOf(pair.cb, family), '8081', '200'];
        const child = spawn('nsenter', [`--net=/run/netns/${pair.cb.netns}`, ...receive], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        let said = '';
        child.stdout.setEncoding('utf8').on('data', (text: string) => {
          said += text;
        });
        const ended = new Promise((resolve) => child.once('close', resolve));
        await expect.poll(() => said, SOON).toContain('ready');
        const to8081 = services([pair.cb]).map((s) => ({
          ...s,
          backends: s.backends.map((b) => ({ ...b, port: 8081 })),
        }));
        await serve(to8081, express);
        await inside(pair.ca.netns, 'perl', SEGMENTS, 'send', VIRTUAL[family], '80', ipOf(pair.ca, family), '20');
        await ended;
        expect(said).toBe('ready\n200\n');
      });
    });
  });

  it.each(FAMILIES)('%s: a connection goes on with its backend when another takes its place', async (family) => {
    await serve(services([pair.cb]));
    expect(await client.ask('open', 'old', VIRTUAL[family], 80, 0)).toBe('open');
    await serve(services([pair.cc]));
    expect(await client.ask('open', 'new', VIRTUAL[family], 80, 0)).toBe('open');
    expect(await client.ask('who', 'old')).toMatch(/^cb /);
    expect(await client.ask('who', 'new')).toMatch(/^cc /);
    await serve(services([]));
    expect(await client.ask('get', 'old', LARGE)).toBe('right');
    for (const id of ['old', 'new']) expect(await client.ask('close', id)).toBe('closed');
    const seen = await counting(pair.a.driver);
    expect(await client.ask('udp', VIRTUAL[family], 80, 0, 100)).toBe('ABORT_ERR');
    expect(await seen()).toMatchObject({ no_backend: 1 });
  });

  it.each(FAMILIES)('%s: that nobody listens is heard', async (family) => {
    const closed = services([pair.cb]).map((s) => ({ ...s, backends: s.backends.map((b) => ({ ...b, port: 8082 })) }));
    await serve(closed);
    expect(await client.ask('open', 'none', VIRTUAL[family], 80, 0)).toBe('ECONNREFUSED');
    expect(await client.ask('udp', VIRTUAL[family], 80, 0, 100)).toBe('ECONNREFUSED');
  });

  it('a second look finds nothing to do', async () => {
    const all = services([pair.cb, pair.cc], { affinity: 60 });
    await serve(all);
    expect(await pair.a.apply(model(pair.modelA, pair.a, all, true))).toBe(0);
  });
});
