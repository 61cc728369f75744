/** weft attach and weft detach: a namespace, a tap with something like a virtual machine behind it, the end of a veth pair. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { driftEvents, settled } from '../harness/drift.ts';
import { arp } from '../harness/frames.ts';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  on,
  onOk,
  pings,
  sleeper,
  until,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { echoRequest, type Machine, machine } from '../harness/tap.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NET = 'attached';
const WEFT = new URL('../../bin/weft', import.meta.url).pathname;
const MANY = 30_000;

interface Endpoint {
  readonly id: string;
  readonly network: string;
  readonly host: string;
  readonly name: string;
  readonly container: object | null;
  readonly ips: readonly [string];
  readonly mac: string;
  readonly ofport: number;
  readonly kind: string;
  readonly express: boolean;
}

const ip = (...args: string[]): Promise<string> => onOk('h1', 'ip', ...args);
const attach = async (...args: string[]): Promise<Endpoint> =>
  JSON.parse(await onOk('h1', WEFT, 'attach', NET, ...args, '--json')) as Endpoint;
const detach = (name: string): Promise<string> => onOk('h1', WEFT, 'detach', name);
const endpoints = (): Promise<Endpoint[]> => weftJson<Endpoint[]>('endpoint', 'ls', '--network', NET);

/** Fails, and says so. */
async function refused(args: readonly string[]): Promise<string> {
  const r = await on('h1', WEFT, 'attach', ...args);
  expect([args, r.code]).toEqual([args, 1]);
  return r.stderr;
}

/** A ping from a namespace of h1. */
const pingsFrom = async (netns: string, to: string): Promise<boolean> =>
  (await on('h1', 'ip', 'netns', 'exec', netns, 'ping', '-c', '1', '-W', '1', to)).code === 0;

/** Echo requests that a container has seen. */
async function requestsSeen(host: string, container: string): Promise<number> {
  const [names = '', values = ''] = (await docker(host, 'exec', container, 'grep', '^Icmp:', '/proc/net/snmp')).split(
    '\n',
  );
  return Number(values.split(' ')[names.split(' ').indexOf('InEchos')]);
}

const seen = {} as { web: Endpoint; vm: Endpoint; end: Endpoint; tap: Machine };
const other = { ip: '', mac: '' };

async function allReach(): Promise<void> {
  for (const { ips } of [seen.web, seen.vm, seen.end])
    await until(`the container reaches ${ips[0]}`, () => pings('h2', 'attach-c2', ips[0]));
  await until('the namespace reaches the container', () => pingsFrom('attach-web', other.ip));
  await until('the end of the pair reaches the container', () => pingsFrom('attach-vm', other.ip));
  await until('the machine reaches the container', async () => {
    seen.tap.send(echoRequest({ mac: seen.vm.mac, ip: seen.vm.ips[0] }, other));
    return seen.tap.said.includes(`reply ${other.ip}`);
  });
  await until('the three reach each other', async () => {
    const all = await Promise.all([
      pingsFrom('attach-web', seen.end.ips[0]),
      pingsFrom('attach-web', seen.vm.ips[0]),
      pingsFrom('attach-vm', seen.web.ips[0]),
    ]);
    return all.every((ok) => ok);
  });
}

