/** vlan networks: containers on a tagged wire that hosts of the mesh share with machines that are none of it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { arp } from '../harness/frames.ts';
import {
  auditClean,
  clean,
  docker,
  IMAGE,
  on,
  onOk,
  pings,
  sleeper,
  until,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { labStatus } from '../harness/lab-direct.ts';
import { PhysicalSwitch } from '../harness/physical.ts';
import { DATAGRAMS, segmentsThrough } from '../harness/segments.ts';
import { echoRequest, type Machine, taggedMachine } from '../harness/tap.ts';
import { type Box, boxOf } from '../harness/wire.ts';

const HOSTS = ['h1', 'h2', 'h3'];
const WIRED = ['h1', 'h2'];
const OUTSIDE = { mac: '06:00:00:00:07:0a', ip: '192.168.7.10' };
/** Of the other tag. */
const OTHER = { mac: '06:00:00:00:07:0b', ip: '192.168.9.10' };
const BROADCAST = 'ff:ff:ff:ff:ff:ff';

interface Shown {
  capabilities: string[];
  probes: { name: string; result: string; reason: string }[];
}
const bridgePorts = async (host: string): Promise<string[]> =>
  (await onOk(host, 'ovs-vsctl', 'list-ports', 'br-weft')).split('\n');
/** All that is set at the interface. */
const uplinkOf = async (host: string): Promise<unknown> => {
  const [link] = JSON.parse(await onOk(host, 'ip', '-d', '-j', 'address', 'show', 'up1')) as Record<string, unknown>[];
  const qdisc = await onOk(host, 'tc', 'qdisc', 'show', 'dev', 'up1');
  const features = await onOk(host, 'ethtool', '-k', 'up1');
  return { link, qdisc, features };
};

