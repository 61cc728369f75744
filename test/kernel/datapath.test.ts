/**
 * Two hosts on the kernel's Open vSwitch, one network for each encapsulation that both can carry: what the lab suite shows of the
 * userspace datapath, and that it is the kernel that forwards.
 */
import { randomBytes } from 'node:crypto';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cidrOf, formatIp, lastOf, parseIp } from '../../lib/ip.ts';
import { capture } from '../harness/capture.ts';
import {
  auditClean,
  clean,
  docker,
  on,
  onOk,
  pings,
  type Result,
  sleeper,
  until,
  weftJson,
  weftOk,
} from '../harness/lab.ts';

const HOSTS = ['h1', 'h2'] as const;
/** What the underlay carries, as pcap-filter(7) says it. */
const OUTER: Readonly<Record<string, string>> = {
  vxlan: 'udp port 4789',
  geneve: 'udp port 6081',
  gre: 'ip proto 47',
};
const ENCAPS = await encapsOfBoth();

/**
 * A program of the host in the network namespace of its container `box`: a `docker exec` takes a second here, and this a fifth.
 */
const sandbox: Record<string, string> = {};
const inside = (host: string, ...command: string[]): Promise<Result> =>
  on(host, 'nsenter', `--net=${sandbox[host]}`, ...command);

interface End {
  readonly ip: string;
  readonly mac: string;
  /** Its link on the host. */
  readonly port: string;
}

const networkOf = (encap: string): string => `kt-${encap}`;

/** An end of the container `box` of that host. */
async function endOf(host: string, box: string, network: string): Promise<End> {
  const format = `{{json (index .NetworkSettings.Networks "${network}")}}`;
  const end = JSON.parse(await docker(host, 'inspect', '-f', format, box)) as Record<string, string>;
  const { IPAddress: ip = '', MacAddress: mac = '', EndpointID: id = '' } = end;
  return { ip, mac, port: `wft${id.slice(0, 12)}` };
}

beforeAll(async () => {
  for (const encap of ENCAPS) await weftOk('network', 'create', networkOf(encap), '--encap', encap);
  const [first = '', ...more] = ENCAPS.map(networkOf);
  await Promise.all(
    HOSTS.map(async (host) => {
      await sleeper(host, 'box', first, '--cap-add', 'NET_ADMIN');
      for (const network of more) await docker(host, 'network', 'connect', network, 'box');
      sandbox[host] = await docker(host, 'inspect', '-f', '{{.NetworkSettings.SandboxKey}}', 'box');
    }),
  );
});
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
    await listening('h2', 7000);
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
    await listening('h2', 5201);
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
    const device = await deviceOf(here.mac);
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
  const device = await deviceOf(here.mac);
  await inside('h1', 'ip', 'route', 'replace', stranger.ip, 'dev', device);
  await inside('h1', 'ip', 'neigh', 'replace', stranger.ip, 'lladdr', stranger.mac, 'dev', device);
  const ping = await inside('h1', 'ping', '-c', '3', '-i', '0.2', '-W', '1', stranger.ip);
  expect(ping.stdout).toContain('3 packets transmitted, 0 received');
  expect(await seen.stop()).toBe(0);
});

it('is as it should be', () => auditClean());

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

/** Resolves when something in the host's box listens on that TCP port. */
const listening = (host: string, port: number): Promise<true> =>
  until(`port ${port} on ${host}`, async () => (await inside(host, 'ss', '-Hltn')).stdout.includes(`:${port} `));

/** Device in h1's box that has this MAC. */
async function deviceOf(mac: string): Promise<string> {
  const links = JSON.parse((await inside('h1', 'ip', '-j', 'link')).stdout) as { ifname: string; address: string }[];
  const link = links.find((one) => one.address === mac);
  if (link === undefined) throw new Error(`no link with ${mac}: ${JSON.stringify(links)}`);
  return link.ifname;
}
