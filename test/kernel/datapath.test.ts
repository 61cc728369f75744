/**
 * Two hosts on the kernel's Open vSwitch, one network for each encapsulation that both can carry: what the lab suite shows of the
 * userspace datapath, and that it is the kernel that forwards.
 */
import { randomBytes } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cidrOf, formatIp, lastOf, parseIp } from '../../lib/ip.ts';
import { capture } from '../harness/capture.ts';
import { Boxes, datapathClean, type End, endOf, HOSTS, networkOf } from '../harness/kernel-box.ts';
import { clean, onOk, pings, sleeper, until, weftJson, weftOk } from '../harness/lab.ts';

/** What the underlay carries, as pcap-filter(7) says it. */
const OUTER: Readonly<Record<string, string>> = {
  vxlan: 'udp port 4789',
  geneve: 'udp port 6081',
  gre: 'ip proto 47',
};
const ENCAPS = await encapsOfBoth();

const boxes = new Boxes();
const inside = boxes.inside.bind(boxes);

beforeAll(() => boxes.start(ENCAPS));
afterAll(() => clean(HOSTS));

it('has an encapsulation to try', () => {
  expect(ENCAPS).toContain('vxlan');
});

describe.each(ENCAPS)('%s', (encap) => {
  let here: End;
  let there: End;

  beforeAll(async () => {
    here = await endOf('h1', 'box', networkOf(encap));
    there = await endOf('h2', 'box', networkOf(encap));
  });

  it('reaches the other host, in that encapsulation', async () => {
    const outer = capture('h2', 'eth0', OUTER[encap] ?? '');
    await outer.ready;
    expect(await pings('h1', 'box', there.ip, 5)).toBe(true);
    expect(await pings('h2', 'box', here.ip, 5)).toBe(true);
    await until('ten echoes and as many replies on the underlay', async () => outer.seen() >= 20);
    await outer.stop();
  });

  it('reaches it over IPv6, in the same tunnel', async () => {
    const ping = await inside('h1', 'ping', '-6', '-c', '3', '-i', '0.2', '-W', '5', there.ip6);
    expect(ping.stdout, ping.stderr).toContain(' 0% packet loss');
  });

  it('says who has an IPv6 address that is taken', async () => {
    const device = await boxes.deviceOf('h1', here.mac);
    await inside('h1', 'ip', '-6', 'address', 'add', `${there.ip6}/64`, 'dev', device);
    await until('duplicate address detection has failed', async () =>
      (await inside('h1', 'ip', '-6', 'address', 'show', 'dev', device)).stdout.includes('dadfailed'),
    );
    await inside('h1', 'ip', '-6', 'address', 'del', `${there.ip6}/64`, 'dev', device);
  });

  it('carries packets as long as the MTU, whole', async () => {
    const link = JSON.parse(await onOk('h1', 'ip', '-j', 'link', 'show', here.port)) as { mtu: number }[];
    const payload = (link[0]?.mtu ?? 0) - 28;
    const ping = ['ping', '-M', 'do', '-c', '3', '-i', '0.2', '-W', '2'];
    const fits = await inside('h1', ...ping, '-s', String(payload), there.ip);
    expect(fits.stdout).toContain(' 0% packet loss');
    const over = await inside('h1', ...ping, '-s', String(payload + 1), there.ip);
    expect(over.code).not.toBe(0);
  });

  it('carries a stream unharmed, forwarded by the kernel', async () => {
    const [sent, received] = [`/tmp/kt-${encap}-sent`, `/tmp/kt-${encap}-received`];
    await writeFile(sent, randomBytes(32 << 20));
    const before = await missedIn('h1');
    const listener = inside('h2', 'sh', '-c', `exec nc.openbsd -l -p 7000 >${received}`);
    await boxes.listening('h2', 7000);
    const sender = await inside('h1', 'sh', '-c', `exec nc.openbsd -N ${there.ip} 7000 <${sent}`);
    expect(sender).toMatchObject({ code: 0, stderr: '' });
    // Flows that are no longer used stay for ten seconds.
    const flows = await onOk('h1', 'ovs-appctl', '-t', '/run/openvswitch/ovs-vswitchd.ctl', 'dpctl/dump-flows', '-m');
    await listener;
    expect((await readFile(received)).equals(await readFile(sent))).toBe(true);
    const tunnelled = flows.split('\n').filter((flow) => flow.includes('set(tunnel(') && flow.includes(there.mac));
    const packets = tunnelled.map((flow) => Number(/packets:(\d+)/.exec(flow)?.[1] ?? 0));
    expect(Math.max(0, ...packets), flows).toBeGreaterThan(500);
    expect((await missedIn('h1')) - before).toBeLessThan(200);
    await Promise.all([sent, received].map((file) => rm(file)));
  });

  it('measures', async () => {
    const server = inside('h2', 'iperf3', '-s', '-1');
    await boxes.listening('h2', 5201);
    const run = await inside('h1', 'iperf3', '-J', '-t', '2', '-c', there.ip);
    await server;
    const gigabits = JSON.parse(run.stdout).end.sum_received.bits_per_second / 1e9;
    const ping = await inside('h1', 'ping', '-c', '100', '-i', '0.01', there.ip);
    console.log(`${encap}: TCP ${gigabits.toFixed(2)} Gb/s, ${ping.stdout.trim().split('\n').at(-1)}`);
    expect(gigabits).toBeGreaterThan(0.05);
  });

  it('carries broadcast to the other host', async () => {
    const seen = capture('h2', there.port, `ether src ${here.mac} and ether broadcast`);
    await seen.ready;
    const target = formatIp(lastOf(cidrOf(parseIp(here.ip), 20)));
    await inside('h1', 'ping', '-b', '-c', '2', '-i', '0.2', '-W', '1', target);
    await until('broadcast on h2', async () => seen.seen() > 0);
    await seen.stop();
  });

  it('drops what a container sends under an address that is not its own', async () => {
    const forged = here.ip.replace(/\d+$/, '250');
    const seen = capture('h2', there.port, `src host ${forged} or src host ${here.ip}`);
    await seen.ready;
    const device = await boxes.deviceOf('h1', here.mac);
    await inside('h1', 'ip', 'addr', 'add', `${forged}/20`, 'dev', device);
    await inside('h1', 'ping', '-c', '2', '-i', '0.2', '-W', '1', '-I', forged, there.ip);
    await inside('h1', 'ip', 'addr', 'del', `${forged}/20`, 'dev', device);
    // Frames keep their order: had the forged ones passed, they would be there before this one.
    expect((await inside('h1', 'ping', '-c', '1', there.ip)).code).toBe(0);
    await until('the honest frame', async () => seen.seen() > 0);
    expect(await seen.stop()).toBe(1);
  });
});

