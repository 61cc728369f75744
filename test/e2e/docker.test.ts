/** Docker as its users know it: networks made both ways, containers in them, everything that docker says when it refuses. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  conflicts,
  defaults,
  docker,
  endpoints,
  everywhere,
  HOSTS,
  links,
  meshNames,
  names,
  nowhere,
  refused,
  runs,
  shown,
  start,
} from '../harness/docker-view.ts';
import { addressOf, auditClean, clean, IMAGE, onOk, pings, until, weft, weftJson, weftOk } from '../harness/lab.ts';

afterAll(async () => {
  await clean(HOSTS);
  await auditClean();
});

describe('networks', () => {
  it('made with weft are on every host when the command returns, with their settings', async () => {
    const flags = [
      '--subnet',
      '10.61.0.0/24',
      '--gateway',
      '10.61.0.254',
      '--ip-range',
      '10.61.0.128/25',
      '--internal',
    ];
    const made = await weftJson('network', 'create', 'dk-weft', ...flags, '--label', 'team=a', '--label', 'bare');
    expect(made).toMatchObject({
      name: 'dk-weft',
      subnets: ['10.61.0.0/24'],
      gateways: ['10.61.0.254'],
      internal: true,
    });
    for (const host of HOSTS)
      expect(await shown(host, 'dk-weft')).toEqual({
        Name: 'dk-weft',
        Driver: 'weft',
        Internal: true,
        Options: {},
        Labels: { team: 'a', bare: '' },
        Config: [{ Subnet: '10.61.0.0/24', IPRange: '10.61.0.128/25', Gateway: '10.61.0.254' }],
      });
    // The next command on any host can use it: each time anew.
    for (const host of HOSTS) {
      await weftOk('network', 'create', `dk-now-${host}`);
      await docker(host, ...runs(`dk-now-${host}`));
      await weftOk('network', 'rm', `dk-now-${host}`);
      for (const other of HOSTS) expect(await names(other)).toEqual(['dk-weft']);
    }
    await weftOk('network', 'rm', 'dk-weft');
    for (const host of HOSTS) expect(await names(host)).toEqual([]);
  });

  it('made with docker on one host are on all, with the same settings', async () => {
    const addresses = ['--subnet', '10.62.0.0/24', '--gateway', '10.62.0.1', '--ip-range', '10.62.0.64/26'];
    const rest = ['--aux-address', 'printer=10.62.0.70', '--label', 'team=b', '-o', 'color=red', '--internal'];
    await docker('h2', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', ...addresses, ...rest, 'dk-docker');
    await everywhere('dk-docker');
    const made = await shown('h2', 'dk-docker');
    expect(made).toMatchObject({ Internal: true, Options: { color: 'red' }, Labels: { team: 'b' } });
    expect(made['Config']).toEqual([
      {
        Subnet: '10.62.0.0/24',
        IPRange: '10.62.0.64/26',
        Gateway: '10.62.0.1',
        AuxiliaryAddresses: { printer: '10.62.0.70' },
      },
    ]);
    expect(await shown('h1', 'dk-docker')).toEqual(made);
    expect(await shown('h3', 'dk-docker')).toEqual(made);
    expect(await weftJson('network', 'inspect', 'dk-docker')).toMatchObject({
      subnets: ['10.62.0.0/24'],
      ipRange: '10.62.0.64/26',
      gateways: ['10.62.0.1'],
      internal: true,
      labels: { team: 'b' },
    });
    await refused('h3', runs('dk-docker', '--ip', '10.62.0.70'), 125, /10\.62\.0\.70 is an auxiliary address/);
    await refused('h1', ['network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'dk-docker'], 1, /already exists/);
  });

  it('without a subnet get one from the pool, and are usable on the host at once', async () => {
    await docker('h3', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'dk-pool');
    await docker('h3', ...runs('dk-pool'));
    const [config] = (await shown('h3', 'dk-pool'))['Config'] as { Subnet: string }[];
    expect(config?.Subnet).toMatch(/^10\..*\/20$/);
    await everywhere('dk-pool');
    expect(await shown('h1', 'dk-pool')).toMatchObject({ Config: [{ Subnet: config?.Subnet }], Options: {} });
  });

  it('removed with docker on any host are gone everywhere, also made elsewhere', async () => {
    await docker('h1', 'network', 'rm', 'dk-pool', 'dk-docker');
    await nowhere('dk-pool');
    await nowhere('dk-docker');
    expect(await meshNames()).toEqual([]);
  });

  it('in use elsewhere come back when docker removes them; in use here docker refuses', async () => {
    await weftOk('network', 'create', 'dk-busy');
    const ip = await start('h1', 'dk-user', 'dk-busy').then((name) => addressOf('h1', name, 'dk-busy'));
    await start('h3', 'dk-peer', 'dk-busy');
    await endpoints('dk-busy', 'h1/dk-user', 'h3/dk-peer');
    await refused('h1', ['network', 'rm', 'dk-busy'], 1, /has active endpoints/);
    // Docker itself does not ask whether the driver agrees: it says "dk-busy", and the network is put back.
    await docker('h2', 'network', 'rm', 'dk-busy');
    await everywhere('dk-busy');
    await start('h2', 'dk-late', 'dk-busy');
    expect(await pings('h2', 'dk-late', ip)).toBe(true);
    expect(await pings('h3', 'dk-peer', ip)).toBe(true);
    const told = await until('the refusal is in status', async () =>
      (await conflicts()).find((c) => c.host === 'h2' && c.network === 'dk-busy'),
    );
    expect(told.message).toMatch(/network rm dk-busy was refused.*(dk-user on h1|dk-peer on h3)/);
    const r = await weft('network', 'rm', 'dk-busy');
    expect(r.code).toBe(1);
    expect(r.stderr).toMatch(/dk-user on h1/);
    for (const [host, name] of [
      ['h1', 'dk-user'],
      ['h2', 'dk-late'],
      ['h3', 'dk-peer'],
    ] as const)
      await docker(host, 'rm', '-f', name);
    await weftOk('network', 'rm', 'dk-busy');
    expect(await conflicts()).toEqual([]);
  });

  it('are refused with a sentence when they cannot be', async () => {
    const create = (...options: string[]): string[] => ['network', 'create', '-d', 'weft', ...options, 'dk-no'];
    const ours = ['--ipam-driver', 'weft'];
    await weftOk('network', 'create', 'dk-there', '--subnet', '10.63.0.0/24');
    await refused('h1', create(), 1, /takes its addresses from the mesh.*--ipam-driver weft/);
    await refused('h1', create('--subnet', '10.64.0.0/24'), 1, /--ipam-driver weft/);
    await refused('h1', create(...ours, '-o', 'weft.speed=9'), 1, /option "weft\.speed" is not available/);
    await refused('h1', create(...ours, '--ipam-opt', 'weft.speed=9'), 1, /option "weft\.speed" is not available/);
    await refused('h1', create(...ours, '-o', 'com.docker.network.mtu=9'), 1, /com\.docker\.network\.mtu/);
    await refused('h1', create(...ours, '--ipv6', '--subnet', 'fe80:1::/64'), 1, /link-local/);
    await refused(
      'h2',
      create(...ours, '--subnet', '10.63.0.128/25'),
      1,
      /overlaps 10\.63\.0\.0\/24 of network "dk-there"/,
    );
    await refused('h2', create(...ours, '--subnet', '224.1.0.0/24'), 1, /multicast/);
    await refused('h2', create(...ours, '--subnet', '10.65.0.0/24', '--subnet', '10.66.0.0/24'), 1, /one subnet/);
    await refused('h2', create(...ours, '--subnet', '10.65.0.0/24', '--gateway', '10.65.0.255'), 1, /broadcast/);
    const plan = ['--subnet', '10.65.0.0/24', '--gateway', '10.65.0.1'];
    await refused('h2', create(...ours, ...plan, '--aux-address', 'a=10.65.0.0'), 1, /auxiliary.*network address/);
    await refused('h2', create(...ours, ...plan, '--aux-address', 'a=10.65.0.1'), 1, /is the gateway/);
    await refused(
      'h2',
      create(...ours, '--subnet', '10.65.0.0/24', '--ip-range', '10.66.0.0/25'),
      1,
      /10\.66\.0\.0\/25/,
    );
    // Nothing half done: no network anywhere, and what was reserved is free again.
    for (const host of HOSTS) expect(await names(host)).toEqual(['dk-there']);
    for (const subnet of ['10.64.0.0/24', '10.65.0.0/24', '10.66.0.0/24'])
      await until(
        `${subnet} is free`,
        async () => (await weft('network', 'create', 'dk-free', '--subnet', subnet)).code === 0,
      ).then(() => weftOk('network', 'rm', 'dk-free'));
    await weftOk('network', 'rm', 'dk-there');
  });

  it('of another driver with the same name are left alone, and told', async () => {
    await docker('h2', 'network', 'create', '--label', 'mine=yes', 'dk-foreign');
    await start('h2', 'dk-own', 'dk-foreign');
    const before = await docker('h2', 'network', 'inspect', 'dk-foreign');
    await weftOk('network', 'create', 'dk-foreign');
    const told = await until('the conflict is in status', async () => (await conflicts())[0]);
    expect(told).toMatchObject({ host: 'h2', network: 'dk-foreign', message: expect.stringMatching(/driver bridge/) });
    expect(await docker('h2', 'network', 'inspect', 'dk-foreign')).toBe(before);
    await docker('h1', ...runs('dk-foreign'));
    await refused(
      'h2',
      ['network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'dk-foreign'],
      1,
      /already exists/,
    );
    await docker('h2', 'rm', '-f', 'dk-own');
    await docker('h2', 'network', 'rm', 'dk-foreign');
    await everywhere('dk-foreign');
    await until('the conflict is over', async () => (await conflicts()).length === 0);
    await weftOk('network', 'rm', 'dk-foreign');
  });
});

describe('containers', () => {
  beforeAll(async () => {
    await weftOk('network', 'create', 'dk-a', '--subnet', '10.71.0.0/24');
    await weftOk('network', 'create', 'dk-b', '--subnet', '10.72.0.0/24');
    await start('h2', 'dk-in-a', 'dk-a', '--ip', '10.71.0.20');
    await start('h3', 'dk-in-b', 'dk-b', '--ip', '10.72.0.30');
  });

  it('get the address that is asked for, or are told why not', async () => {
    const [endpoint] = await endpoints('dk-a', 'h2/dk-in-a');
    expect(endpoint).toMatchObject({ ips: ['10.71.0.20'], mac: '02:58:0a:47:00:14' });
    const ip = (address: string): string[] => runs('dk-a', '--ip', address);
    await refused('h1', ip('10.71.0.20'), 125, /10\.71\.0\.20 .*in use: container dk-in-a on host h2/);
    await refused('h2', ip('10.71.0.20'), 125, /10\.71\.0\.20 .*in use/);
    await refused('h1', ip('10.72.0.9'), 125, /10\.72\.0\.9/);
    await refused('h1', ip('10.71.0.0'), 125, /is the network address of network dk-a/);
    await refused('h1', ip('10.71.0.255'), 125, /is the broadcast address of network dk-a/);
    await refused('h1', ip('10.71.0.1'), 125, /is the gateway of network dk-a/);
    await docker('h1', ...ip('10.71.0.99'));
    await docker('h3', ...ip('10.71.0.99'));
  });

  it('get the MAC address that is asked for, or are told why not', async () => {
    await start('h1', 'dk-mac', 'dk-a', '--mac-address', '02:aa:00:00:00:01');
    expect(await docker('h1', 'exec', 'dk-mac', 'cat', '/sys/class/net/eth0/address')).toBe('02:aa:00:00:00:01');
    expect(await pings('h2', 'dk-in-a', await addressOf('h1', 'dk-mac', 'dk-a'))).toBe(true);
    const mac = (address: string): string[] => runs('dk-a', '--mac-address', address);
    await refused('h1', mac('02:aa:00:00:00:01'), 125, /MAC address 02:aa:00:00:00:01 .*in use by container dk-mac/);
    await refused(
      'h3',
      mac('02:aa:00:00:00:01'),
      125,
      /MAC address 02:aa:00:00:00:01 .*in use by container dk-mac on (host )?h1/,
    );
    await refused('h3', mac('03:aa:00:00:00:01'), 125, /multicast MAC address/);
    await refused('h3', mac('ff:ff:ff:ff:ff:ff'), 125, /multicast MAC address/);
    await refused('h3', mac('02:58:0a:47:00:14'), 125, /belongs to another address/);
    // In another network it is another's business.
    await docker('h3', ...runs('dk-b', '--mac-address', '02:aa:00:00:00:01'));
    await docker('h1', 'rm', '-f', 'dk-mac');
    await docker('h2', ...mac('02:aa:00:00:00:01'));
  });

  it('in two networks have one interface for each, and reach both', async () => {
    await start('h1', 'dk-two', 'dk-a');
    expect(await links('h1', 'dk-two')).toEqual(['eth0']);
    expect(await defaults('h1', 'dk-two')).toEqual(['eth0']);
    await docker('h1', 'network', 'connect', '--ip', '10.72.0.99', 'dk-b', 'dk-two');
    expect(await links('h1', 'dk-two')).toEqual(['eth0', 'eth1']);
    await endpoints('dk-b', 'h1/dk-two', 'h3/dk-in-b');
    expect(await addressOf('h1', 'dk-two', 'dk-b')).toBe('10.72.0.99');
    expect(await pings('h1', 'dk-two', '10.71.0.20')).toBe(true);
    expect(await pings('h1', 'dk-two', '10.72.0.30')).toBe(true);
    expect(await pings('h3', 'dk-in-b', '10.72.0.99')).toBe(true);
    await docker('h1', 'network', 'disconnect', 'dk-a', 'dk-two');
    expect(await links('h1', 'dk-two')).toEqual(['eth1']);
    expect(await defaults('h1', 'dk-two')).toEqual(['eth1']);
    await endpoints('dk-a', 'h2/dk-in-a');
    expect(await pings('h1', 'dk-two', '10.71.0.20')).toBe(false);
    expect(await pings('h1', 'dk-two', '10.72.0.30')).toBe(true);
    await docker('h1', 'rm', '-f', 'dk-two');
    await endpoints('dk-b', 'h3/dk-in-b');
  });

  it('with bridge beside go out by the bridge, also when the bridge was first', async () => {
    await start('h1', 'dk-out', 'dk-a');
    await docker('h1', 'network', 'connect', 'bridge', 'dk-out');
    expect(await defaults('h1', 'dk-out')).toEqual(['eth1']);
    await start('h1', 'dk-first', 'bridge');
    await docker('h1', 'network', 'connect', 'dk-a', 'dk-first');
    expect(await defaults('h1', 'dk-first')).toEqual(['eth0']);
    // Another machine of the underlay is the world outside: it knows nothing of containers, so Docker's NAT brings the answer.
    const lab = await weftJson<{ hosts: { name: string; underlay: { ip: string } }[] }>('lab', 'status');
    const outside = lab.hosts.find((host) => host.name === 'h2')?.underlay.ip ?? '';
    for (const name of ['dk-out', 'dk-first']) {
      expect(await pings('h1', name, '10.71.0.20')).toBe(true);
      expect(await pings('h1', name, outside)).toBe(true);
    }
    await docker('h1', 'rm', '-f', 'dk-out', 'dk-first');
  });

  it('with --network host or container:X have what Docker gives them', async () => {
    const net = (...options: string[]): Promise<string> =>
      docker('h2', 'run', '--rm', ...options, IMAGE, 'readlink', '/proc/self/ns/net');
    expect(await net('--network', 'host')).toBe(await onOk('h2', 'readlink', '/proc/self/ns/net'));
    expect(await net('--network', 'container:dk-in-a')).toBe(
      await docker('h2', 'exec', 'dk-in-a', 'readlink', '/proc/self/ns/net'),
    );
    const beside = ['run', '--rm', '--network', 'container:dk-in-a', IMAGE, 'ping', '-c', '1', '-W', '2'];
    await docker('h1', ...runs('dk-a', '--ip', '10.71.0.21'));
    await start('h1', 'dk-target', 'dk-a', '--ip', '10.71.0.21');
    await docker('h2', ...beside, '10.71.0.21');
    await docker('h1', 'rm', '-f', 'dk-target');
    await endpoints('dk-a', 'h2/dk-in-a');
  });

  it('keep working, and are followed, through restart, stop, start, rename and kill', async () => {
    const given = await start('h1', 'dk-life', 'dk-a', '--ip', '10.71.0.77');
    await start('h1', 'dk-auto', 'dk-a');
    const [first] = await endpoints('dk-a', 'h1/dk-auto', 'h1/dk-life', 'h2/dk-in-a');
    const reached = async (name: string): Promise<boolean> =>
      pings('h2', 'dk-in-a', await addressOf('h1', name, 'dk-a'));
    await docker('h1', 'restart', '-t', '0', given, 'dk-auto');
    const after = await endpoints('dk-a', 'h1/dk-auto', 'h1/dk-life', 'h2/dk-in-a');
    expect(after.map((e) => e.id)).not.toContain(first?.id);
    expect(after.find((e) => e.container?.name === 'dk-life')?.ips).toEqual(['10.71.0.77']);
    expect([await reached('dk-auto'), await reached('dk-life')]).toEqual([true, true]);

    await docker('h1', 'stop', '-t', '0', 'dk-life');
    await endpoints('dk-a', 'h1/dk-auto', 'h2/dk-in-a');
    await docker('h1', 'start', 'dk-life');
    await docker('h1', 'rename', 'dk-life', 'dk-second');
    await endpoints('dk-a', 'h1/dk-auto', 'h1/dk-second', 'h2/dk-in-a');
    expect(await reached('dk-second')).toBe(true);
    await docker('h1', 'pause', 'dk-second');
    await docker('h1', 'unpause', 'dk-second');
    expect(await reached('dk-second')).toBe(true);
    await docker('h1', 'kill', 'dk-second', 'dk-auto');
    await endpoints('dk-a', 'h2/dk-in-a');
    // Renamed while it is stopped: known by the new name when it starts.
    await docker('h1', 'rename', 'dk-second', 'dk-third');
    await docker('h1', 'start', 'dk-third');
    await endpoints('dk-a', 'h1/dk-third', 'h2/dk-in-a');
    expect(await reached('dk-third')).toBe(true);
    await docker('h1', 'rm', '-f', 'dk-third', 'dk-auto');
    await endpoints('dk-a', 'h2/dk-in-a');
  });
});
