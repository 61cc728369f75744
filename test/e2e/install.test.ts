/**
 * docs/install.md, done: its commands are taken out of the page and run on two bare hosts (dockerd and Open vSwitch, no Weft), the
 * first of which is the coordinator too. What stands in for something: systemctl.pl for systemd, cp for scp, the lab's image for
 * alpine; addresses are the lab's.
 */
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { IMAGE, type Result, run, until } from '../harness/lab.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const WEFT = join(ROOT, 'bin/weft');
const LAB = `wi${process.pid}`;
const HOSTS = ['h1', 'h2'] as const;
type Host = (typeof HOSTS)[number];
/** Directories that the page writes to, and that hosts of a lab share with the machine: an overlay each, seen by the host alone. */
const OWN = ['/etc', '/opt', '/usr/local/bin'];
const STATE = '/var/lib/weft';
const BASE = '/run/install-test';

interface Block {
  readonly section: string;
  /** As the page says: c1, h1, h2. */
  readonly on: string;
  readonly commands: string;
}

const page = readFileSync(join(ROOT, 'docs/install.md'), 'utf8');
const blocks: readonly Block[] = page.split(/^## /m).flatMap((part) =>
  [...part.matchAll(/<!-- run on (\w+) -->\n```sh\n([\s\S]*?)```/g)].map(([, on = '', commands = '']) => ({
    section: part.split('\n')[0] ?? '',
    on,
    commands,
  })),
);

let home = '';
let madeState = false;
const address = new Map<Host, string>();

const inHost = (host: Host, ...command: string[]): Promise<Result> =>
  run(WEFT, ['lab', 'exec', '--name', LAB, host, ...command], { env: { HOME: home } });

/** @param home the administrator on c1 and the user of h1 are two, though on one machine */
async function sh(host: Host, script: string, home = host === 'h1' ? 'c1' : 'home'): Promise<string> {
  const path = `${BASE}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin`;
  const r = await inHost(host, 'env', `HOME=${BASE}/${home}`, `PATH=${path}`, 'sh', '-ec', `cd; ${script}`);
  if (r.code === 0) return r.stdout;
  const logs = await inHost(host, 'sh', '-c', 'tail -n 40 /run/systemd/system/*.log');
  throw new Error(`${host}: ${script}\nexit ${r.code}\n${r.stdout}${r.stderr}\n${logs.stdout}`);
}

const of = (section: string): Block[] => {
  const own = blocks.filter((block) => block.section === section);
  expect(own.length, section).toBeGreaterThan(0);
  return own;
};

/** Runs one block of the page. @param variables what the page's reader fills in */
function follow({ on, commands }: Block, variables: Readonly<Record<string, string>> = {}): Promise<string> {
  const replace: [string, string][] = [
    ['192.0.2.11', address.get('h1') ?? ''],
    ['192.0.2.12', address.get('h2') ?? ''],
    ['192.0.2.1', address.get('h1') ?? ''],
    ['alpine', IMAGE],
    ...Object.entries(variables),
  ];
  const script = replace.reduce((text, [from, to]) => text.replaceAll(from, to), commands);
  return on === 'c1' ? sh('h1', script, 'c1') : sh(on as Host, script, 'home');
}

async function followAll(section: string): Promise<void> {
  for (const block of of(section)) await follow(block);
}

const addressOfOne = async (): Promise<string> =>
  (await sh('h1', "docker inspect -f '{{.NetworkSettings.Networks.demo.IPAddress}}' one")).trim();

const weft = async <T>(...words: string[]): Promise<T> =>
  JSON.parse(await sh('h1', `weft ${words.join(' ')} --json`)) as T;

const connected = (count: number): Promise<unknown> =>
  until(`${count} hosts are connected`, async () => {
    const { hosts } = await weft<{ hosts: { state: string }[] }>('status');
    return hosts.length === count && hosts.every((host) => host.state === 'connected');
  });