describe('vlan networks', () => {
  let physical: PhysicalSwitch;
  let outside: Machine;
  let other: Machine;
  const before = new Map<string, unknown>();
  const boxes = new Map<string, Box>();
  const box = (host: string): Box => boxes.get(host) as Box;

  beforeAll(async () => {
    physical = await PhysicalSwitch.open(await labStatus(), WIRED, 'up1');
    for (const name of ['t100', 't200']) await physical.tap(name);
    outside = await taggedMachine(physical.netns, 't100', OUTSIDE.mac, OUTSIDE.ip, 100);
    other = await taggedMachine(physical.netns, 't200', OTHER.mac, OTHER.ip, 200);
    for (const host of WIRED)
      await until(`${host} has seen its new interface`, async () =>
        (await weftJson<Shown>('host', 'inspect', host)).capabilities.includes('uplink/up1'),
      );
    for (const host of WIRED) before.set(host, await uplinkOf(host));
    const lan = ['--encap', 'vlan', '--uplink', 'up1'];
    const range = ['--subnet', '192.168.7.0/24', '--ip-range', '192.168.7.128/25', '--subnet', 'fd07::/64'];
    await weftOk('network', 'create', 'vl-100', ...lan, '--tag', '100', ...range);
    await weftOk('network', 'create', 'vl-200', ...lan, '--tag', '200', '--subnet', '192.168.9.0/24');
    for (const host of WIRED) {
      await sleeper(host, `vl-${host}`, 'vl-100');
      boxes.set(host, await boxOf(host, `vl-${host}`, 'vl-100'));
    }
    await sleeper('h1', 'vl-other', 'vl-200', '--ip', '192.168.9.250');
  });
  afterAll(async () => {
    await clean(HOSTS);
    await outside?.[Symbol.asyncDispose]();
    await other?.[Symbol.asyncDispose]();
    await physical?.[Symbol.asyncDispose]();
    await auditClean();
  });

  it('join containers of several hosts, IPv4 and IPv6', async () => {
    for (const [from, to] of [
      ['h1', 'h2'],
      ['h2', 'h1'],
    ] as const) {
      expect(await pings(from, `vl-${from}`, box(to).ip)).toBe(true);
      expect(await pings(from, `vl-${from}`, box(to).ip6)).toBe(true);
    }
    await auditClean();
  });

  it('carry full frames and bulk data', async () => {
    const { mtu } = await weftJson<{ mtu: number }>('network', 'inspect', 'vl-100');
    expect(mtu).toBe(1500);
    await onOk('h1', 'docker', 'exec', 'vl-h1', 'ping', '-c', '1', '-W', '2', '-s', '1472', box('h2').ip);
    await docker('h2', 'exec', '-d', 'vl-h2', 'iperf3', '-s', '-1');
    await until('iperf3 has sent', async () => {
      const r = await on('h1', 'docker', 'exec', 'vl-h1', 'iperf3', '-c', box('h2').ip, '-n', '20M', '-J');
      return r.code === 0;
    });
  });

  it('carry segments of UDP, IPv4 and IPv6', async () => {
    const [from, to] = [box('h1'), box('h2')];
    expect(await segmentsThrough(from, from.ip, to, to.ip)).toBe(DATAGRAMS);
    expect(await segmentsThrough(from, from.ip6, to, to.ip6)).toBe(DATAGRAMS);
  });

  it('join them with machines outside, both ways', async () => {
    for (const host of WIRED) expect(await pings(host, `vl-${host}`, OUTSIDE.ip)).toBe(true);
    for (const host of WIRED) {
      outside.send(echoRequest(OUTSIDE, box(host)));
      await until(`${host} replies`, async () => outside.said.includes(`reply ${box(host).ip}`));
    }
  });

  it('answer ARP for a container once, by its own host', async () => {
    for (const host of WIRED) outside.send(arp(BROADCAST, OUTSIDE.mac, OUTSIDE.ip, box(host).ip));
    const answers = () => outside.said.filter((line) => line.startsWith('arp '));
    await until('both are answered', async () => WIRED.every((h) => answers().some((l) => l.includes(box(h).ip))));
    // What is asked last is answered last: by then a second answer would be here.
    for (const host of WIRED) {
      const replies = outside.said.filter((line) => line === `reply ${box(host).ip}`).length;
      outside.send(echoRequest(OUTSIDE, box(host)));
      await until(
        `${host} replies`,
        async () => outside.said.filter((line) => line === `reply ${box(host).ip}`).length > replies,
      );
    }
    expect(answers().toSorted()).toEqual(WIRED.map((h) => `arp ${box(h).ip} ${box(h).mac}`).toSorted());
  });

  it('are apart from each other and from what has no tag', async () => {
    expect(await pings('h1', 'vl-other', OTHER.ip)).toBe(true);
    expect(other.said.filter((line) => line.startsWith('request '))).toEqual(['request 192.168.9.250']);
    expect(outside.said).not.toContain('request 192.168.9.250');
    for (const host of WIRED) expect(await pings('h1', 'vl-other', box(host).ip)).toBe(false);
    other.send(arp(BROADCAST, OTHER.mac, OTHER.ip, box('h1').ip), echoRequest(OTHER, box('h1')));
    other.send(arp(BROADCAST, OTHER.mac, OTHER.ip, '192.168.9.250'));
    await until('its own container answers', async () => other.said.some((l) => l.startsWith('arp 192.168.9.250 ')));
    expect(other.said.filter((line) => line.includes(box('h1').ip))).toEqual([]);
  });

  it('give addresses of the mesh, within the range, twice to nobody', async () => {
    const ips = WIRED.map((host) => Number(box(host).ip.split('.')[3]));
    for (const last of ips) expect(last).toBeGreaterThanOrEqual(128);
    expect(new Set(ips).size).toBe(2);
    const taken = await on('h2', 'docker', 'run', '--rm', '--network', 'vl-100', '--ip', box('h1').ip, IMAGE, 'true');
    expect(taken.code).not.toBe(0);
    expect(taken.stderr).toContain(box('h1').ip);
  });

  it('are refused by a host that does not have the interface', async () => {
    const r = await on('h3', 'docker', 'run', '--rm', '--network', 'vl-100', IMAGE, 'true');
    expect(r.code).not.toBe(0);
    expect(r.stderr).toContain('Host h3 cannot carry network vl-100: it has no interface up1');
    expect(await bridgePorts('h3')).not.toContain('up1');
  });

  it('do not take an interface that has an address', async () => {
    const probes = (await weftJson<Shown>('host', 'inspect', 'h1')).probes.filter((p) => p.name === 'uplink/eth0');
    expect(probes[0]?.reason).toMatch(/its interface eth0 has the address .*, and is left alone/);
    const r = await weft(
      'network',
      'create',
      'vl-eth0',
      '--encap',
      'vlan',
      '--uplink',
      'eth0',
      '--tag',
      '7',
      '--subnet',
      '192.168.8.0/24',
    );
    expect(r.code).toBe(1);
    expect(r.stderr).toMatch(/eth0/);
  });

  it('leave the interface as it was, when the last endpoint has left', async () => {
    for (const host of WIRED) expect(await bridgePorts(host)).toContain('up1');
    await docker('h1', 'rm', '-f', 'vl-h1');
    expect(await bridgePorts('h1')).toContain('up1');
    await docker('h1', 'rm', '-f', 'vl-other');
    await docker('h2', 'rm', '-f', 'vl-h2');
    for (const host of WIRED) {
      await until(`${host} has it back`, async () => !(await bridgePorts(host)).includes('up1'));
      await until('as it was', async () => {
        expect(await uplinkOf(host)).toEqual(before.get(host));
        return true;
      });
    }
    await auditClean();
  });
});
