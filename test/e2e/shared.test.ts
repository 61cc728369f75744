/**
 * Addresses that move and MACs that nobody registered: a virtual address kept by keepalived over real multicast VRRP between hosts, and
 * a trusted appliance that is found where it sends from.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  on,
  onOk,
  pings,
  run,
  sleeper,
  until,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const WEFT = new URL('../../bin/weft', import.meta.url).pathname;
const VIP = '10.62.0.250';

const sandboxOf = (host: string, name: string): Promise<string> =>
  docker(host, 'inspect', '-f', '{{.NetworkSettings.SandboxKey}}', name);
const inside = async (host: string, name: string, ...command: string[]): Promise<string> =>
  onOk(host, 'nsenter', `--net=${await sandboxOf(host, name)}`, ...command);

afterAll(async () => {
  await clean(HOSTS);
  await auditClean();
});

describe('a virtual address kept by keepalived', () => {
  let dir: string;
  const daemons = new Map<string, ChildProcess>();

  /** The host's keepalived in the container's namespace; in the foreground, with files of its own. */
  async function keepalived(host: string, name: string, priority: number): Promise<void> {
    const config = `${dir}/${name}.conf`;
    await writeFile(
      config,
      `vrrp_instance test {
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority ${priority}
  advert_int 0.5
  virtual_ipaddress { ${VIP}/24 }
}
`,
    );
    const pids = [`--pid=${dir}/${name}.pid`, `--vrrp_pid=${dir}/${name}.vrrp`, `--checkers_pid=${dir}/${name}.check`];
    const enter = ['lab', 'exec', host, 'nsenter', `--net=${await sandboxOf(host, name)}`];
    // Without resolvers: it asks them for the machine's own name, and from there nobody answers.
    const alone = ['unshare', '-m', 'sh', '-c', 'mount --bind /dev/null /etc/resolv.conf && exec "$@"', 'sh'];
    const child = spawn(WEFT, [...enter, ...alone, 'keepalived', '-n', '-l', '-P', '-f', config, ...pids], {
      stdio: 'ignore',
    });
    daemons.set(name, child);
  }
  const has = async (host: string, name: string): Promise<boolean> =>
    (await inside(host, name, 'ip', '-o', 'address', 'show', 'dev', 'eth0')).includes(`${VIP}/`);
  async function end(name: string): Promise<void> {
    const child = daemons.get(name);
    daemons.delete(name);
    if (child === undefined || child.exitCode !== null) return;
    const over = new Promise((resolve) => child.once('close', resolve));
    child.kill('SIGTERM');
    await over;
  }

  beforeAll(async () => {
    dir = await mkdtemp(`${tmpdir()}/weft-vrrp-`);
    await weftOk('network', 'create', 'vrrp', '--subnet', '10.62.0.0/24');
    await Promise.all(HOSTS.map((host) => sleeper(host, `vrrp-${host}`, 'vrrp')));
    await weftOk('wait');
  });
  afterAll(async () => {
    for (const name of daemons.keys()) await end(name);
    await rm(dir, { recursive: true, force: true });
  });

  it('is nobody’s until it is allowed: its packets are dropped', async () => {
    await inside('h1', 'vrrp-h1', 'ip', 'address', 'add', `${VIP}/24`, 'dev', 'eth0');
    expect(await pings('h3', 'vrrp-h3', VIP)).toBe(false);
    await inside('h1', 'vrrp-h1', 'ip', 'address', 'del', `${VIP}/24`, 'dev', 'eth0');
  });

  it('is answered by the master, and moves to the backup when the master ends', async () => {
    for (const host of ['h1', 'h2']) await weftOk('endpoint', 'set', `${host}/vrrp-${host}`, '--allow-address', VIP);
    await weftOk('wait');
    const [one] = await weftJson<Record<string, unknown>[]>('endpoint', 'ls', '--host', 'h1', '--network', 'vrrp');
    expect(one).toMatchObject({ allowed: [{ ip: VIP, mac: null }] });
    await keepalived('h1', 'vrrp-h1', 150);
    await until('h1 is master', () => has('h1', 'vrrp-h1'));
    await keepalived('h2', 'vrrp-h2', 100);
    await until('the address answers', () => pings('h3', 'vrrp-h3', VIP));
    // The backup hears the master: real multicast between the hosts.
    await until('h2 is backup', async () => !(await has('h2', 'vrrp-h2')));
    expect(await has('h1', 'vrrp-h1')).toBe(true);
    const before = await inside('h3', 'vrrp-h3', 'ip', 'neigh', 'show', VIP);
    await end('vrrp-h1');
    await until('h2 is master', () => has('h2', 'vrrp-h2'));
    await until('the address answers again', () => pings('h3', 'vrrp-h3', VIP));
    // By gratuitous ARP: the client did not have to ask.
    expect(await inside('h3', 'vrrp-h3', 'ip', 'neigh', 'show', VIP)).not.toBe(before);
    await keepalived('h1', 'vrrp-h1', 150);
    await until('h1 is master again', async () => (await has('h1', 'vrrp-h1')) && !(await has('h2', 'vrrp-h2')));
    await until('the address answers at its old place', () => pings('h3', 'vrrp-h3', VIP));
  });

  it('is given to no other endpoint, and is nobody’s again once disallowed', async () => {
    const r = await on('h3', '/usr/bin/docker', 'run', '--rm', '--network', 'vrrp', '--ip', VIP, 'weft/lab:1', 'true');
    expect(r.code).not.toBe(0);
    for (const host of ['h1', 'h2']) await weftOk('endpoint', 'set', `${host}/vrrp-${host}`, '--disallow-address', VIP);
    await weftOk('wait');
    expect(await pings('h3', 'vrrp-h3', VIP)).toBe(false);
  });
});