beforeAll(async () => {
  await weftOk('network', 'create', NET);
  await sleeper('h2', 'attach-c2', NET);
  other.ip = await addressOf('h2', 'attach-c2', NET);
  await ip('netns', 'add', 'attach-web');
  await ip('netns', 'add', 'attach-vm');
  await ip('tuntap', 'add', 'dev', 'attach-tap', 'mode', 'tap');
  await ip('link', 'add', 'attach-end', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', 'attach-vm');
});
afterAll(async () => {
  await seen.tap?.[Symbol.asyncDispose]();
  for (const { name } of await endpoints().then((all) => all.filter((e) => e.container === null))) await detach(name);
  for (const netns of ['attach-web', 'attach-vm', 'attach-brief']) await on('h1', 'ip', 'netns', 'del', netns);
  for (const link of ['attach-tap', 'attach-end', 'attach-gone']) await on('h1', 'ip', 'link', 'del', link);
  await clean(HOSTS);
});

describe('attached', () => {
  it('a namespace gets a link, with MAC as given, address, MTU and nothing else', async () => {
    seen.web = await attach('--netns', 'attach-web', '--mac', '02:00:00:00:00:09', '--label', 'role=web');
    expect(seen.web).toMatchObject({ network: NET, host: 'h1', name: 'attach-web', container: null, kind: 'netns' });
    const [link] = JSON.parse(await ip('-n', 'attach-web', '-j', 'addr', 'show', 'weft0')) as [
      { address: string; mtu: number; operstate: string; addr_info: { local: string }[] },
    ];
    const { mtu } = await weftJson<{ mtu: number }>('network', 'inspect', NET);
    expect(link).toMatchObject({ address: seen.web.mac, mtu, operstate: 'UP' });
    expect(link.addr_info[0]).toMatchObject({ local: seen.web.ips[0] });
    expect(await ip('-n', 'attach-web', 'route', 'show', 'default')).toBe('');
  });

  it('a tap becomes the port; its owner is told MAC and address', async () => {
    seen.vm = await attach('--interface', 'attach-tap', '--name', 'attach-machine');
    expect(seen.vm).toMatchObject({ name: 'attach-machine', container: null, kind: 'tap', express: false });
    seen.tap = await machine('h1', 'attach-tap', seen.vm.mac, seen.vm.ips[0]);
    expect(await onOk('h1', 'ovs-vsctl', 'port-to-br', 'attach-tap')).toBe('br-weft');
  });

  it('the end of a veth pair likewise, with an address as given', async () => {
    const given = seen.vm.ips[0].replace(/\d+$/, '9');
    seen.end = await attach('--interface', 'attach-end', '--ip', given);
    expect(seen.end).toMatchObject({ name: 'attach-end', ips: [given], kind: 'tap' });
    await ip('-n', 'attach-vm', 'link', 'set', 'eth0', 'address', seen.end.mac, 'mtu', '1400', 'up');
    await ip('-n', 'attach-vm', 'addr', 'add', `${given}/16`, 'dev', 'eth0');
  });

  it('reach a container of another host, and each other', async () => {
    other.mac = (await endpoints()).find((e) => e.host === 'h2')?.mac ?? '';
    await allReach();
    await auditClean();
  });

  it('are found by name, and keep their network', async () => {
    const shown = await weftJson<Endpoint>('endpoint', 'inspect', 'attach-machine');
    expect(shown).toEqual((await endpoints()).find((e) => e.id === seen.vm.id));
    expect(await weftOk('endpoint', 'ls')).toMatch(/ attached +h1 +attach-machine +/);
    const r = await weft('network', 'rm', NET);
    expect(r).toMatchObject({ code: 1, stderr: expect.stringMatching(/attach-machine on h1.*weft detach/s) });
  });

  it('cannot send as another one', async () => {
    const before = await requestsSeen('h2', 'attach-c2');
    const wrongIp = { mac: seen.vm.mac, ip: seen.web.ips[0] };
    const wrongMac = { mac: seen.web.mac, ip: seen.vm.ips[0] };
    const wrongArp = arp('ff:ff:ff:ff:ff:ff', seen.vm.mac, seen.web.ips[0], other.ip);
    seen.tap.send(echoRequest(wrongIp, other), echoRequest(wrongMac, other), wrongArp);
    await ip('-n', 'attach-web', 'addr', 'add', `${seen.vm.ips[0]}/32`, 'dev', 'weft0');
    await ip('-n', 'attach-web', 'neigh', 'replace', other.ip, 'lladdr', other.mac, 'dev', 'weft0');
    const spoof = ['ping', '-c', '2', '-i', '0.2', '-W', '1', '-I', seen.vm.ips[0], other.ip];
    expect((await on('h1', 'ip', 'netns', 'exec', 'attach-web', ...spoof)).code).not.toBe(0);
    await ip('-n', 'attach-web', 'addr', 'del', `${seen.vm.ips[0]}/32`, 'dev', 'weft0');
    await ip('-n', 'attach-web', 'neigh', 'del', other.ip, 'dev', 'weft0');
    // An honest one, after them: what comes before it has come.
    const honest = seen.tap.said.length;
    seen.tap.send(echoRequest({ mac: seen.vm.mac, ip: seen.vm.ips[0] }, other));
    await until('the honest request is answered', async () => seen.tap.said.length > honest);
    expect(await requestsSeen('h2', 'attach-c2')).toBe(before + 1);
    await auditClean();
  });
});

describe('outlive', () => {
  it.each(['stop', 'kill'])('the agent: %s and start', async (how) => {
    const before = await endpoints();
    await weftOk('lab', how, 'h1', 'agent');
    await allReach();
    await weftOk('lab', 'start', 'h1', 'agent');
    await settled(HOSTS);
    await allReach();
    expect(await endpoints()).toEqual(before);
    await auditClean();
  });

  it('Open vSwitch', async () => {
    await weftOk('lab', 'kill', 'h1', 'ovs');
    await weftOk('lab', 'start', 'h1', 'ovs');
    await allReach();
    await until('clean', async () => (await weft('audit', '--no-heal')).code === 0);
    await auditClean();
  });

  it('what is taken away by hand comes back, and is told', async () => {
    const since = Date.now();
    await ip('-n', 'attach-web', 'link', 'del', 'weft0');
    await onOk('h1', 'ovs-vsctl', 'del-port', 'br-weft', 'attach-tap');
    await ip('link', 'set', 'attach-end', 'mtu', '1300');
    await allReach();
    await until('the drift has been told', async () => {
      const told = (await driftEvents(since)).filter((e) => e.healedAt !== null).map((e) => `${e.kind} ${e.object}`);
      const link = `link wft${seen.web.id.slice(0, 12)}`;
      return [link, 'port attach-tap', 'link attach-end'].every((one) => told.includes(one));
    });
    await auditClean();
  });

  it('a namespace that is made again at once', async () => {
    await ip('netns', 'del', 'attach-web');
    await ip('netns', 'add', 'attach-web');
    await until(
      'its link is there again',
      async () => (await on('h1', 'ip', '-n', 'attach-web', 'link', 'show', 'weft0')).code === 0,
    );
    await allReach();
    await until('clean', async () => (await weft('audit', '--no-heal')).code === 0);
  });
});

describe('refused', () => {
  it('what cannot be, with what to do', async () => {
    const before = await ip('-j', 'addr', 'show', 'eth0');
    expect(await refused([NET, '--interface', 'eth0'])).toMatch(/eth0 has address .*hint: /s);
    expect(await refused([NET, '--interface', 'lo'])).toContain('loopback');
    expect(await refused([NET, '--interface', 'br-weft'])).toContain("Open vSwitch's own");
    expect(await refused([NET, '--interface', 'docker0'])).toContain('bridge');
    expect(await refused([NET, '--interface', 'nope'])).toMatch(/no interface nope.*ip tuntap/s);
    expect(await refused([NET, '--interface', 'attach-tap'])).toMatch(/attached already.*weft detach/s);
    expect(await refused([NET, '--netns', 'nope'])).toMatch(/no network namespace at \/run\/netns\/nope/);
    expect(await refused([NET, '--netns', '/proc/self/ns/net'])).toContain("host's own");
    expect(await refused([NET, '--netns', 'attach-web'])).toContain('--ifname');
    expect(await refused([NET, '--netns', 'attach-vm', '--name', 'attach-machine'])).toContain('--name');
    expect(await refused([NET, '--netns', 'attach-vm', '--ip', other.ip])).toMatch(/in use: container attach-c2 on h/);
    expect(await refused([NET, '--netns', 'attach-vm', '--mac', seen.web.mac])).toContain('in use by attach-web');
    expect(await refused(['nowhere', '--netns', 'attach-vm'])).toContain('no network nowhere');
    expect((await on('h1', WEFT, 'detach', 'nope')).code).toBe(1);
    expect(await ip('-j', 'addr', 'show', 'eth0')).toBe(before);
    expect((await endpoints()).length).toBe(4);
    await auditClean();
  });

  it('on a host that is being drained', async () => {
    await weftOk('host', 'drain', 'h1');
    try {
      expect(await refused([NET, '--netns', 'attach-vm'])).toContain('being drained');
    } finally {
      await weftOk('host', 'undrain', 'h1');
    }
    await allReach();
  });
});

describe('ended', () => {
  it('by weft detach: the link goes, the device is as it was, the address is free', async () => {
    await detach('attach-web');
    await detach(seen.vm.id.slice(0, 8));
    await detach('attach-end');
    expect((await on('h1', 'ip', '-n', 'attach-web', 'link', 'show', 'weft0')).code).not.toBe(0);
    const devices = JSON.parse(await ip('-j', 'link', 'show')) as { ifname: string; mtu: number; flags: string[] }[];
    for (const name of ['attach-tap', 'attach-end']) {
      const device = devices.find((d) => d.ifname === name);
      expect(device).toMatchObject({ mtu: 1500 });
      expect(device?.flags).not.toContain('UP');
    }
    expect(await onOk('h1', 'ovs-vsctl', 'list-ports', 'br-weft')).not.toMatch(/attach|wft/);
    await until('the mesh has let them go', async () => (await endpoints()).length === 1);
    await weftOk('wait', '--timeout', '30'); // h2 has heard of it too
    await sleeper('h2', 'attach-heir', NET, '--ip', seen.end.ips[0]);
    expect(await pings('h2', 'attach-heir', other.ip)).toBe(true);
    await auditClean();
  });

  it('by themselves, when namespace or device are gone for good; addresses do not leak', async () => {
    await ip('netns', 'add', 'attach-brief');
    await ip('tuntap', 'add', 'dev', 'attach-gone', 'mode', 'tap');
    await attach('--netns', 'attach-brief');
    const { ips } = await attach('--interface', 'attach-gone');
    await ip('netns', 'del', 'attach-brief');
    await ip('link', 'del', 'attach-gone');
    await auditClean();
    await until('both are detached', async () => (await endpoints()).every((e) => e.container !== null), MANY);
    await sleeper('h1', 'attach-heir-2', NET, '--ip', ips[0]);
    await auditClean();
  });
});