beforeAll(async () => {
  home = mkdtempSync(join(tmpdir(), 'weft-install-'));
  const made = await run(join(ROOT, 'node_modules/.bin/node'), [join(ROOT, 'scripts/package.ts')]);
  if (made.code !== 0) throw new Error(made.stderr);
  const archive = join(ROOT, made.stdout.trim());
  const up = await run(WEFT, ['lab', 'up', '--name', LAB, '--hosts', '0', '--bare', '2', '--json'], {
    env: { HOME: home },
    timeoutMs: 280_000,
  });
  if (up.code !== 0) throw new Error(up.stderr);
  const lab = JSON.parse(up.stdout) as { hosts: { name: Host; underlay: { ip: string } }[] };
  for (const host of lab.hosts) address.set(host.name, host.underlay.ip);
  madeState = !existsSync(STATE);
  mkdirSync(STATE, { recursive: true });
  for (const host of HOSTS) prepare(host, archive);
  for (const host of HOSTS) await mounts(host);
});

/** What the host finds below BASE; its /run is a directory of the machine. */
function prepare(host: Host, archive: string): void {
  const base = runOf(host) + BASE.slice('/run'.length);
  for (const dir of ['bin', 'c1', 'home', 'peers', 'own']) mkdirSync(join(base, dir), { recursive: true });
  mkdirSync(join(runOf(host), 'systemd/system'), { recursive: true });
  copyFileSync(fileURLToPath(new URL('systemctl.pl', import.meta.url)), join(base, 'bin/systemctl'));
  const copy = `#!/bin/sh\nfor to; do :; done\nto=\${to#root@}; exec cp -r "$2" "$3" ${BASE}/peers/\${to%:}/\n`;
  writeFileSync(join(base, 'bin/scp'), copy);
  for (const program of ['systemctl', 'scp']) chmodSync(join(base, 'bin', program), 0o755);
  for (const [peer, ip] of address)
    symlinkSync(`${runOf(peer)}${BASE.slice('/run'.length)}/home`, join(base, 'peers', ip));
  if (host === 'h1') copyFileSync(archive, join(base, 'c1', archive.split('/').at(-1) ?? ''));
}
const runOf = (host: Host): string => `/run/weft-lab/${LAB}/${host}/run`;

async function mounts(host: Host): Promise<void> {
  const overlays = OWN.map((dir, i) => {
    const own = `${BASE}/own/${i}`;
    return `mkdir -p ${own}/up ${own}/work; mount -t overlay -o lowerdir=${dir},upperdir=${own}/up,workdir=${own}/work own ${dir}`;
  });
  await sh(host, [`mount -t tmpfs own ${BASE}/own`, ...overlays, `mount -t tmpfs own ${STATE}`].join('\n'));
}

afterAll(async () => {
  if (process.env['WEFT_KEEP_LAB'] === undefined)
    await run(WEFT, ['lab', 'down', '--name', LAB], { env: { HOME: home } });
  rmSync(home, { recursive: true, force: true });
  if (madeState) rmdirSync(STATE);
});