describe('a MAC that several may have', () => {
  const MAC = '00:00:5e:00:01:33';
  it('is found where it is now, without learning', async () => {
    await weftOk('network', 'create', 'vmac', '--subnet', '10.63.0.0/24');
    await Promise.all(HOSTS.map((host) => sleeper(host, `vmac-${host}`, 'vmac', '--cap-add', 'NET_ADMIN')));
    for (const host of ['h1', 'h2'])
      await weftOk('endpoint', 'set', `${host}/vmac-${host}`, '--allow-address', `10.63.0.250,${MAC}`);
    await weftOk('wait');
    const take = async (host: string): Promise<void> => {
      const ip = (...args: string[]) => inside(host, `vmac-${host}`, 'ip', ...args);
      await ip('link', 'add', 'vr', 'link', 'eth0', 'address', MAC, 'type', 'macvlan', 'mode', 'private');
      await ip('link', 'set', 'vr', 'up');
      await ip('address', 'add', '10.63.0.250/32', 'dev', 'vr');
      await inside(host, `vmac-${host}`, 'sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=1');
    };
    await take('h1');
    await until('it answers on h1', () => pings('h3', 'vmac-h3', '10.63.0.250'));
    expect(await inside('h3', 'vmac-h3', 'ip', 'neigh', 'show', '10.63.0.250')).toContain(MAC);
    await inside('h1', 'vmac-h1', 'ip', 'link', 'del', 'vr');
    await take('h2');
    await until('it answers on h2', () => pings('h3', 'vmac-h3', '10.63.0.250'));
  });

  it('is no other endpoint’s own, nor behind a peer, and nor is its address', async () => {
    const own = ['run', '--rm', '--network', 'vmac', '--mac-address', MAC, 'weft/lab:1', 'true'];
    const r = await on('h3', '/usr/bin/docker', ...own);
    expect([r.code !== 0, r.stderr]).toEqual([true, expect.stringMatching(/vmac-h[12] on h[12] may send from/)]);
    const peer = ['peer', 'add', 'router', '--network', 'vmac', '--vtep', '192.0.2.77', '--mac'];
    for (const mac of [MAC, '02:00:00:00:00:77=10.63.0.250']) {
      const added = await weft(...peer, mac);
      expect([added.code, added.stderr]).toEqual([1, expect.stringMatching(/vmac-h[12] on h[12]/)]);
    }
  });
});

