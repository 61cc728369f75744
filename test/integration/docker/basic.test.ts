import { afterAll, beforeAll, expect, test } from 'vitest';
import { TestHost } from '../../harness/docker-host.ts';
import { IMAGE } from '../../harness/dockerd.ts';
import { FakeWorld } from '../../harness/fake-mesh.ts';
import { until } from '../../harness/ovs.ts';

let host: TestHost;
const world = new FakeWorld();
const docker = (...args: string[]) => host.docker.docker(...args);

beforeAll(async () => {
  host = await TestHost.create(world.host('h1'));
});
afterAll(async () => {
  await host[Symbol.asyncDispose]();
});

test('docker network create: reserved, bound by its event, usable at once', async () => {
  const created = await docker('network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '--label', 'a=b', 'plain');
  expect(created).toMatchObject({ code: 0 });
  const ran = await docker('run', '--rm', '--network', 'plain', IMAGE, 'ip', '-4', 'addr', 'show', 'eth0');
  expect(ran.stderr).toBe('');
  expect(ran.stdout).toContain('inet 10.200.0.2/24');
  const network = [...world.networks.values()].find((n) => n.name === 'plain');
  expect(network).toMatchObject({ state: 'bound', labels: { a: 'b' }, subnets: ['10.200.0.0/24'] });
});

test('a network of the catalogue appears in Docker; containers on it reach each other', async () => {
  world.createNetwork('mesh1', '10.128.0.0/24', { labels: { team: 'x' } });
  await until('the copy', async () => (await docker('network', 'inspect', 'mesh1')).code === 0);
  const a = await docker('run', '-d', '--name', 'first', '--network', 'mesh1', IMAGE, 'sleep', '1000');
  expect(a).toMatchObject({ code: 0, stderr: '' });
  const pinged = await docker('run', '--rm', '--network', 'mesh1', IMAGE, 'ping', '-c', '1', '-W', '2', '10.128.0.2');
  expect(pinged.stdout + pinged.stderr).toContain('1 packets received');
  const given = await docker('run', '--rm', '--network', 'mesh1', '--ip', '10.128.0.200', IMAGE, 'ip', 'link');
  expect(given.stdout).toContain('02:58:0a:80:00:c8');
});
