import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { TestHost } from '../../harness/docker-host.ts';
import { IMAGE } from '../../harness/dockerd.ts';
import { FakeWorld } from '../../harness/fake-mesh.ts';
import { until } from '../../harness/ovs.ts';

let host: TestHost;
const world = new FakeWorld();
const network = world.createNetwork('net', '10.128.0.0/24');
const docker = (...args: string[]) => host.docker.docker(...args);
const run = (...args: string[]) => docker('run', '--rm', '--network', 'net', ...args);
const endpointOf = (name: string) => [...host.agent.journal.endpoints.values()].find((e) => e.container?.name === name);

beforeAll(async () => {
  host = await TestHost.create(world.host('h1'));
  await until('the copy', async () => (await docker('network', 'inspect', 'net')).code === 0);
});
afterEach(async () => {
  await host.docker.removeContainers();
  expect(host.agent.journal.endpoints.size).toBe(0);
  expect([...host.agent.journal.addresses.values()].filter((a) => a.state !== 'resting')).toEqual([]);
  expect(await host.agent.side.networksAudit()).toEqual([]);
});
afterAll(async () => {
  await host?.[Symbol.asyncDispose]();
});

test('one interface, the right MAC and MTU; containers reach each other', async () => {
  expect(await docker('run', '-d', '--name', 'first', '--network', 'net', IMAGE, 'sleep', '1000')).toMatchObject({
    code: 0,
  });
  const ip =
    (await docker('exec', 'first', 'ip', '-4', 'addr', 'show', 'eth0')).stdout.match(/inet ([\d.]+)/)?.[1] ?? '';
  const links = await run(IMAGE, 'ip', 'link');
  expect(links.stdout).toMatch(/eth0.*mtu 1450/);
  expect(links.stdout).toContain('02:58:0a:80:00:');
  expect(links.stdout).not.toContain('eth1');
  expect((await run(IMAGE, 'ping', '-c', '1', '-W', '2', ip)).stdout).toContain('1 packets received');
});

test('identity follows Join: name, labels, aliases; rename too', async () => {
  await docker(
    'run',
    '-d',
    '--name',
    'known',
    '--label',
    'app=web',
    '--network',
    'net',
    '--network-alias',
    'www',
    IMAGE,
    'sleep',
    '1000',
  );
  await until('identity', () => endpointOf('known')?.aliases.includes('www') === true);
  expect(endpointOf('known')).toMatchObject({ labels: { app: 'web' } });
  await docker('rename', 'known', 'renamed');
  await until('the new name', () => endpointOf('renamed') !== undefined);
});

test('--ip: taken as given; twice, outside, and reserved ones are refused with a sentence', async () => {
  expect((await run('--ip', '10.128.0.200', IMAGE, 'ip', 'link')).stdout).toContain('02:58:0a:80:00:c8');
  await docker('run', '-d', '--name', 'holder', '--network', 'net', '--ip', '10.128.0.200', IMAGE, 'sleep', '1000');
  await until('identity', () => endpointOf('holder') !== undefined);
  const again = await run('--ip', '10.128.0.200', IMAGE, 'true');
  expect(again.code).not.toBe(0);
  expect(again.stderr).toContain('container holder on host h1 has it');
  expect((await run('--ip', '10.128.0.1', IMAGE, 'true')).stderr).toContain('is the gateway');
  expect((await run('--ip', '10.128.0.255', IMAGE, 'true')).stderr).toContain('is the broadcast address');
});

test('a port that is published is the container’s, and nobody else’s until it is gone', async () => {
  await docker('run', '-d', '--name', 'open', '--network', 'net', '-p', '8080:80', IMAGE, 'sleep', '1000');
  expect(endpointOf('open')?.external?.ports).toEqual([
    { protocol: 'tcp', port: 80, hostIp: '0.0.0.0', hostPort: 8080 },
  ]);
  expect((await run('-p', '8080:80', IMAGE, 'true')).stderr).toContain('port 8080/tcp is taken on this host');
  await docker('rm', '-f', 'open');
  expect(await run('-p', '8080:80', IMAGE, 'true')).toMatchObject({ code: 0 });
});