it('keeps networks apart, even for a known MAC', async () => {
  await weftOk('network', 'create', 'kt-other');
  await sleeper('h2', 'stranger', 'kt-other');
  const here = await endOf('h1', 'box', networkOf('vxlan'));
  const stranger = await endOf('h2', 'stranger', 'kt-other');
  const seen = capture('h2', stranger.port, `ether src ${here.mac}`);
  await seen.ready;
  const device = await boxes.deviceOf('h1', here.mac);
  await inside('h1', 'ip', 'route', 'replace', stranger.ip, 'dev', device);
  await inside('h1', 'ip', 'neigh', 'replace', stranger.ip, 'lladdr', stranger.mac, 'dev', device);
  const ping = await inside('h1', 'ping', '-c', '3', '-i', '0.2', '-W', '1', stranger.ip);
  expect(ping.stdout).toContain('3 packets transmitted, 0 received');
  expect(await seen.stop()).toBe(0);
});

it('carries multicast to who has joined, and to nobody else', async () => {
  const [first = ''] = ENCAPS;
  const here = await endOf('h1', 'box', networkOf(first));
  const there = await endOf('h2', 'box', networkOf(first));
  const listener = await boxes.join('h2', '239.7.7.7', 7007);
  const other = capture('h2', there.port, `src host ${here.ip} and dst host 239.8.8.8`);
  await other.ready;
  // The sender's host is told of the receiver: packets before that are not for it.
  await until('multicast on h2', async () => {
    await boxes.send('h1', '239.7.7.7', 7007, 3);
    return listener.got() > 0;
  });
  await boxes.send('h1', '239.8.8.8', 7007, 3);
  const before = listener.got();
  await boxes.send('h1', '239.7.7.7', 7007, 3);
  await until('the last three', async () => listener.got() === before + 3);
  await listener.leave();
  expect(await other.stop()).toBe(0);
});

it('is as it should be', () => datapathClean());

/** Encapsulations that every host says it can carry. */
async function encapsOfBoth(): Promise<string[]> {
  const of = async (host: string): Promise<string[]> =>
    (await weftJson<{ vteps: { encaps: string[] }[] }>('host', 'inspect', host)).vteps.flatMap((vtep) => vtep.encaps);
  const [one = [], two = []] = await Promise.all(HOSTS.map(of));
  return one.filter((encap) => two.includes(encap) && OUTER[encap] !== undefined);
}

/** Packets that the kernel had to ask ovs-vswitchd about. */
async function missedIn(host: string): Promise<number> {
  const shown = await onOk(host, 'ovs-dpctl', 'show');
  return Number(/missed:(\d+)/.exec(shown)?.[1] ?? Number.NaN);
}
