import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BpfModel } from '../../../agent/bpf/model.ts';
import { type Container, counting, inside } from '../../harness/bpf.ts';
import { NET, Pair, ping, STRANGER, VNI, v4, vtep } from '../../harness/bpf-pair.ts';
import { arp, ethernet, icmp6, ipv4, ipv6, sendRaw, sendVxlan, tagged } from '../../harness/frames.ts';

const BROADCAST = 'ff:ff:ff:ff:ff:ff';
const SOON = { timeout: 5_000, interval: 20 };

describe('two hosts', () => {
  let pair: Pair;
  beforeAll(async () => {
    pair = await Pair.start();
  });
  afterAll(async () => {
    await pair?.[Symbol.asyncDispose]();
  });

  it('a second look finds nothing to do', async () => {
    expect(await pair.a.apply(pair.modelA)).toBe(0);
    expect(await pair.b.apply(pair.modelB)).toBe(0);
  });

  it('ARP goes the slow way, as a copy to the other host; ping takes the express path', async () => {
    const { a, b, ca, cb, cc } = pair;
    const onA = await counting(a.driver);
    await ping(ca, cb.ip);
    // The question, to OVS, from there to the other container and by tunnel; the answer comes by tunnel through OVS.
    const question = { slow: 1, copies: 1, tunnel_to_ovs: 1, ovs_to_container: 2 };
    await expect.poll(onA, SOON).toEqual({ ...question, express_remote: 3, express_rx: 3 });
    const onB = await counting(b.driver);
    await ping(ca, cb.ip);
    await expect.poll(onB, SOON).toEqual({ express_remote: 3, express_rx: 3 });
    const local = await counting(a.driver);
    await ping(ca, cc.ip);
    await expect.poll(local, SOON).toMatchObject({ express_local: 6 });
  });

  it('packets longer than the MTU go in fragments, also by the express path', async () => {
    const seen = await counting(pair.a.driver);
    await ping(pair.ca, pair.cb.ip, '-s', '4000');
    await expect.poll(seen, SOON).toEqual({ express_remote: 9, express_rx: 9 });
  });

  it('an endpoint that is not flagged goes through OVS on both hosts, whatever the other thinks', async () => {
    const { a, b, ca, cb } = pair;
    const plain = (m: BpfModel, c: Container): BpfModel => ({
      ...m,
      ports: m.ports.map((p) => (p === c.port ? { ...p, express: false } : p)),
      fdb: m.fdb.map((e) => (e.mac === c.port.mac ? { ...e, express: false } : e)),
    });
    // Host a does not know yet that OVS must see the receiver's frames: what it sends by express arrives at OVS all the same.
    await b.apply(plain(pair.modelB, cb));
    let [onA, onB] = [await counting(a.driver), await counting(b.driver)];
    await ping(ca, cb.ip);
    await expect.poll(onA, SOON).toEqual({ express_remote: 3, express_rx: 3 });
    await expect.poll(onB, SOON).toEqual({ tunnel_to_ovs: 3, ovs_to_container: 3, slow: 3, ovs_to_tunnel: 3 });
    await b.apply(pair.modelB);
    await a.apply(plain(pair.modelA, ca));
    [onA, onB] = [await counting(a.driver), await counting(b.driver)];
    await ping(ca, cb.ip);
    await expect.poll(onA, SOON).toEqual({ slow: 3, ovs_to_tunnel: 3, tunnel_to_ovs: 3, ovs_to_container: 3 });
    await expect.poll(onB, SOON).toEqual({ express_remote: 3, express_rx: 3 });
    await pair.reset();
  });

  it('frames from a stranger, of an unknown VNI, or with a source that is not of that VTEP are dropped and counted', async () => {
    const { a, b, ca, cb, cc } = pair;
    const good = ethernet(ca.mac, cb.mac, 0x0800, ipv4(cb.ip, ca.ip));
    const cases: readonly [from: string, vni: number, frame: string, counted: Record<string, number>][] = [
      [b.vtep, VNI, good, { express_rx: 1 }],
      [STRANGER, VNI, good, { foreign_vtep: 1 }],
      [b.vtep, VNI + 1, good, { unknown_vni: 1 }],
      // A container of the receiving host, and nobody at all.
      [b.vtep, VNI, ethernet(ca.mac, cc.mac, 0x0800, ipv4(cc.ip, ca.ip)), { foreign_source: 1 }],
      [b.vtep, VNI, ethernet(ca.mac, '02:aa:00:00:00:01', 0x0800, ipv4(cb.ip, ca.ip)), { foreign_source: 1 }],
      // ICMPv6 without a byte of ICMPv6; shorter ones the kernel's VXLAN drops itself.
      [b.vtep, VNI, ethernet(ca.mac, cb.mac, 0x86dd, ipv6('fd::1', 'fd::2', 58, '')), { tunnel_short: 1 }],
      [b.vtep, VNI, ethernet(ca.mac, cb.mac, 0x86dd, ipv6('fd::1', 'fd::2', 58, icmp6(135))), { tunnel_to_ovs: 1 }],
      [b.vtep, VNI, tagged(good, 0x8100, 5), { tunnel_to_ovs: 1 }],
      [b.vtep, VNI, arp(BROADCAST, cb.mac, cb.ip, '10.128.0.99'), { tunnel_to_ovs: 1 }],
      // An address of this host's that nobody has.
      [b.vtep, VNI, ethernet('02:58:0a:80:00:33', cb.mac, 0x0800, ipv4(cb.ip, ca.ip)), { tunnel_to_ovs: 1 }],
    ];
    for (const [from, vni, frame, counted] of cases) {
      const seen = await counting(a.driver);
      await sendVxlan(b.netns, from, a.vtep, vni, [frame]);
      await expect.poll(seen, { ...SOON, message: `${from} ${vni} ${frame}` }).toMatchObject(counted);
    }
  });

  it('a spoofed source goes to OVS, which judges; an unknown destination is not flooded', async () => {
    const { a, ca, cb } = pair;
    const attempt = async (...args: string[]): Promise<void> => {
      await inside(ca.netns, 'ping', '-c', '1', '-W', '0.2', ...args).catch(() => '');
    };
    await inside(ca.netns, 'ip', 'addr', 'add', '10.128.0.9/32', 'dev', 'eth0');
    const spoofed = await counting(a.driver);
    await attempt('-I', '10.128.0.9', cb.ip);
    await expect.poll(spoofed, SOON).toMatchObject({ security: 1 });
    await inside(ca.netns, 'ip', 'addr', 'del', '10.128.0.9/32', 'dev', 'eth0');
    await inside(ca.netns, 'ip', 'neigh', 'add', '10.128.1.1', 'lladdr', '02:58:0a:80:01:01', 'dev', 'eth0');
    const nobody = await counting(a.driver);
    await attempt('10.128.1.1');
    await expect.poll(nobody, SOON).toMatchObject({ slow: 1, unknown_unicast: 1 });
  });

  it('copies go to every VTEP of the network, or where OVS says so to those of a group', async () => {
    const { a, b, ca } = pair;
    const others = (n: number) => Array.from({ length: n }, (_, i) => vtep(v4(`192.0.2.${100 + i}`)));
    await a.apply({
      ...pair.modelA,
      lists: [
        { id: NET, vteps: [vtep(v4(b.vtep)), ...others(40)] },
        { id: 5000, vteps: [vtep(v4(b.vtep)), ...others(2)] },
        { id: 5001, vteps: others(4) },
      ],
      groups: [
        { index: NET, mac: 0x01005e010203n, list: 5000 },
        { index: NET, mac: 0n, list: 5001 },
      ],
    });
    const send = (to: string) =>
      inside(ca.netns, 'ping', '-c', '1', '-b', '-W', '0.1', '-I', 'eth0', to).catch(() => '');
    const everybody = await counting(a.driver);
    await send('10.128.255.255');
    await expect.poll(everybody, SOON).toMatchObject({ copies: 41 });
    const [group, onB] = [await counting(a.driver), await counting(b.driver)];
    await send('224.1.2.3');
    await expect.poll(group, SOON).toMatchObject({ copies: 3 });
    await expect.poll(onB, SOON).toMatchObject({ tunnel_to_ovs: 1 });
    const nobodys = await counting(a.driver);
    await send('224.1.2.4');
    await expect.poll(nobodys, SOON).toMatchObject({ copies: 4 });
    // Not marked by OVS: to everybody.
    const link = await counting(a.driver);
    await send('224.0.0.251');
    await expect.poll(link, SOON).toMatchObject({ copies: 41 });
    await pair.reset();
  });

  it("tenants' own 802.1Q tags pass inside; frames too short for their headers are OVS's to judge", async () => {
    const { a, b, ca, cb } = pair;
    const eth0 = Number((await inside(ca.netns, 'ip', '-o', 'link', 'show', 'eth0')).split(':')[0]);
    const capture = inside(
      cb.netns,
      'timeout',
      '10',
      'tcpdump',
      '-l',
      '-nn',
      '-e',
      '-c',
      '1',
      '-i',
      'eth0',
      'vlan',
      '5',
    );
    const frame = ethernet(cb.mac, ca.mac, 0x0800, ipv4(ca.ip, cb.ip));
    const [onA, onB] = [await counting(a.driver), await counting(b.driver)];
    const arrived = capture.then(() => true);
    let seen = false;
    let sent = 0;
    // tcpdump does not say when it listens.
    while (!seen) {
      await sendRaw(ca.netns, eth0, [tagged(frame, 0x8100, 5)]);
      sent++;
      seen = await Promise.race([arrived, delay(100).then(() => false)]);
    }
    expect(await capture).toMatch(/vlan 5, p 0, ethertype IPv4/);
    await expect.poll(onA, SOON).toEqual({ slow: sent, ovs_to_tunnel: sent });
    await expect.poll(onB, SOON).toEqual({ tunnel_to_ovs: sent, ovs_to_container: sent });
    const short = await counting(a.driver);
    await sendRaw(ca.netns, eth0, [frame.slice(0, 40)]);
    await expect.poll(short, SOON).toMatchObject({ slow: 1 });
  });
});