test('multicast and foreign MAC addresses are refused', async () => {
  expect((await run('--mac-address', '03:00:00:00:00:01', IMAGE, 'true')).stderr).toContain('multicast');
  expect((await run('--mac-address', '02:58:0a:80:00:63', IMAGE, 'true')).stderr).toContain(
    'belongs to another address',
  );
  expect((await run('--mac-address', '02:aa:00:00:00:01', IMAGE, 'ip', 'link')).stdout).toContain('02:aa:00:00:00:01');
  await docker('run', '-d', '--mac-address', '02:aa:00:00:00:02', '--network', 'net', IMAGE, 'sleep', '1000');
  expect((await run('--mac-address', '02:aa:00:00:00:02', IMAGE, 'true')).stderr).toContain('is in use by container');
});

test('a drained host takes no new endpoints', async () => {
  host.mesh.draining = true;
  const refused = await run(IMAGE, 'true');
  host.mesh.draining = false;
  expect(refused.stderr).toContain('is being drained');
});

test('without a coordinator containers still start, from the own blocks', async () => {
  host.mesh.setConnected(false);
  const ran = await run(IMAGE, 'true');
  host.mesh.setConnected(true);
  expect(ran).toMatchObject({ code: 0 });
});

test('connect and disconnect on behalf of the mesh', async () => {
  world.createNetwork('second', '10.140.0.0/24');
  await until('the copy', async () => (await docker('network', 'inspect', 'second')).code === 0);
  const second = [...world.networks.values()].find((n) => n.name === 'second')!;
  await docker('run', '-d', '--name', 'mover', '--network', 'net', IMAGE, 'sleep', '1000');
  const { side } = host.agent;
  expect(await side.findContainer('mover')).toMatchObject([{ name: 'mover' }]);
  expect(await side.connect(second.id, 'mover', { ip: '10.140.0.9', ip6: '', mac: '' })).toEqual({
    ip: '10.140.0.9',
    ip6: '',
  });
  expect((await docker('exec', 'mover', 'ip', 'addr', 'show', 'eth1')).stdout).toContain('10.140.0.9/24');
  await side.disconnect(second.id, 'mover', false);
  await until('disconnected', () =>
    [...host.agent.journal.endpoints.values()].every((e) => e.networkId === network.id),
  );
  await expect(side.connect(second.id, 'nobody', { ip: '', ip6: '', mac: '' })).rejects.toMatchObject({
    code: 'NOT_FOUND',
  });
});

test('a MAC address given by connect is kept, and refused like that of docker run', async () => {
  world.createNetwork('macs', '10.141.0.0/24');
  await until('the copy', async () => (await docker('network', 'inspect', 'macs')).code === 0);
  const macs = [...world.networks.values()].find((n) => n.name === 'macs')!;
  const { side } = host.agent;
  const links = async () => (await docker('exec', 'owner', 'ip', 'link')).stdout;
  await docker('run', '-d', '--name', 'owner', '--network', 'net', IMAGE, 'sleep', '1000');
  await side.connect(macs.id, 'owner', { ip: '', ip6: '', mac: '02:AA:00:00:00:09' });
  expect(await links()).toContain('02:aa:00:00:00:09');
  await docker('restart', '-t', '0', 'owner');
  expect(await links()).toContain('02:aa:00:00:00:09');
  await until('identity', () => [...host.agent.journal.endpoints.values()].every((e) => e.container !== null));
  await docker('run', '-d', '--name', 'other', '--network', 'net', IMAGE, 'sleep', '1000');
  await expect(side.connect(macs.id, 'other', { ip: '', ip6: '', mac: '02:aa:00:00:00:09' })).rejects.toThrow(
    /in use by/,
  );
  await expect(side.connect(macs.id, 'other', { ip: '', ip6: '', mac: '03:aa:00:00:00:09' })).rejects.toThrow(
    /multicast/,
  );
  const opt = (option: string) => docker('network', 'connect', '--driver-opt', option, 'macs', 'other');
  expect((await opt('weft.speed=9')).stderr).toContain('option "weft.speed" is not available');
  expect(await opt('their.remark=9')).toMatchObject({ code: 0 });
});

