/** weft attach in the agent: what is taken and refused, what is left behind (nothing), and what ends by itself. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { AddressBook } from '../../../agent/addresses.ts';
import { Attachments } from '../../../agent/attach/index.ts';
import { type Device, judgeDevice, parseDevice } from '../../../agent/attach/judge.ts';
import { isNamespaceGone, namespaceInode, successorOf } from '../../../agent/attach/namespaces.ts';
import type { Places } from '../../../agent/attach/places.ts';
import { AbsenceWatch, GRACE_MS } from '../../../agent/attach/watch.ts';
import type { LocalEndpoint } from '../../../agent/contract.ts';
import { desire } from '../../../agent/desired.ts';
import { decode, encodeSnapshot } from '../../../agent/journal-format.ts';
import { hostLink } from '../../../agent/link/names.ts';
import { parseLinks, parseNotice } from '../../../agent/link/steps.ts';
import { planLinks } from '../../../agent/plan/links.ts';
import { recordOf } from '../../../agent/session/registrar.ts';
import { EMPTY_VIEW } from '../../../agent/view.ts';
import { AttachRequest } from '../../../gen/weft/v1/agent.ts';
import { WeftError } from '../../../lib/errors.ts';
import { silentLog } from '../../../lib/log.ts';
import { FakeWorld } from '../../harness/fake-mesh.ts';
import { reserve } from '../../harness/fake-reservations.ts';
import { FakeClock, MemoryJournal } from '../../harness/memory-journal.ts';
import { EXPRESS_WIRING } from '../../harness/wiring.ts';

const INODE = namespaceInode('/proc/self/ns/net') ?? '';
const STANDING = { trusted: false, express: false };
const log = silentLog();
const stops: (() => void)[] = [];
afterEach(() => {
  for (const stop of stops.splice(0)) stop();
});

function hostWith(subnets: string[] = ['10.0.0.0/24']) {
  const world = new FakeWorld();
  const mesh = world.host('h1');
  const network = world.createNetwork('blue', subnets[0] ?? '', { subnets });
  const [journal, clock] = [new MemoryJournal(), new FakeClock()];
  const row = { networkId: network.id, dockerNetworkId: 'd', name: 'blue', index: 1, network };
  journal.rows.network.set(network.id, row);
  const addresses = new AddressBook({ journal, mesh, clock, log });
  mesh.book = addresses;
  addresses.start();
  stops.push(() => addresses.close());
  const given: string[] = [];
  const datapath = {
    fails: null as WeftError | null,
    carries: () => Promise.resolve(),
    attach: () => (datapath.fails === null ? Promise.resolve({ containerLink: '' }) : Promise.reject(datapath.fails)),
    detach: () => Promise.resolve(),
    kick: () => undefined,
  };
  const places: Places = {
    device: async (name) => ({ ...TAP, name }),
    namespace: async (path) => ({ path, inode: INODE, name: 'web' }),
    giveBack: async ({ link, mtu, up }) => void given.push(`${link} ${mtu} ${up}`),
  };
  const attachments = new Attachments({
    journal,
    mesh,
    datapath,
    settled: async () => '',
    addresses,
    waiter: { wait: () => Promise.resolve() },
    places,
    clock,
    log,
  });
  const attach = (fields: Partial<AttachRequest>) =>
    attachments.attach(AttachRequest.fromPartial({ network: 'blue', ...fields }));
  const used = () => [...journal.addresses.values()].filter((a) => a.state !== 'resting').map((a) => a.ip);
  return { mesh, journal, clock, attachments, attach, datapath, given, used, network };
}

const TAP: Device = { name: 'tap0', kind: 'tun', linkType: 'ether', mtu: 1500, up: false, master: null, addresses: [] };
const codeOf = (promise: Promise<unknown>) => promise.then(String, (error: unknown) => WeftError.from(error).code);

describe('attach', () => {
  it('a tap: journalled, registered, named after its device; detached as it was', async () => {
    const h = hostWith();
    const { endpoint } = await h.attach({ interface: 'tap0', labels: { role: 'db' } });
    expect(h.journal.endpoints.get(endpoint.id)).toEqual(endpoint);
    expect(endpoint).toMatchObject({
      ip: '10.0.0.2',
      prefix: 24,
      ip6: '',
      mac: '02:58:0a:00:00:02',
      givenMac: false,
      mtu: 1450,
      dockerNetworkId: null,
      sandbox: null,
      attached: { kind: 'tap', name: 'tap0', link: 'tap0', mtu: 1500, up: false },
    });
    expect(h.mesh.calls).toContain(`registered ${endpoint.id}`);
    expect(recordOf(endpoint, 'h', 3, STANDING)).toMatchObject({
      kind: 'tap',
      state: 'known',
      container: undefined,
      aliases: ['tap0'],
      labels: { role: 'db' },
    });
    await h.attachments.detach('tap0');
    expect([h.journal.endpoints.size, h.used(), h.given]).toEqual([0, [], ['tap0 1500 false']]);
  });

  it('a reserved address, with its MAC', async () => {
    const h = hostWith();
    const mac = '02:aa:00:00:00:09';
    await reserve(h.mesh.world, h.network.id, 'vm', '10.0.0.9', mac);
    expect(await codeOf(h.attach({ interface: 'tap0', mac }))).toBe('ALREADY_EXISTS');
    const { endpoint } = await h.attach({ interface: 'tap0', ip: '10.0.0.9' });
    expect(endpoint).toMatchObject({ ip: '10.0.0.9', mac, givenMac: true });
  });

  it('a namespace: a link of ours in it, addresses of both families', async () => {
    const h = hostWith(['10.0.0.0/24', 'fd00:7::/64']);
    const { endpoint } = await h.attach({
      netns: '/run/netns/web',
      name: 'db',
      interfaceName: 'eth7',
      ip6: 'fd00:7::9',
    });
    expect(endpoint).toMatchObject({ ip: '10.0.0.2', ip6: 'fd00:7::9', prefix6: 64, interfaceName: 'eth7' });
    expect(endpoint).toMatchObject({
      sandbox: '/run/netns/web',
      attached: { kind: 'netns', name: 'db', inode: INODE },
    });
    await h.attachments.detach(endpoint.id.slice(0, 6));
    expect([h.journal.endpoints.size, h.used(), h.given]).toEqual([0, [], []]);
  });

  it('leaves nothing behind when it does not come to its end', async () => {
    const h = hostWith();
    h.datapath.fails = new WeftError('UNAVAILABLE', 'Open vSwitch did not take tap0');
    expect(await codeOf(h.attach({ interface: 'tap0' }))).toBe('UNAVAILABLE');
    h.datapath.fails = null;
    h.mesh.registered = () => Promise.reject(new WeftError('ALREADY_EXISTS', 'another host has that MAC'));
    expect(await codeOf(h.attach({ interface: 'tap0', mac: '02:00:00:00:00:01' }))).toBe('ALREADY_EXISTS');
    expect(await codeOf(h.attach({ netns: '/x', mac: 'zz' }))).toBe('INVALID_ARGUMENT');
    expect([h.journal.endpoints.size, h.used(), h.given.length]).toEqual([0, [], 2]);
  });

  it('goes on when the mesh is only late', async () => {
    const h = hostWith();
    h.mesh.registered = () => Promise.reject(new WeftError('UNAVAILABLE', 'the session ended'));
    await h.attach({ interface: 'tap0' });
    expect(h.journal.endpoints.size).toBe(1);
  });

  it('refuses what is taken, and what makes no sense', async () => {
    const h = hostWith();
    await h.attach({ interface: 'tap0', ip: '10.0.0.9' });
    const refused: [Partial<AttachRequest>, string][] = [
      [{ interface: 'tap0' }, 'ALREADY_EXISTS'],
      [{ interface: 'tap1', name: 'tap0' }, 'ALREADY_EXISTS'],
      [{ interface: 'tap1', ip: '10.0.0.9' }, 'ALREADY_EXISTS'],
      [{ interface: 'tap1', ip: '10.9.0.9' }, 'INVALID_ARGUMENT'],
      [{ interface: 'tap1', ip6: 'fd00::1' }, 'INVALID_ARGUMENT'],
      [{ interface: 'tap1', labels: { a: 'b\u001b[2J' } }, 'INVALID_ARGUMENT'],
      [{ interface: 'tap1', labels: { 'a\n': 'b' } }, 'INVALID_ARGUMENT'],
      [{ interface: 'tap1', mac: '02:58:00:00:00:01' }, 'INVALID_ARGUMENT'],
      [{ interface: 'tap1', name: 'a b' }, 'INVALID_ARGUMENT'],
      [{ interface: 'tap1', interfaceName: 'eth0' }, 'INVALID_ARGUMENT'],
      [{ interface: 'tap1', netns: '/x' }, 'INVALID_ARGUMENT'],
      [{}, 'INVALID_ARGUMENT'],
      [{ interface: 'tap1', network: 'green' }, 'NOT_FOUND'],
    ];
    for (const [fields, code] of refused) expect([fields, await codeOf(h.attach(fields))]).toEqual([fields, code]);
    h.mesh.draining = true;
    expect(await codeOf(h.attach({ interface: 'tap1' }))).toBe('FAILED_PRECONDITION');
    expect([h.journal.endpoints.size, h.used()]).toEqual([1, ['10.0.0.9']]);
  });

  it('an address of the other family is not taken for one, and says where it goes', async () => {
    const h = hostWith(['10.0.0.0/24', 'fd00:7::/64']);
    await expect(h.attach({ interface: 'tap0', ip6: '10.0.0.99' })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      message: '--ip6 takes an IPv6 address, and 10.0.0.99 is IPv4',
      hint: 'give it with --ip',
    });
    await expect(h.attach({ interface: 'tap0', ip: 'fd00:7::9' })).rejects.toMatchObject({
      hint: 'give it with --ip6',
    });
    expect(h.used()).toEqual([]);
  });

  it('what is very long is not said again in full', async () => {
    const h = hostWith();
    const long = 'x'.repeat(100_000);
    for (const fields of [{ network: long }, { name: long }])
      await expect(h.attach({ interface: 'tap0', ...fields })).rejects.toMatchObject({
        message: expect.stringMatching(/^.{1,200}$/),
      });
    await expect(h.attachments.detach(long)).rejects.toMatchObject({ message: expect.stringMatching(/^.{1,200}$/) });
  });

  it('a MAC that another endpoint may send from is not given, nor one whose link-local address is', async () => {
    const h = hostWith();
    const allowed = [
      { ip: '', mac: '00:00:5e:00:01:07' },
      { ip: 'fe80::21:22ff:fe23:2425', mac: '' },
    ];
    h.mesh.world.allow(h.network.id, 'e'.repeat(64), allowed);
    for (const mac of ['00:00:5e:00:01:07', '02:21:22:23:24:25'])
      await expect(h.attach({ interface: 'tap0', mac })).rejects.toMatchObject({
        code: 'ALREADY_EXISTS',
        message: expect.stringContaining('is one that endpoint eeeeeeeeeeee may send from'),
      });
    expect(h.used()).toEqual([]);
  });

  it('detach: not a container, not two of one name', async () => {
    const h = hostWith();
    const { endpoint } = await h.attach({ interface: 'tap0' });
    const { attached: _, ...plain } = endpoint;
    h.journal.rows.endpoint.set('c1', { ...plain, id: 'c1', container: { id: 'x', name: 'web' } });
    h.journal.rows.endpoint.set('e2', { ...endpoint, id: 'e2', networkId: 'other' });
    expect(await codeOf(h.attachments.detach('web'))).toBe('FAILED_PRECONDITION');
    expect(await codeOf(h.attachments.detach('tap0'))).toBe('FAILED_PRECONDITION');
    expect(await codeOf(h.attachments.detach('nope'))).toBe('NOT_FOUND');
  });
});

describe('devices', () => {
  const around = { defaultRoute: false, bridge: null };
  const judged =
    (d: Partial<Device>, a: Partial<typeof around> | { bridge: string } = {}) =>
    () =>
      judgeDevice({ ...TAP, ...d }, { ...around, ...a });

  it('taps, ends of pairs and macvtaps are taken', () => {
    for (const kind of ['tun', 'veth', 'macvtap']) expect(judged({ kind })).not.toThrow();
  });

  it('what is the host’s own is not', () => {
    expect(judged({ kind: null })).toThrow(/physical/);
    expect(judged({ kind: 'bridge' })).toThrow(/bridge device/);
    expect(judged({ linkType: 'none' })).toThrow(/IP packets/);
    expect(judged({ addresses: ['192.0.2.1/24'] })).toThrow(/192\.0\.2\.1/);
    expect(judged({ master: 'virbr0' })).toThrow(/virbr0/);
    expect(judged({}, { defaultRoute: true })).toThrow(/default route/);
    expect(judged({}, { bridge: 'br-ex' })).toThrow(/br-ex/);
    expect(judged({ name: 'wft0123456789ab' })).toThrow(/Weft's own/);
    expect(judged({ name: 'br-weft' }, { bridge: 'br-weft' })).toThrow(/Open vSwitch's own/);
  });

  it('are read from what ip prints; addresses of link scope are nobody’s', () => {
    const json = JSON.stringify([
      {},
      {
        ifname: 'tap0',
        flags: ['UP'],
        mtu: 1400,
        link_type: 'ether',
        linkinfo: { info_kind: 'tun' },
        addr_info: [
          { local: 'fe80::1', prefixlen: 64, scope: 'link' },
          { local: '192.0.2.1', prefixlen: 24, scope: 'global' },
        ],
      },
    ]);
    expect(parseDevice(json)).toEqual({ ...TAP, mtu: 1400, up: true, addresses: ['192.0.2.1/24'] });
    expect(parseDevice('')).toBe(null);
  });
});

const ID = 'abcdef0123456789'.repeat(4);
const tap: LocalEndpoint = {
  id: ID,
  networkId: 'n1',
  dockerNetworkId: null,
  ip: '10.0.0.2',
  prefix: 24,
  ip6: '',
  prefix6: 0,
  mac: '02:58:0a:00:00:02',
  givenMac: false,
  mtu: 1450,
  createdAt: '2026-01-01T00:00:00Z',
  sandbox: null,
  container: null,
  labels: {},
  aliases: ['tap0'],
  interfaceName: null,
  attached: { kind: 'tap', name: 'tap0', link: 'tap0', mtu: 1500, up: false },
};
const netns: LocalEndpoint = {
  ...tap,
  sandbox: '/proc/self/ns/net',
  interfaceName: 'weft0',
  attached: { kind: 'netns', name: 'web', inode: INODE },
};

describe('plan', () => {
  const wiring = { ...EXPRESS_WIRING, encaps: [] };
  const desired = (e: LocalEndpoint, gone = false) => {
    const journal = { endpoints: new Map([[e.id, e]]), networks: new Map() };
    return desire(EMPTY_VIEW, journal, { bridge: 'br-weft', hostId: 'h', wiring, gone: () => gone });
  };
  const links = (d: ReturnType<typeof desired>) => d.links.filter((l) => !l.name.startsWith('weft-'));

  it('a tap is the port, and the only link: set, but neither made nor removed', () => {
    const want = links(desired(tap));
    expect(want).toEqual([{ kind: 'device', name: 'tap0', mtu: 1450 }]);
    expect(desired(tap).bridge.ports.map((p) => p.name)).toContain('tap0');
    expect(planLinks(want, new Map())).toEqual([]);
    const link = { name: 'tap0', mtu: 1500, up: false, ifindex: 7 };
    expect(planLinks(want, new Map([['tap0', link]])).map((p) => p.step)).toEqual([
      { kind: 'setLink', name: 'tap0', peer: null, mtu: 1450 },
    ]);
    expect(planLinks([], new Map([['tap0', link]]))).toEqual([]);
    expect(desired(tap).wanted().get('link tap0')).toBe('mtu 1450 up');
  });

  it('nothing is made in a namespace that is gone', () => {
    expect(links(desired(netns)).map((l) => l.name)).toContain(hostLink(ID));
    expect(links(desired(netns, true))).toEqual([]);
  });

  it('devices of the user’s are read and heard of when they concern us', () => {
    const concerns = (name: string) => name === 'tap0';
    const json = JSON.stringify([{ ifname: 'tap0', ifindex: 7, mtu: 1450, flags: [] }]);
    expect(parseLinks(json).size).toBe(0);
    expect(parseLinks(json, concerns).size).toBe(1);
    const line = '7: tap0: <BROADCAST,UP> mtu 1450 qdisc noop';
    expect([parseNotice(line), parseNotice(line, concerns)?.link?.up]).toEqual([null, true]);
  });
});

it('journal: attached endpoints are kept; rows of before there were any are read', () => {
  const rows = decode(
    encodeSnapshot({ endpoint: new Map([[ID, tap]]), address: new Map(), block: new Map(), network: new Map() }),
  );
  expect(rows.rows.endpoint.get(ID)).toEqual(tap);
  const { attached: _, ip6: _6, prefix6: _p, ...old } = tap;
  const text = `{"weft":"journal","version":1}\n${JSON.stringify([['endpoint', ID, old]])}\n`;
  const read = decode(text).rows.endpoint.get(ID);
  expect([read?.attached, read?.ip6]).toEqual([undefined, '']);
  expect(read && recordOf(read, 'h', 0, STANDING)).toMatchObject({ kind: 'container', state: 'pending' });
});

describe('what is gone', () => {
  it('a namespace: nothing at its path, a plain file, another one of a process', async () => {
    expect(isNamespaceGone(netns)).toBe(false);
    expect(isNamespaceGone({ ...netns, sandbox: '/nonexistent' })).toBe(true);
    expect(isNamespaceGone(tap)).toBe(false);
    const other: LocalEndpoint = { ...netns, attached: { kind: 'netns', name: 'web', inode: '1' } };
    expect([isNamespaceGone(other), successorOf(other)]).toEqual([true, null]);
    const dir = await mkdtemp(join(tmpdir(), 'weft-ns-'));
    await writeFile(join(dir, 'x'), '');
    expect(namespaceInode(join(dir, 'x'))).toBe(null);
    await rm(dir, { recursive: true });
  });

  it('is detached after a grace, in sync only; what comes back stays', async () => {
    const { journal, clock, mesh } = hostWith();
    const endpoint = { ...tap, networkId: [...mesh.view().networks.keys()][0] ?? '' };
    journal.rows.endpoint.set(ID, endpoint);
    const left: string[] = [];
    let there: boolean | null = false;
    const sync = { inSync: true, view: () => mesh.view() };
    const watch = new AbsenceWatch({
      journal,
      mesh: sync,
      hasLink: () => there,
      detach: async (e) => void left.push(e.id),
      kick: () => undefined,
      clock,
      log,
    });
    const later = (ms: number): string[] => {
      clock.advance(ms);
      watch.look();
      return left;
    };
    expect(later(0)).toEqual([]);
    there = true;
    expect(later(GRACE_MS)).toEqual([]);
    there = null;
    expect(later(GRACE_MS)).toEqual([]);
    there = false;
    later(0);
    sync.inSync = false;
    expect(later(GRACE_MS)).toEqual([]);
    sync.inSync = true;
    expect(later(1_000)).toEqual([ID]);
  });
});
