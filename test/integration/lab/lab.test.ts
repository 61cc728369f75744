import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { act, findTarget } from '../../../cli/lab/components.ts';
import { down } from '../../../cli/lab/down.ts';
import { alive, processes } from '../../../cli/lab/procs.ts';
import { type LabStatus, status } from '../../../cli/lab/status.ts';
import { up } from '../../../cli/lab/up.ts';

// Hosts without agents and no coordinator: what is tested here is the lab, not the mesh.
const LAB = `it${process.pid}`;
const WEFT = fileURLToPath(new URL('../../../bin/weft', import.meta.url));
const home = mkdtempSync(`${tmpdir()}/weft-lab-test-`);
const wanted = (bare: number, etcdMembers = 1) => ({ hosts: 0, bare, coordinators: 0, etcdMembers });
const quiet = (): void => {};

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}
function exec(
  args: readonly string[],
  options: { input?: string; cwd?: string; env?: Record<string, string> } = {},
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, WEFT_LAB: LAB, ...options.env };
    const child = spawn(WEFT, ['lab', 'exec', ...args], {
      env,
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (part) => (stdout += String(part)));
    child.stderr.on('data', (part) => (stderr += String(part)));
    child.on('error', reject);
    child.on('close', (code) => resolve({ code, stdout, stderr }));
    child.stdin.on('error', () => {}); // a command need not read it
    child.stdin.end(options.input ?? '');
  });
}
const out = async (...args: string[]): Promise<string> => {
  const ended = await exec(args);
  expect(ended.stderr).toBe('');
  expect(ended.code).toBe(0);
  return ended.stdout.trim();
};
const pidsOf = (lab: LabStatus) => lab.hosts.map((host) => host.pids);
const shell = async (program: string, ...args: string[]): Promise<string> =>
  (await promisify(execFile)(program, args)).stdout;

/** Underlay subnets that the lab holds: symbolic links to its name. */
const claims = (): string[] => {
  const dir = '/var/lib/weft-lab/.subnets';
  const links = existsSync(dir) ? readdirSync(dir) : [];
  return links.filter((link) => {
    try {
      return readlinkSync(`${dir}/${link}`).startsWith(LAB);
    } catch {
      return false; // another lab's, that has just been given back
    }
  });
};

/** What of the machine a lab could leave behind or change. */
async function machine(): Promise<Record<string, unknown>> {
  const list = (dir: string): string[] =>
    existsSync(dir) ? readdirSync(dir).filter((name) => name.includes(LAB)) : [];
  return {
    links: (JSON.parse(await shell('ip', '-j', 'link')) as { ifname: string }[])
      .map((link) => link.ifname)
      .filter((name) => name.includes(LAB) || /^(lo|eth\d+|docker0)$/.test(name)),
    forward: readFileSync('/proc/sys/net/ipv4/ip_forward', 'utf8'),
    rules: await shell('nft', 'list', 'ruleset'),
    mounts: readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(LAB)),
    namespaces: list('/run/netns'),
    run: list('/run/weft-lab'),
    state: list('/var/lib/weft-lab'),
    subnets: claims(),
    cgroups: readdirSync('/sys/fs/cgroup').flatMap((name) => {
      try {
        return list(`/sys/fs/cgroup/${name}`);
      } catch {
        return [];
      }
    }),
    processes: processes().filter((proc) => proc.pid !== process.pid && proc.argv.some((word) => word.includes(LAB))),
  };
}

let before: Record<string, unknown>;
const realHome = process.env['HOME'];
beforeAll(async () => {
  process.env['HOME'] = home;
  before = await machine();
  await up(LAB, wanted(2), quiet);
});
afterAll(async () => {
  await down(LAB);
  await down(`${LAB}b`);
  process.env['HOME'] = realHome;
  rmSync(home, { recursive: true, force: true });
});