test('a restarted agent keeps running containers, and finds what it missed', async () => {
  await docker('run', '-d', '--name', 'stays', '--network', 'net', IMAGE, 'sleep', '1000');
  await docker('run', '-d', '--name', 'lost', '--network', 'net', IMAGE, 'sleep', '1000');
  await until('identity', () => endpointOf('stays') !== undefined && endpointOf('lost') !== undefined);
  const lost = endpointOf('lost')!;
  const { journal } = host.agent;
  // An address of the host's own block that nobody has.
  const last = [14, 13, 12, 11].find((n) => !journal.addresses.has(`${network.id}/10.128.0.${n}`)) ?? 0;
  const mac = `02:58:0a:80:00:0${last.toString(16)}`;
  const stale = { ...endpointOf('stays')!, id: 'f'.repeat(64), ip: `10.128.0.${last}`, mac };
  await journal.write([
    { table: 'endpoint', key: stale.id, value: stale },
    {
      table: 'address',
      key: `${network.id}/${stale.ip}`,
      value: { networkId: network.id, ip: stale.ip, state: 'endpoint', since: 0, lentTo: null, claimed: false },
    },
    { table: 'endpoint', key: lost.id, value: null },
    { table: 'address', key: `${network.id}/${lost.ip}`, value: null },
  ]);
  await host.stopAgent();
  await host.startAgent();
  await until('the stale endpoint is gone', () => !host.agent.journal.endpoints.has(stale.id), 12_000);
  await until('the lost one is back', () => endpointOf('lost')?.ip === lost.ip, 12_000);
  expect(endpointOf('lost')).toMatchObject({ mac: lost.mac, sandbox: lost.sandbox });
  expect(host.agent.journal.addresses.get(`${network.id}/${stale.ip}`)?.state).toBe('resting');
  expect(host.agent.journal.addresses.get(`${network.id}/${lost.ip}`)?.state).toBe('endpoint');
  expect(endpointOf('stays')).toBeDefined();
  expect(host.agent.drift.map((d) => d.change).toSorted()).toEqual(['extra', 'missing']);
});

test('a lost journal is rebuilt from Docker and the last view', async () => {
  await docker('run', '-d', '--name', 'survivor', '--network', 'net', IMAGE, 'sleep', '1000');
  await until('identity', () => endpointOf('survivor') !== undefined);
  const before = endpointOf('survivor')!;
  const blocks = [...host.agent.journal.blocks.keys()];
  await host.stopAgent();
  await rm(join(host.docker.dir, 'journal'));
  await host.startAgent();
  expect(host.agent.journal.fresh).toBe(true);
  await host.agent.side.recover();
  expect([...host.agent.journal.blocks.keys()].toSorted()).toEqual(blocks.toSorted());
  await until('identity', () => endpointOf('survivor') !== undefined);
  expect(endpointOf('survivor')).toMatchObject({ id: before.id, ip: before.ip, mac: before.mac });
  expect(host.agent.journal.addresses.get(`${network.id}/${before.ip}`)).toMatchObject({
    state: 'endpoint',
    claimed: false,
  });
});

test('dockerd restarts: its endpoints end, and are made anew', async () => {
  await docker('run', '-d', '--name', 'always', '--restart', 'always', '--network', 'net', IMAGE, 'sleep', '1000');
  await until('identity', () => endpointOf('always') !== undefined);
  const before = endpointOf('always')!.id;
  await host.docker.stop('SIGKILL');
  await host.docker.start();
  await until('a new endpoint', () => (endpointOf('always')?.id ?? before) !== before, 20_000);
  await until('only one', () => host.agent.journal.endpoints.size === 1, 20_000);
});
