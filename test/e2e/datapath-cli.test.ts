/** What the command line and docker say of the datapath: external peers, allowed addresses, encapsulations, sizes that get through. */
import { readFile, writeFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  conflicts,
  DOCKER,
  docker,
  endpoints,
  everywhere,
  fails,
  HOSTS,
  nowhere,
  refused,
  start,
} from '../harness/docker-view.ts';
import { auditClean, clean, on, onOk, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { labStatus } from '../harness/lab-direct.ts';

interface Net {
  readonly name: string;
  readonly vni: number | null;
  readonly encap: string;
  readonly mtu: number;
  readonly gateways: readonly string[];
  readonly uplink: string | null;
  readonly vlanTag: number | null;
  readonly allowTrust: boolean;
}
interface Path {
  readonly from: string;
  readonly to: string;
  readonly largest: number | null;
  readonly problem: string | null;
  readonly probedBy: string;
  readonly probedWhy: string | null;
}

const network = (name: string): Promise<Net> => weftJson<Net>('network', 'inspect', name);
const UPLINK = 'wt-up1';

beforeAll(async () => {
  await weftOk('network', 'create', 'dp-a', '--subnet', '10.95.0.0/24');
  await start('h1', 'dp-one', 'dp-a');
  await start('h2', 'dp-two', 'dp-a');
  await endpoints('dp-a', 'h1/dp-one', 'h2/dp-two');
});
afterAll(async () => {
  await clean(HOSTS);
  for (const host of HOSTS) await on(host, 'ip', 'link', 'del', UPLINK);
  await auditClean();
});

describe('external peers', () => {
  it('come, are shown, and go', async () => {
    const h2 = (await labStatus()).hosts.find((h) => h.name === 'h2')?.underlay.ip ?? '';
    const underlay = h2.replace(/\.\d+$/, '');
    const add = ['peer', 'add', 'router', '--network', 'dp-a', '--vtep', `${underlay}.200`];
    const macs = ['--mac', '02:00:00:00:00:01=10.95.0.200', '--mac', '02:00:00:00:00:02', '--key', '777'];
    const made = await weftJson(...add, ...macs);
    expect(made).toEqual({
      name: 'router',
      id: expect.stringMatching(/^[0-9a-f]{16}$/),
      network: 'dp-a',
      vtep: `${underlay}.200`,
      encap: 'vxlan',
      key: 777,
      udpPort: null,
      macs: [
        { mac: '02:00:00:00:00:01', ip: '10.95.0.200' },
        { mac: '02:00:00:00:00:02', ip: null },
      ],
      learn: false,
      createdAt: expect.any(String),
      revision: expect.stringMatching(/^\d+$/),
    });
    expect(await weftJson('peer', 'ls', '--network', 'dp-a')).toEqual([made]);
    expect(await weftJson('peer', 'inspect', 'router')).toEqual(made);
    await fails(1, 'ALREADY_EXISTS', ...add, '--learn');
    const [one] = await weftJson<{ mac: string }[]>('endpoint', 'ls', '--host', 'h1');
    const taken = ['--vtep', `${underlay}.201`, '--mac', one?.mac ?? ''];
    expect((await fails(1, 'ALREADY_EXISTS', 'peer', 'add', 'b', '--network', 'dp-a', ...taken)).message).toContain(
      'dp-one',
    );
    expect(
      (await fails(1, 'FAILED_PRECONDITION', 'peer', 'add', 'b', '--network', 'dp-a', '--vtep', h2, '--learn')).message,
    ).toMatch(/VTEP of host h\d|h2/);
    await fails(1, 'NOT_FOUND', 'peer', 'add', 'b', '--network', 'none', '--vtep', `${underlay}.9`, '--learn');
    // Nobody else gets its address.
    await refused(
      'h3',
      ['run', '--rm', '--network', 'dp-a', '--ip', '10.95.0.200', 'weft/lab:1', 'true'],
      125,
      /10\.95\.0\.200/,
    );
    expect(await weftOk('peer', 'rm', 'router', '--network', 'dp-a')).toBe('router\n');
    expect(await weftJson('peer', 'ls')).toEqual([]);
  });
});

describe('allowed addresses', () => {
  it('are set on a running endpoint, shared, refused where they are another’s, and go with it', async () => {
    const set = ['endpoint', 'set', 'h1/dp-one', '--allow-address', '10.95.0.100,00:00:5e:00:01:05'];
    const changed = await weftJson(...set, '--allow-address', '10.95.0.101');
    const allowed = [
      { ip: '10.95.0.100', mac: '00:00:5e:00:01:05' },
      { ip: '10.95.0.101', mac: null },
    ];
    expect(changed).toMatchObject({
      host: 'h1',
      container: { name: 'dp-one' },
      kind: 'container',
      trusted: false,
      allowed,
    });
    // Its host takes it off the express path before it applies the change, and says so a moment later.
    const inspected = await until('it is known to be off the express path', async () => {
      const seen = await weftJson<{ express: boolean }>('endpoint', 'inspect', 'h1/dp-one');
      return seen.express ? null : seen;
    });
    expect(inspected).toEqual({ ...changed, express: false });
    await weftOk('endpoint', 'set', 'dp-two', '--allow-address', '10.95.0.101');
    const two = await weftJson<{ ips: string[] }>('endpoint', 'inspect', 'h2/dp-two');
    const others = ['endpoint', 'set', 'dp-one', '--allow-address', two.ips[0] ?? ''];
    expect((await fails(1, 'FAILED_PRECONDITION', ...others)).message).toContain('dp-two on h2');
    await fails(1, 'INVALID_ARGUMENT', 'endpoint', 'set', 'dp-one', '--allow-address', '10.95.0');
    await fails(1, 'NOT_FOUND', 'endpoint', 'set', 'dp-none', '--allow-address', '10.95.0.99');
    await refused(
      'h3',
      ['run', '--rm', '--network', 'dp-a', '--ip', '10.95.0.101', 'weft/lab:1', 'true'],
      125,
      /10\.95\.0\.101/,
    );
    await weftOk('endpoint', 'set', 'dp-one', '--disallow-address', '10.95.0.100');
    expect(await weftJson('endpoint', 'inspect', 'dp-one')).toMatchObject({
      allowed: [{ ip: '10.95.0.101', mac: null }],
    });
    await docker('h1', 'rm', '-f', 'dp-one');
    await endpoints('dp-a', 'h2/dp-two');
    await start('h1', 'dp-one', 'dp-a');
    await endpoints('dp-a', 'h1/dp-one', 'h2/dp-two');
    expect(await weftJson('endpoint', 'inspect', 'dp-one')).toMatchObject({ allowed: [] });
  });
});

describe('how a network travels', () => {
  it('is refused where no connected host can carry it, with the reasons', async () => {
    const hosts = await weftJson<{ vteps: { encaps: string[] }[] }[]>('host', 'ls');
    for (const encap of ['geneve', 'gre']) {
      if (hosts.some((host) => host.vteps.some((vtep) => vtep.encaps.includes(encap)))) continue;
      const { message } = await fails(1, 'FAILED_PRECONDITION', 'network', 'create', 'dp-x', '--encap', encap);
      expect(message).toMatch(
        new RegExp(`^no connected host can carry ${encap}: h1 \\(.+\\), h2 \\(.+\\), h3 \\(.+\\)$`),
      );
      const create = ['network', 'create', '-d', 'weft', '--ipam-driver', 'weft', '-o', `weft.encap=${encap}`, 'dp-x'];
      await refused('h1', create, 1, new RegExp(`no connected host can carry ${encap}`));
    }
    await fails(1, 'INVALID_ARGUMENT', 'network', 'create', 'dp-x', '--encap', 'vlan');
    const vlan = ['network', 'create', 'dp-x', '--encap', 'vlan', '--tag', '7', '--uplink'];
    expect((await fails(1, 'FAILED_PRECONDITION', ...vlan, 'nosuch0')).message).toMatch(
      /vlan on nosuch0: h1 \(.*no uplink nosuch0/,
    );
    expect((await fails(1, 'FAILED_PRECONDITION', ...vlan, 'eth0')).message).toMatch(/h1 \(.*eth0 has the address/);
    await fails(1, 'INVALID_ARGUMENT', ...vlan, 'eth1', '--vni', '7');
    await nowhere('dp-x');
  });

  it('MTU: the underlay’s minus the overhead, or less', async () => {
    expect(await network('dp-a')).toMatchObject({
      encap: 'vxlan',
      mtu: 1450,
      uplink: null,
      vlanTag: null,
      allowTrust: false,
    });
    const large = await fails(1, 'FAILED_PRECONDITION', 'network', 'create', 'dp-x', '--mtu', '1451');
    expect(large.message).toMatch(/h\d has MTU 1500.* 1450/);
    const create = ['network', 'create', '-d', 'weft', '--ipam-driver', 'weft'];
    await docker(
      'h2',
      ...create,
      '-o',
      'com.docker.network.driver.mtu=1400',
      '-o',
      'weft.allow-trust=true',
      'dp-small',
    );
    await everywhere('dp-small');
    expect(await network('dp-small')).toMatchObject({ mtu: 1400, allowTrust: true });
    await refused('h2', [...create, '-o', 'weft.mtu=1451', 'dp-x'], 1, /MTU of 1451 is too large/);
    await refused('h2', [...create, '-o', 'weft.mtu=much', 'dp-x'], 1, /weft\.mtu takes a whole number/);
    await refused('h2', [...create, '-o', 'weft.speed=9', 'dp-x'], 1, /weft\.speed/);
    await start('h3', 'dp-small-one', 'dp-small');
    expect(await onOk('h3', DOCKER, 'exec', 'dp-small-one', 'cat', '/sys/class/net/eth0/mtu')).toBe('1400');
    await docker('h3', 'rm', '-f', 'dp-small-one');
    await weftOk('network', 'rm', 'dp-small');
  });

  it('vlan: uplink and tag are unique together; no VNI, no gateway; also by docker network create', async () => {
    for (const host of ['h1', 'h2']) {
      await onOk(host, 'ip', 'link', 'add', UPLINK, 'type', 'veth', 'peer', 'name', 'wt-up1p');
      await onOk(host, 'ip', 'link', 'set', UPLINK, 'mtu', '1600', 'up');
    }
    await until('the hosts have seen the uplink', async () => {
      const hosts = await weftJson<{ capabilities: string[] }[]>('host', 'ls');
      return hosts.filter((host) => host.capabilities.includes(`uplink/${UPLINK}`)).length === 2;
    });
    const flags = ['--encap', 'vlan', '--uplink', UPLINK, '--tag', '100'];
    await weftOk('network', 'create', 'dp-v', ...flags, '--subnet', '10.96.0.0/24');
    const made = await network('dp-v');
    expect(made).toMatchObject({ encap: 'vlan', vni: null, gateways: [], uplink: UPLINK, vlanTag: 100, mtu: 1600 });
    expect((await fails(1, 'ALREADY_EXISTS', 'network', 'create', 'dp-w', ...flags)).message).toContain('dp-v');
    await everywhere('dp-v');
    const options = ['-o', 'weft.encap=vlan', '-o', `weft.uplink=${UPLINK}`, '-o', 'weft.tag=101'];
    const create = ['network', 'create', '-d', 'weft', '--ipam-driver', 'weft'];
    await docker('h1', ...create, ...options, 'dp-d');
    await everywhere('dp-d');
    expect(await network('dp-d')).toMatchObject({ encap: 'vlan', vni: null, gateways: [], vlanTag: 101 });
    const pool = options.map((text) => (text === '-o' ? '--ipam-opt' : text));
    await refused('h2', [...create, ...pool, 'dp-e'], 1, /belongs to network "dp-d"/);
    for (const name of ['dp-v', 'dp-d']) await weftOk('network', 'rm', name);
    await nowhere('dp-d');
    for (const host of ['h1', 'h2']) await onOk(host, 'ip', 'link', 'del', UPLINK);
  });
});

describe('weft doctor mtu', () => {
  const paths = async (...more: string[]): Promise<{ code: number; paths: Path[]; advice: string[] }> => {
    const r = await weft('doctor', 'mtu', '--json', ...more);
    return { code: r.code, ...(JSON.parse(r.stdout) as { paths: Path[]; advice: string[] }) };
  };
  /** What h2 does with what comes to it. @param rule of nft */
  const hole = async (rule: string): Promise<void> => {
    await onOk('h2', 'nft', 'add', 'table', 'inet', 'wt-hole');
    await onOk('h2', 'nft', 'add chain inet wt-hole in { type filter hook input priority -10; }');
    await onOk('h2', 'nft', `add rule inet wt-hole in ${rule}`);
  };
  const wrong = (found: { paths: Path[] }): string[] =>
    found.paths.filter((path) => path.problem !== null).map(({ from, to, largest }) => `${from}→${to} ${largest}`);
  afterEach(async () => {
    await on('h3', 'ip', 'link', 'set', 'dev', 'eth0', 'mtu', '1500');
    await on('h2', 'nft', 'delete', 'table', 'inet', 'wt-hole');
  });

  it('all is well', async () => {
    const all = await paths();
    expect(all).toMatchObject({ code: 0, advice: [] });
    expect(all.paths).toHaveLength(6);
    for (const path of all.paths) expect(path).toMatchObject({ probedBy: 'vxlan', probedWhy: null });
    const mine = await paths('--network', 'dp-a');
    expect(mine.paths.map(({ from, to, largest }) => `${from}→${to} ${largest}`)).toEqual(['h1→h2 1500', 'h2→h1 1500']);
    await fails(1, 'NOT_FOUND', 'doctor', 'mtu', '--network', 'none');
  });

  it('an interface that carries less than its host announces', async () => {
    await onOk('h3', 'ip', 'link', 'set', 'dev', 'eth0', 'mtu', '1400');
    const found = await paths();
    expect(found.code).toBe(1);
    const of = (from: string, to: string) => found.paths.find((path) => path.from === from && path.to === to);
    expect(of('h1', 'h2')).toMatchObject({ largest: 1500, problem: null });
    expect(of('h3', 'h1')?.largest).toBe(1400);
    expect(of('h3', 'h1')?.problem).toMatch(/^underlay h3→h1 carries 1400, h3 announces 1500/);
    expect(of('h1', 'h3')?.problem).toMatch(/^underlay h1→h3 carries 14\d\d, h1 announces 1500/);
    expect(found.advice).toEqual([expect.stringMatching(/^set underlay\.mtu: 1400 in agent\.yaml of h3, .* MTU 1350/)]);
  });

  it('a black hole on the way is found to the byte, in the one direction that has it', async () => {
    await hole('ip length gt 1372 drop');
    const found = await paths();
    expect(found.code).toBe(1);
    expect(wrong(found)).toEqual(['h1→h2 1372', 'h3→h2 1372']);
    expect(found.paths[0]?.problem).toMatch(/h1→h2 carries 1372, h1 announces 1500, what is larger is lost/);
    expect(found.advice).toEqual([expect.stringMatching(/^set underlay\.mtu: 1372 in agent\.yaml of h2, /)]);
  });

  it('what a firewall does to the tunnel alone: all of it, or what is long, from one host', async () => {
    const h1 = (await labStatus()).hosts.find((h) => h.name === 'h1')?.underlay.ip ?? '';
    await hole(`ip saddr ${h1} udp dport 4789 drop`);
    const closed = await paths();
    expect(wrong(closed)).toEqual(['h1→h2 null']);
    expect(closed.advice).toEqual([expect.stringMatching(/^no VXLAN frame gets through h1→h2 /)]);
    await on('h2', 'nft', 'delete', 'table', 'inet', 'wt-hole');
    await hole(`ip saddr ${h1} udp dport 4789 ip length gt 1300 drop`);
    const narrow = await paths();
    expect(wrong(narrow)).toEqual(['h1→h2 1300']);
    expect(narrow.advice).toEqual([expect.stringMatching(/^set underlay\.mtu: 1300 in agent\.yaml of h1, /)]);
  });

  it('ICMP that is dropped is no matter', async () => {
    await hole('meta l4proto icmp drop');
    expect(await paths()).toMatchObject({ code: 0, advice: [] });
  });

  it('a host that is asked by echo is said to be, with the reason', async () => {
    const h3 = (await labStatus()).hosts.find((h) => h.name === 'h3');
    const file = `${h3?.stateDir}/agent.yaml`;
    const text = await readFile(file, 'utf8');
    await weftOk('lab', 'stop', 'h3', 'agent');
    await writeFile(file, `${text.trimEnd()}\nbackend: ovs-tunnel\n`);
    await weftOk('lab', 'start', 'h3', 'agent');
    try {
      await until('h3 is there', async () => (await paths()).paths.length === 6);
      const found = await paths();
      for (const path of found.paths)
        expect(path).toMatchObject(
          path.from === 'h3' || path.to === 'h3'
            ? { probedBy: 'icmp', probedWhy: expect.stringMatching(/^h3: .*not a VXLAN device/) }
            : { probedBy: 'vxlan', largest: 1500 },
        );
    } finally {
      await weftOk('lab', 'stop', 'h3', 'agent');
      await writeFile(file, text);
      await weftOk('lab', 'start', 'h3', 'agent');
      await weftOk('wait');
    }
  });
});

it('nothing of all this is a conflict', async () => {
  expect(await conflicts()).toEqual([]);
});