describe('lab up', () => {
  it('does nothing on a lab that is complete, and adds what is missing', async () => {
    const first = await status(LAB);
    expect(
      pidsOf(first).every((pids) => pids.dockerd !== null && pids.containerd !== null && pids.ovsVswitchd !== null),
    ).toBe(true);
    await up(LAB, wanted(1), quiet);
    expect(await status(LAB)).toEqual(first);
    await up(LAB, wanted(3), quiet);
    const grown = await status(LAB);
    expect(grown.hosts.map((host) => host.name)).toEqual(['h1', 'h2', 'h3']);
    expect(grown.hosts.slice(0, 2)).toEqual(first.hosts);
  });

  it('grows etcd, member by member', async () => {
    await up(LAB, wanted(3, 3), quiet);
    const { etcd } = await status(LAB);
    const urls = etcd.map((member) => member.clientUrl).join(',');
    const members = await promisify(execFile)('etcdctl', [`--endpoints=${urls}`, 'endpoint', 'status', '-w', 'json'], {
      env: { ...process.env, ETCDCTL_API: '3' },
    });
    const revisions = (JSON.parse(members.stdout) as { Status: { leader: bigint } }[]).map(
      (member) => member.Status.leader,
    );
    expect(revisions.length).toBe(3);
    expect(new Set(revisions).size).toBe(1);
  });

  it('gives each host one image, a Docker and an OVS of its own, and a way to the others', async () => {
    const lab = await status(LAB);
    for (const host of lab.hosts) expect(realpathSync(host.dockerSocket)).toBe(host.dockerSocket);
    expect(await out('h1', 'docker', 'images', '--format', '{{.Repository}}:{{.Tag}}')).toBe('weft/lab:1');
    expect(await out('h2', 'docker', 'info', '-f', '{{.Name}}')).toBe('h2');
    expect(await out('h2', 'ovs-vsctl', 'get', 'Open_vSwitch', '.', 'external_ids:hostname')).toBe('h2');
    const tools = 'for tool in sh ping arping nc wget sleep iperf3; do command -v $tool; done';
    expect((await out('h1', 'docker', 'run', '--rm', 'weft/lab:1', 'sh', '-c', tools)).split('\n').length).toBe(7);
    expect(await out('h1', 'ping', '-c1', '-W2', lab.hosts[1]?.underlay.ip ?? '')).toContain(' 0% packet loss');
    // The same paths hold inside.
    expect(await out('h1', 'ls', lab.hosts[1]?.dockerSocket ?? '')).toBe(lab.hosts[1]?.dockerSocket);
  });
});

describe('lab exec', () => {
  it('passes arguments, input, environment and directory on as they are', async () => {
    expect(await out('h1', 'hostname')).toBe('h1');
    const words = ['--json', '-c', '', '$HOME', 'a b', '*', '--', '--name', "'"];
    expect((await exec(['h1', 'printf', '%s|', ...words])).stdout).toBe(`${words.join('|')}|`);
    expect((await exec(['h1', 'cat'], { input: 'in\0put' })).stdout).toBe('in\0put');
    expect(
      (await exec(['h1', 'sh', '-c', 'pwd; echo $LABTEST'], { cwd: '/usr/share', env: { LABTEST: 'x y' } })).stdout,
    ).toBe('/usr/share\nx y\n');
    const error = await exec(['h1', 'sh', '-c', 'echo err >&2']);
    expect([error.stdout, error.stderr]).toEqual(['', 'err\n']);
  });

  it('ends as the command ends', async () => {
    const codes = [];
    for (const args of [
      ['h1', 'true'],
      ['h1', 'sh', '-c', 'exit 3'],
      ['h1', 'sh', '-c', 'kill -9 $$'],
      ['h1', 'no-such-command'],
      ['h77', 'true'],
      ['coord1', 'true'],
    ]) {
      codes.push((await exec(args)).code);
    }
    expect(codes).toEqual([0, 3, 137, 127, 125, 125]);
    expect((await exec(['h77', 'true'])).stderr).toContain('h1 h2 h3');
  });

  it('passes signals and a terminal on', async () => {
    const run = spawn(
      WEFT,
      ['lab', 'exec', 'h1', 'sh', '-c', 'trap "echo got; exit 7" TERM; echo ready; while :; do sleep 0.05; done'],
      {
        env: { ...process.env, WEFT_LAB: LAB },
      },
    );
    let text = '';
    const ended = new Promise<number | null>((resolve) => run.on('close', resolve));
    run.stdout.on('data', (part) => {
      text += String(part);
      if (String(part).includes('ready')) run.kill('SIGTERM');
    });
    expect(await ended).toBe(7);
    expect(text).toBe('ready\ngot\n');
    const env = { ...process.env, WEFT_LAB: LAB };
    const tty = await promisify(execFile)('script', ['-qec', `${WEFT} lab exec h1 tty`, '/dev/null'], { env });
    expect(tty.stdout).toContain('/dev/pts/');
  });

  it('runs 20 at a time', async () => {
    const start = performance.now();
    const all = await Promise.all(
      Array.from({ length: 20 }, (_, i) => exec([`h${(i % 3) + 1}`, 'sh', '-c', `echo ${i}; hostname`])),
    );
    expect(all.map((one) => one.stdout)).toEqual(all.map((_, i) => `${i}\nh${(i % 3) + 1}\n`));
    expect(performance.now() - start).toBeLessThan(20 * 200);
  });
});