describe('an allowed address inside a host’s block', () => {
  it('is there by that host’s leave, and then nobody else’s', async () => {
    await weftOk('network', 'create', 'leave', '--subnet', '10.65.0.0/24');
    for (const host of ['h1', 'h2'] as const) await sleeper(host, `leave-${host}`, 'leave');
    const own = await addressOf('h2', 'leave-h2', 'leave');
    // The next one that h2 would give out.
    const next = own.replace(/\d+$/, (last) => String(Number(last) + 1));
    const allow = (change: string) => weft('endpoint', 'set', 'h1/leave-h1', change, next);
    await weftOk('lab', 'stop', 'h2', 'agent');
    await until('h2 is away', async () => {
      const hosts = await weftJson<{ name: string; state: string }[]>('host', 'ls');
      return hosts.find((h) => h.name === 'h2')?.state === 'down';
    });
    const away = await allow('--allow-address');
    await weftOk('lab', 'start', 'h2', 'agent');
    expect([away.code, away.stderr]).toEqual([
      1,
      expect.stringMatching(/in a block of host h2, which is not connected/),
    ]);
    await until('h2 gives leave', async () => (await allow('--allow-address')).code === 0);
    await sleeper('h2', 'leave-other', 'leave');
    expect(await addressOf('h2', 'leave-other', 'leave')).not.toBe(next);
    const linkLocal = (
      await inside('h2', 'leave-h2', 'ip', '-6', '-o', 'address', 'show', 'dev', 'eth0', 'scope', 'link')
    ).match(/fe80::[0-9a-f:]+/)?.[0];
    if (linkLocal !== undefined) {
      const hijack = await weft('endpoint', 'set', 'h1/leave-h1', '--allow-address', linkLocal);
      expect([hijack.code, hijack.stderr]).toEqual([1, expect.stringMatching(/leave-h2 on h2's own/)]);
    }
    expect((await allow('--disallow-address')).code).toBe(0);
    await until('h2 has it back', async () => {
      const r = await on('h2', 'docker', 'run', '--rm', '--network', 'leave', '--ip', next, 'weft/lab:1', 'true');
      return r.code === 0;
    });
  });
});

describe('a trusted endpoint', () => {
  const IP = '10.64.0.200';
  const MAC = '06:aa:00:00:00:01';
  const appliance = async (name: string): Promise<void> => {
    await inside('h1', name, 'ip', 'link', 'set', 'eth0', 'down');
    await inside('h1', name, 'ip', 'link', 'set', 'eth0', 'address', MAC);
    await inside('h1', name, 'ip', 'link', 'set', 'eth0', 'up');
    await inside('h1', name, 'ip', 'address', 'add', `${IP}/24`, 'dev', 'eth0');
  };

  it('is refused where the network was not made for it', async () => {
    await weftOk('network', 'create', 'strict');
    const r = await on(
      'h1',
      '/usr/bin/docker',
      'run',
      '--rm',
      '--network',
      'name=strict,driver-opt=weft.trust=true',
      'weft/lab:1',
      'true',
    );
    expect(r.code).not.toBe(0);
    expect(r.stderr).toMatch(/without --allow-trust/);
    const odd = ['run', '--rm', '--network', 'name=strict,driver-opt=weft.trust=banana', 'weft/lab:1', 'true'];
    expect((await on('h1', '/usr/bin/docker', ...odd)).stderr).toMatch(/weft\.trust takes true or false/);
  });

  it('sends from what it likes, and is found there from every host', async () => {
    await weftOk(
      'network',
      'create',
      'trust',
      '--subnet',
      '10.64.0.0/24',
      '--ip-range',
      '10.64.0.0/25',
      '--allow-trust',
    );
    await sleeper('h1', 'plain', 'trust');
    await sleeper('h1', 'appliance', 'trust', '--label', 'weft.trust=true');
    for (const host of ['h2', 'h3']) await sleeper(host, `user-${host}`, 'trust');
    await until('it is trusted', async () => {
      const e = await weftJson<{ trusted: boolean }>('endpoint', 'inspect', 'h1/appliance');
      return e.trusted;
    });
    await weftOk('wait');
    await appliance('appliance');
    for (const host of ['h2', 'h3']) await until(`${host} finds it`, () => pings(host, `user-${host}`, IP));
    expect(await inside('h2', 'user-h2', 'ip', 'neigh', 'show', IP)).toContain(MAC);
    const own = await addressOf('h1', 'plain', 'trust');
    // From its own address it would be answered at the MAC that the mesh gave it.
    const ping = ['ping', '-c', '2', '-W', '1', '-I', IP, own];
    await until(
      'it reaches a neighbour',
      async () => (await on('h1', 'docker', 'exec', 'appliance', ...ping)).code === 0,
    );
    const { code, stdout } = await weft('audit', '--json', '--no-heal');
    expect({ code, stdout: code === 0 ? '' : stdout }).toEqual({ code: 0, stdout: '' });
  });

  it('is judged by its labels, also at the addresses that it has by itself', async () => {
    const policy = `
name: appliance
network: trust
select: { weft.trust: "true" }
ingress:
  - { action: allow, from: [{ cidr: ${await addressOf('h3', 'user-h3', 'trust')}/32 }] }
  - { action: drop }
`;
    const reached = (): Promise<boolean[]> =>
      Promise.all(
        ['h1/plain', 'h2/user-h2', 'h3/user-h3'].map((at) => pings(...(at.split('/') as [string, string]), IP)),
      );
    const applied = await run(WEFT, ['policy', 'apply', '-f', '-'], { input: policy });
    expect({ code: applied.code, stderr: applied.stderr }).toEqual({ code: 0, stderr: '' });
    await until('it is found by whom it lets in', async () => (await reached())[2] === true);
    expect(await reached()).toEqual([false, false, true]);
    await weftOk('policy', 'rm', 'appliance', '--network', 'trust');
    await until('it is found by all', async () => (await reached()).every(Boolean));
    expect((await weft('audit', '--json', '--no-heal')).code).toBe(0);
  });

  it('but one that is not trusted does not', async () => {
    await inside('h1', 'appliance', 'ip', 'address', 'del', `${IP}/24`, 'dev', 'eth0');
    await inside('h1', 'plain', 'ip', 'address', 'add', `${IP}/24`, 'dev', 'eth0');
    const r = await on(
      'h1',
      'docker',
      'exec',
      'plain',
      'ping',
      '-c',
      '2',
      '-W',
      '1',
      '-I',
      IP,
      await addressOf('h2', 'user-h2', 'trust'),
    );
    expect(r.code).not.toBe(0);
  });
});
