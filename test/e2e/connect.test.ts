/** docker-compose with networks of the mesh, and containers connected to networks from anywhere with weft. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  docker,
  endpoints,
  everywhere,
  HOSTS,
  links,
  meshNames,
  nowhere,
  refused,
  shown,
  start,
} from '../harness/docker-view.ts';
import { addressOf, auditClean, clean, IMAGE, on, pings, type Result, weft, weftJson, weftOk } from '../harness/lab.ts';

afterAll(async () => {
  await clean(HOSTS);
  await auditClean();
});

describe('docker-compose', () => {
  const dir = mkdtempSync(join(tmpdir(), 'weft-compose-'));
  const file = join(dir, 'docker-compose.yml');
  const compose = (host: string, ...args: string[]): Promise<Result> =>
    on(host, '/usr/bin/docker-compose', '--no-ansi', '-f', file, '-p', 'cn', ...args);
  const composeOk = async (host: string, ...args: string[]): Promise<string> => {
    const r = await compose(host, ...args);
    expect({ args, code: r.code, stderr: r.stderr }).toMatchObject({ args, code: 0 });
    return r.stderr;
  };
  const running = async (host: string): Promise<string[]> =>
    (await docker(host, 'ps', '-q', '--no-trunc', '--filter', 'label=com.docker.compose.project=cn'))
      .split('\n')
      .toSorted();

  beforeAll(async () => {
    await weftOk('network', 'create', 'cn-outer', '--subnet', '10.81.0.0/24');
    const service = `image: ${IMAGE}\n    command: sleep 100000\n    stop_grace_period: 0s`;
    writeFileSync(
      file,
      `version: "3.4"
services:
  web:
    ${service}
    networks: [own, outer]
  db:
    ${service}
    networks:
      own:
        ipv4_address: 10.82.0.10
networks:
  own:
    driver: weft
    driver_opts: {color: blue}
    labels: {team: c}
    ipam: {driver: weft, config: [{subnet: 10.82.0.0/24}]}
  outer:
    external: true
    name: cn-outer
`,
    );
  });
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  it('makes its network on every host, uses one that is there, and finds both as it left them', async () => {
    await composeOk('h2', 'up', '-d');
    await everywhere('cn_own');
    const first = await running('h2');
    expect(first).toHaveLength(2);
    await endpoints('cn_own', 'h2/cn_web_1', 'h2/cn_db_1');
    await endpoints('cn-outer', 'h2/cn_web_1');
    // Docker shows no gateway where it was not given one; a copy is given the mesh's.
    expect(await shown('h2', 'cn_own')).toMatchObject({ Config: [{ Subnet: '10.82.0.0/24' }] });
    expect(await shown('h1', 'cn_own')).toEqual(await shown('h3', 'cn_own'));
    expect(await shown('h3', 'cn_own')).toMatchObject({
      Config: [{ Subnet: '10.82.0.0/24', Gateway: '10.82.0.1' }],
      Options: { color: 'blue' },
      Labels: { team: 'c', 'com.docker.compose.project': 'cn' },
    });
    expect(await composeOk('h2', 'up', '-d')).toMatch(/up-to-date/);
    expect(await running('h2')).toEqual(first);
    expect(await pings('h2', 'cn_web_1', '10.82.0.10')).toBe(true);
  });

  it('takes the network that the same file made on another host as its own', async () => {
    // The fixed address is taken: only web can run twice.
    await composeOk('h3', 'up', '-d', 'web');
    await endpoints('cn_own', 'h2/cn_web_1', 'h2/cn_db_1', 'h3/cn_web_1');
    expect(await pings('h3', 'cn_web_1', '10.82.0.10')).toBe(true);
    const r = await compose('h3', 'up', '-d', 'db');
    expect(r.code).toBe(1);
    expect(r.stderr).toMatch(/10\.82\.0\.10 .*in use: container cn_db_1 on host h2/);
  });

  it('removes its network once nobody is in it, and leaves the other', async () => {
    await composeOk('h3', 'down');
    // Docker on h3 did not ask; the containers of h2 stay connected, and the network stays.
    expect(await pings('h2', 'cn_web_1', '10.82.0.10')).toBe(true);
    await everywhere('cn_own');
    await composeOk('h2', 'down');
    await nowhere('cn_own');
    expect(await meshNames()).toEqual(['cn-outer']);
    await weftOk('network', 'rm', 'cn-outer');
  });
});

describe('weft network connect and disconnect', () => {
  beforeAll(async () => {
    await weftOk('network', 'create', 'cn-a', '--subnet', '10.83.0.0/24');
    await weftOk('network', 'create', 'cn-b', '--subnet', '10.84.0.0/24');
    await start('h1', 'cn-one', 'cn-a');
    await start('h2', 'cn-same', 'cn-a');
    await start('h3', 'cn-same', 'cn-a');
    await start('h3', 'cn-target', 'cn-b', '--ip', '10.84.0.30');
  });
  const said = async (...args: string[]): Promise<{ code: string; message: string; hint: string | null }> => {
    const r = await weft('network', ...args, '--json');
    expect({ args, code: r.code, stdout: r.stdout }).toEqual({ args, code: 1, stdout: '' });
    return (JSON.parse(r.stderr) as { error: { code: string; message: string; hint: string | null } }).error;
  };

  it('connect wherever the container runs, with an address when one is given', async () => {
    expect(await weftJson('network', 'connect', 'cn-b', 'cn-one', '--ip', '10.84.0.50')).toMatchObject({
      host: 'h1',
      ip: '10.84.0.50',
    });
    expect(await addressOf('h1', 'cn-one', 'cn-b')).toBe('10.84.0.50');
    expect(await links('h1', 'cn-one')).toEqual(['eth0', 'eth1']);
    expect(await pings('h1', 'cn-one', '10.84.0.30')).toBe(true);
    expect(await pings('h3', 'cn-target', '10.84.0.50')).toBe(true);
    expect((await said('connect', 'cn-b', 'cn-one')).message).toMatch(/already/);
    await weftOk('network', 'disconnect', 'cn-b', 'cn-one');
    expect(await links('h1', 'cn-one')).toEqual(['eth0']);
    await endpoints('cn-b', 'h3/cn-target');
    expect((await said('disconnect', 'cn-b', 'cn-one')).message).toMatch(/is not connected/);
  });

  it('give the MAC address that is asked for, which stays through a restart', async () => {
    const mac = '02:bb:00:00:00:07';
    await weftOk('network', 'connect', 'cn-b', 'h1/cn-one', '--mac', mac);
    const [endpoint] = (await endpoints('cn-b', 'h1/cn-one', 'h3/cn-target')).filter((e) => e.host === 'h1');
    expect(endpoint?.mac).toBe(mac);
    expect(await docker('h1', 'exec', 'cn-one', 'sh', '-c', 'cat /sys/class/net/eth*/address')).toContain(mac);
    expect(await pings('h3', 'cn-target', await addressOf('h1', 'cn-one', 'cn-b'))).toBe(true);
    expect((await said('connect', 'cn-b', 'h2/cn-same', '--mac', mac)).message).toMatch(/in use by container cn-one/);
    expect((await said('connect', 'cn-b', 'h2/cn-same', '--mac', '03:00:00:00:00:01')).message).toMatch(/multicast/);
    expect((await said('connect', 'cn-b', 'h2/cn-same', '--mac', 'nonsense')).code).toBe('INVALID_ARGUMENT');
    await docker('h1', 'restart', '-t', '0', 'cn-one');
    await endpoints('cn-b', 'h1/cn-one', 'h3/cn-target');
    const restarted = (await endpoints('cn-b', 'h1/cn-one', 'h3/cn-target')).find((e) => e.host === 'h1');
    expect(restarted?.mac).toBe(mac);
    await weftOk('network', 'disconnect', 'cn-b', 'h1/cn-one');
    await endpoints('cn-b', 'h3/cn-target');
  });

  it('list the containers that a name can mean, and take HOST/NAME, --host, or an id', async () => {
    const ambiguous = await said('connect', 'cn-b', 'cn-same');
    expect(ambiguous.message).toMatch(/h2\/cn-same.*h3\/cn-same/);
    expect(ambiguous.hint).toMatch(/HOST\/NAME/);
    await weftOk('network', 'connect', 'cn-b', 'h2/cn-same');
    await endpoints('cn-b', 'h2/cn-same', 'h3/cn-target');
    await weftOk('network', 'connect', 'cn-b', 'cn-same', '--host', 'h3');
    await endpoints('cn-b', 'h2/cn-same', 'h3/cn-same', 'h3/cn-target');
    await weftOk('network', 'disconnect', 'cn-b', 'cn-same', '--host', 'h2');
    const id = await docker('h3', 'inspect', '-f', '{{.Id}}', 'cn-same');
    await weftOk('network', 'disconnect', 'cn-b', id.slice(0, 12));
    await endpoints('cn-b', 'h3/cn-target');
  });

  it('say what is wrong, and change nothing', async () => {
    expect(await said('connect', 'cn-b', 'cn-nobody')).toMatchObject({ code: 'NOT_FOUND' });
    expect(await said('connect', 'cn-none', 'cn-one')).toMatchObject({ code: 'NOT_FOUND' });
    expect(await said('disconnect', 'cn-none', 'cn-one')).toMatchObject({ code: 'NOT_FOUND' });
    expect(await said('connect', 'cn-b', 'h9/cn-one')).toMatchObject({ code: 'NOT_FOUND' });
    expect(await said('connect', 'cn-b', 'h2/cn-one')).toMatchObject({ code: 'NOT_FOUND' });
    expect(await said('connect', 'cn-b', 'h1/cn-one', '--host', 'h2')).toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect((await said('connect', 'cn-b', 'cn-one', '--ip', '10.84.0.30')).message).toMatch(
      /in use: container cn-target/,
    );
    expect((await said('connect', 'cn-b', 'cn-one', '--ip', '10.99.0.1')).message).toMatch(/10\.99\.0\.1/);
    expect((await said('connect', 'cn-b', 'cn-one', '--ip', '10.84.0.1')).message).toMatch(/gateway/);
    expect((await said('connect', 'cn-b', 'cn-one', '--ip', '010.84.0.9')).code).toBe('INVALID_ARGUMENT');
    expect(await links('h1', 'cn-one')).toEqual(['eth0']);
    await endpoints('cn-b', 'h3/cn-target');
  });

  it('reach a container that is stopped: it has the network when it starts', async () => {
    // A new one: of a connection that was refused Docker itself remembers the address, and tries it at the next start.
    await start('h1', 'cn-stopped', 'cn-a');
    await docker('h1', 'stop', '-t', '0', 'cn-stopped');
    await weftOk('network', 'connect', 'cn-b', 'cn-stopped', '--ip', '10.84.0.60');
    await docker('h1', 'start', 'cn-stopped');
    await endpoints('cn-b', 'h1/cn-stopped', 'h3/cn-target');
    expect(await pings('h3', 'cn-target', '10.84.0.60')).toBe(true);
    await weftOk('network', 'disconnect', 'cn-b', 'cn-stopped', '--force');
    await endpoints('cn-b', 'h3/cn-target');
  });

  it('are refused by docker with options that the driver does not have', async () => {
    const connect = ['network', 'connect', '--driver-opt', 'weft.speed=9', 'cn-b', 'cn-one'];
    await refused('h1', connect, 1, /option "weft\.speed" is not available/);
    expect(await links('h1', 'cn-one')).toEqual(['eth0']);
  });
});