describe('lab start, stop, kill', () => {
  const doIt = (action: 'start' | 'stop' | 'kill', target: string, component?: string): Promise<void> =>
    act(action, findTarget(LAB, target, component));

  it('refuses what there is not', () => {
    expect(() => findTarget(LAB, 'h9', undefined)).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', hint: expect.stringContaining('h1 h2 h3') }),
    );
    expect(() => findTarget(LAB, 'h1', 'disk')).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  it('takes dockerd away and gives it back under running containers', async () => {
    const id = await out('h1', 'docker', 'run', '-d', '--name', 'stays', 'weft/lab:1', 'sleep', '1000');
    const pid = await out('h1', 'docker', 'inspect', '-f', '{{.State.Pid}}', id);
    for (const action of ['kill', 'stop'] as const) {
      await doIt(action, 'h1', 'dockerd');
      expect((await status(LAB)).hosts[0]?.pids).toMatchObject({ dockerd: null, containerd: null });
      expect(alive(Number(pid))).toBe(true);
      await doIt('start', 'h1', 'dockerd');
      expect(await out('h1', 'docker', 'inspect', '-f', '{{.State.Pid}} {{.State.Running}}', id)).toBe(`${pid} true`);
    }
    await doIt('stop', 'h1', 'dockerd'); // what is gone already is no error
    await doIt('stop', 'h1', 'dockerd');
    await doIt('start', 'h1', 'dockerd');
  });

  it('cuts the power of a host, whose disk stays', async () => {
    const pid = await out('h1', 'docker', 'inspect', '-f', '{{.State.Pid}}', 'stays');
    await doIt('kill', 'h1');
    expect(alive(Number(pid))).toBe(false);
    expect((await exec(['h1', 'true'])).code).toBe(125);
    await doIt('start', 'h1');
    expect(await out('h1', 'docker', 'ps', '-a', '--format', '{{.Names}} {{.State}}')).toBe('stays exited');
    expect(await out('h1', 'docker', 'start', 'stays')).toBe('stays');
    await doIt('stop', 'h1');
    await doIt('start', 'h1');
    expect(await out('h1', 'docker', 'rm', '-f', 'stays')).toBe('stays');
  });

  it('restarts OVS and mends the underlay', async () => {
    const ip = (await status(LAB)).hosts[1]?.underlay.ip ?? '';
    const reach = async (): Promise<number | null> => (await exec(['h1', 'ping', '-c1', '-W1', ip])).code;
    await doIt('kill', 'h1', 'ovs');
    expect((await status(LAB)).hosts[0]?.pids).toMatchObject({ ovsdbServer: null, ovsVswitchd: null });
    await doIt('start', 'h1', 'ovs');
    expect(await reach()).toBe(0);
    await doIt('stop', 'h1', 'underlay');
    expect(await reach()).toBe(1);
    await doIt('start', 'h1', 'underlay');
    expect(await reach()).toBe(0);
    await doIt('kill', 'etcd1');
    expect((await status(LAB)).etcd[0]?.pid).toBeNull();
    await doIt('start', 'etcd1');
    expect((await status(LAB)).etcd[0]?.pid).not.toBeNull();
  });
});

describe('lab down', () => {
  it('leaves a lab beside it alone, and of its own nothing', async () => {
    await up(`${LAB}b`, wanted(1), quiet);
    await out('h1', 'docker', 'run', '-d', '--restart=always', '-p', '8080:80', 'weft/lab:1', 'sleep', '1000');
    expect((await exec(['--name', `${LAB}b`, 'h1', 'docker', 'ps', '-q'])).stdout).toBe('');
    await down(LAB);
    expect((await status(`${LAB}b`)).hosts[0]?.pids.dockerd).not.toBeNull();
    await down(`${LAB}b`);
    await down(LAB);
    expect(await machine()).toEqual(before);
  });

  it('removes half an up', async () => {
    const half = up(LAB, wanted(2), (line) => {
      if (line.startsWith('underlay')) throw new Error('stop here');
    });
    await expect(half).rejects.toThrow('stop here');
    await down(LAB);
    expect(await machine()).toEqual(before);
  });
});
