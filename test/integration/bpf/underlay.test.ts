import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { askOnce, counting, driverIn, inside } from '../../harness/bpf.ts';
import { NET, Pair, ping, v4 } from '../../harness/bpf-pair.ts';

const SOON = { timeout: 5_000, interval: 20 };

describe('the underlay', () => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await Pair.start();
  });
  afterAll(async () => {
    await pair?.[Symbol.asyncDispose]();
  });

  /** The first outer packet that comes by while `work` is done, as tcpdump(8) writes it. */
  async function outer(work: () => Promise<unknown>): Promise<string> {
    const capture = inside(
      pair.b.netns,
      'timeout',
      '10',
      'tcpdump',
      '-nn',
      '-v',
      '-c',
      '6',
      '-i',
      'u0',
      'udp',
      'port',
      '4789',
    );
    let ended = false;
    const ends = capture.finally(() => {
      ended = true;
    });
    while (!ended) await work();
    return ends;
  }

  it('outer fields are as configured, or as the frame has them', async () => {
    const { a, ca, cb, modelA } = pair;
    const probe = () => ping(ca, cb.ip, '-Q', '0xb8', '-t', '33');
    const own = new RegExp(`${a.vtep.replaceAll('.', '\\.')}\\.\\d+ > `);
    const of = async (): Promise<string> => {
      const lines = (await outer(probe)).split('\n');
      const at = lines.findIndex((line) => own.test(line));
      return `${lines[at - 1]} ${lines[at]}`;
    };
    expect(await of()).toMatch(/tos 0x0, ttl 64, .*flags \[DF\]/);
    await a.apply({
      ...modelA,
      config: { ...modelA.config, ttl: null, dscp: null, dontFragment: false, checksum: true },
    });
    expect(await of()).toMatch(/tos 0xb8, ttl 33, .*flags \[none\]/);
    await a.apply({ ...modelA, config: { ...modelA.config, ttl: 9, dscp: 10 } });
    expect(await of()).toMatch(/tos 0x28, ttl 9, /);
    await pair.reset();
  });

  it('IPv6 between the hosts, IPv4 inside', async () => {
    await pair.overIp6();
    const seen = await counting(pair.a.driver);
    await inside(pair.ca.netns, 'ip', 'neigh', 'flush', 'dev', 'eth0');
    await ping(pair.ca, pair.cb.ip);
    await expect.poll(seen, SOON).toMatchObject({ copies: 1, tunnel_to_ovs: 1, express_remote: 3, express_rx: 3 });
    await pair.reset();
  });

  it('an external peer with its own key: its MAC is learned, and forgotten with it', async () => {
    const { a, ca, modelA, namespaces } = pair;
    const external = await namespaces.add('ext');
    const x = (...args: string[]) => inside(external, 'ip', ...args);
    await x('link', 'add', 'u1', 'type', 'veth', 'peer', 'name', 'u1', 'netns', a.netns);
    await x('addr', 'add', '198.51.100.2/24', 'dev', 'u1');
    await inside(a.netns, 'ip', 'addr', 'add', '198.51.100.1/24', 'dev', 'u1');
    const peer = ['id', '77', 'local', '198.51.100.2', 'remote', '198.51.100.1', 'dstport', '4789'];
    await x('link', 'add', 'vx', 'mtu', '1450', 'address', '02:ee:00:00:00:01', 'type', 'vxlan', ...peer);
    await x('addr', 'add', '10.128.3.3/16', 'dev', 'vx');
    await askOnce(external, 'vx');
    await x('link', 'set', 'vx', 'up');
    await x('link', 'set', 'u1', 'up');
    await inside(a.netns, 'ip', 'link', 'set', 'u1', 'addrgenmode', 'none', 'up');
    const device = await a.ifindex('weft-vxlan');
    const far = { vtep: v4('198.51.100.2'), device, key: 77 };
    // The source address is the kernel's choice here: the peer is on another link.
    await a.apply({
      ...modelA,
      config: { ...modelA.config, source4: null },
      sources: [...modelA.sources, { index: NET, ...far, external: true, learn: true }],
      lists: [{ id: NET, vteps: [...(modelA.lists[0]?.vteps ?? []), far] }],
    });
    const seen = await counting(a.driver);
    await ping(ca, '10.128.3.3');
    await expect.poll(seen, SOON).toMatchObject({ copies: 2, slow: 4, tunnel_to_ovs: 4, ovs_to_tunnel: 3 });
    const learned = async () => (await a.helper.ask('dump learned')).data.map((line) => line.slice(0, 20));
    expect(await learned()).toEqual([`0300000002ee00000001`]);
    await pair.reset();
    expect(await learned()).toEqual([]);
  });

  it('traffic goes on while the helper is dead; a new one takes over what is there', async () => {
    const { a, ca, cb, modelA } = pair;
    const pid = a.helper.pid;
    expect(pid).not.toBeNull();
    process.kill(pid ?? 0, 'SIGKILL');
    await ping(ca, cb.ip);
    expect(await a.apply(modelA)).toBe(0);
    // As a restarted agent would.
    const { driver } = driverIn(a.netns, a.mounts);
    await driver.start();
    expect(await driver.observeFresh()).toEqual(a.driver.observe());
    expect(await driver.attached(a.places())).toEqual(
      new Map(a.attachments.map((x) => [`${x.ifindex} ingress`, x.program])),
    );
    await driver.close();
  });

  it('what somebody detached or changed is seen, and put right', async () => {
    const { a, ca, cb, modelA } = pair;
    await inside(a.netns, 'tc', 'qdisc', 'del', 'dev', 'wft0', 'clsact');
    await a.helper.ask(`batch 1\nd fdb 03000000${ca.mac.replaceAll(':', '')}0000`);
    expect(await a.apply(modelA)).toBe(2);
    await ping(ca, cb.ip);
  });

  it('TCP, as fast as a bare veth allows', async () => {
    const { a, ca, cb, cc, namespaces } = pair;
    const bare = await namespaces.add('bare');
    await inside(ca.netns, 'ip', 'link', 'add', 'bare0', 'type', 'veth', 'peer', 'name', 'bare0', 'netns', bare);
    for (const [netns, ip] of [
      [ca.netns, '198.51.100.1'],
      [bare, '198.51.100.2'],
    ] as const) {
      await inside(netns, 'ip', 'addr', 'add', `${ip}/24`, 'dev', 'bare0');
      await inside(netns, 'ip', 'link', 'set', 'bare0', 'up');
    }
    const raw = await throughput(ca.netns, bare, '198.51.100.2');
    const sent = async () => (await a.driver.counters()).traffic.get(ca.port.ifindex)?.txBytes ?? 0n;
    const before = await sent();
    const express = await throughput(ca.netns, cb.netns, cb.ip);
    const moved = Number((await sent()) - before);
    const local = await throughput(ca.netns, cc.netns, cc.ip);
    const text = (rate: number): string => `${(rate / 1e9).toFixed(1)} Gb/s`;
    const ratio = (rate: number): string => `${text(rate)} (${(rate / raw).toFixed(2)} of it)`;
    process.stdout.write(
      `TCP, 1 stream, 2 s: bare veth ${text(raw)}, express to another host ${ratio(express)}, on one host ${ratio(local)}; ` +
        'the underlay is a veth and carries unsegmented frames\n',
    );
    expect(moved * 8).toBeGreaterThan(express);
    // The slow path is ten times slower: this says which way it went, not how fast it must be.
    expect(express / raw).toBeGreaterThan(0.1);
  });
});

/** @returns bits per second of one TCP stream of two seconds. */
async function throughput(from: string, to: string, address: string): Promise<number> {
  const server = inside(to, 'iperf3', '-s', '-1');
  const listening = async () => (await inside(to, 'ss', '-Hltn', 'sport', '=', ':5201')) !== '';
  await expect.poll(listening, SOON).toBe(true);
  const out = await inside(from, 'iperf3', '-J', '-t', '2', '-c', address);
  await server;
  return (JSON.parse(out) as { end: { sum_received: { bits_per_second: number } } }).end.sum_received.bits_per_second;
}