describe('docs/install.md', () => {
  it('brings a coordinator up', async () => {
    await followAll('The coordinator');
    await connected(0);
  });

  it('brings hosts up, with three commands each', async () => {
    for (const host of HOSTS) {
      const own = blocks.filter((block) => block.section === 'Each host' && block.on === host);
      expect(own.flatMap((block) => block.commands.trim().split('\n'))).toHaveLength(3);
    }
    await followAll('Each host');
    await connected(2);
    expect(JSON.parse(await sh('h2', 'cat /etc/docker/daemon.json'))).toMatchObject({
      'live-restore': true,
      dns: expect.arrayContaining(['169.254.100.53']),
    });
    expect(await sh('h2', 'stat -c %a /etc/weft/tls/agent.key /run/docker/plugins/weft.sock')).toBe('600\n600\n');
    // The package has the kernel side, and the unit lets the agent load it.
    const { backend } = await weft<{ backend: string }>('host', 'inspect', 'h2');
    expect(backend).toBe(existsSync('/sys/module/openvswitch') ? 'ovs-tunnel' : 'kernel-tunnel');
  });

  it('shows that containers on both hosts work together', async () => {
    const steps = of('Is it right?');
    expect(steps.map((step) => step.on)).toEqual(['c1', 'h1', 'h2', 'c1']);
    const [status, first, second, audit] = steps as [Block, Block, Block, Block];
    expect(await follow(status)).toMatch(/h1 +connected[\s\S]*h2 +connected/);
    expect(await follow(first)).toMatch(/demo +weft/);
    const ip = await addressOfOne();
    expect(ip).toMatch(/^10\.128\.0\.\d+$/);
    expect(await follow(second, { 'ADDRESS-OF-ONE': ip })).toMatch(/, 0% packet loss/);
    expect(await follow(audit)).toMatch(/one +10\.128\.[\s\S]*h1: clean\nh2: clean\n$/);
  });

  it('upgrades a host under running containers', async () => {
    await sh('h2', `docker run -d --name two --network demo ${IMAGE} sleep 1000000`);
    await sh('h2', "sed -i 's/^  vtep:.*/&\\n  shape: 1gbit/' /etc/weft/agent.yaml");
    await sh('h2', 'weft-0.1.0-linux-x64/install agent; systemctl restart weft-agent');
    await connected(2);
    await until('it is shaped', async () => (await sh('h2', 'tc qdisc show dev eth0')).includes('htb 57ef: root'));
    await sh('h2', `docker exec two ping -c 3 -i 0.2 -W 1 ${await addressOfOne()}`);
    expect(await sh('h1', 'weft audit --no-heal')).toBe('h1: clean\nh2: clean\n');
  });

  it('takes a host off again, and leaves nothing on it', async () => {
    await followAll('Removing a host');
    expect(
      await sh('h2', 'docker network ls -q --filter driver=weft; ovs-vsctl list-br; ip -br link | grep ^we*f || true'),
    ).not.toMatch(/weft|wf|^[0-9a-f]{12}$/m);
    expect(await sh('h2', 'tc qdisc show dev eth0')).toMatch(/^qdisc noqueue 0: root/);
    expect(await sh('h2', 'nft list ruleset; iptables -S; ip6tables -S')).not.toMatch(/weft/);
    const find = 'find /var/lib/weft /run/weft /opt/weft /etc/weft /sys/fs/bpf/weft -mindepth 1 2>/dev/null || true';
    expect(await sh('h2', find)).toBe('');
    expect(await sh('h2', "find /etc/systemd/system /run/docker/plugins /usr/local/bin -name '*weft*'")).toBe('');
    await connected(1);
    expect(await weft<{ name: string }[]>('network', 'ls')).toMatchObject([{ name: 'demo' }]);
    expect(await sh('h1', 'weft audit')).toBe('h1: clean\n');
    expect(await sh('h1', 'docker ps -q --filter name=one')).not.toBe('');
  });

  it('takes nothing off a machine that is in use', async () => {
    const refusal = async (): Promise<string> => {
      const r = await sh('h1', '/opt/weft/uninstall 2>&1 && exit 9 || true');
      expect(await sh('h1', 'test -x /opt/weft/bin/weft && ovs-vsctl br-exists br-weft && echo there')).toBe('there\n');
      return r;
    };
    expect(await refusal()).toMatch(/The agent still runs/);
    await sh('h1', 'systemctl disable --now weft-agent.service weft-agent.socket');
    expect(await refusal()).toMatch(/weft-coordinator.service is active/);
    await sh('h1', 'systemctl disable --now weft-coordinator.service');
    expect(await refusal()).toMatch(/Containers still use the mesh: one in demo/);
  });
});
