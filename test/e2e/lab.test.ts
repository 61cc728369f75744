/** weft lab: commands inside hosts as if they were here, parts that go and come, labs that grow, live side by side, and leave nothing. */
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditClean, on, onOk, type Result, run, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { type LabStatus, labStatus } from '../harness/lab-direct.ts';

const WEFT = new URL('../../bin/weft', import.meta.url).pathname;

afterAll(auditClean);

describe('lab exec', () => {
  const sh = (script: string, ...args: string[]): Promise<Result> => on('h1', 'sh', '-c', script, ...args);

  it('hands every word on as it is: no shell, no option of ours', async () => {
    const words = ['--json', '-c', '--name', 'x', '--', '', ' ', '$HOME', '*', "it's", 'a\nb', 'ü', '--help'];
    expect((await on('h1', 'printf', '%s|', ...words)).stdout).toBe(`${words.join('|')}|`);
    expect((await run(WEFT, ['lab', 'exec', '--name', process.env['WEFT_LAB'] ?? '', 'h2', 'hostname'])).stdout).toBe(
      'h2\n',
    );
    expect(await onOk('h1', 'docker', 'info', '-f', '{{.Name}}')).toBe('h1');
    expect(await onOk('h3', 'docker', 'info', '-f', '{{.Name}}')).toBe('h3');
  });

  it('passes streams byte by byte, in both directions', async () => {
    // Every byte value, in an order that ends no line where one is expected.
    const bytes = Buffer.from(Array.from({ length: 1 << 18 }, (_, i) => (i * 7 + (i >> 8)) % 256));
    const child = spawn(WEFT, ['lab', 'exec', 'h2', 'cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
    const parts: Buffer[] = [];
    child.stdout.on('data', (part: Buffer) => parts.push(part));
    const ended = new Promise((resolve) => child.on('close', resolve));
    child.stdin.end(bytes);
    expect(await ended).toBe(0);
    expect(Buffer.concat(parts).equals(bytes)).toBe(true);
    expect(await sh('echo out; echo err >&2')).toMatchObject({ code: 0, stdout: 'out\n', stderr: 'err\n' });
    // Who reads no more ends the command, as in a pipe.
    expect((await run('bash', ['-c', `${WEFT} lab exec h1 yes | head -1`])).stdout).toBe('y\n');
  });

  it('has the caller’s directory, environment, and terminal', async () => {
    const place = mkdtempSync(join(tmpdir(), 'weft-exec-'));
    try {
      const r = await run('env', ['-C', place, WEFT, 'lab', 'exec', 'h1', 'sh', '-c', 'pwd; echo "$SEEN"'], {
        env: { SEEN: 'a  b' },
      });
      expect(r.stdout).toBe(`${place}\na  b\n`);
    } finally {
      rmSync(place, { recursive: true });
    }
    expect((await sh('test -t 0')).code).toBe(1);
    const tty = await run('script', ['-qec', `${WEFT} lab exec h1 tty`, '/dev/null']);
    expect(tty).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\/dev\/pts\/\d+\s*$/) });
  });

  it('ends as the command ends: its status, 128+n, 125, 127', async () => {
    const codes: [number, string, ...string[]][] = [
      [0, 'h1', 'true'],
      [77, 'h1', 'sh', '-c', 'exit 77'],
      [137, 'h1', 'sh', '-c', 'kill -KILL $$'],
      [143, 'h1', 'sh', '-c', 'kill -TERM $$'],
      [127, 'h1', 'weft-no-such-command'],
      [125, 'h9', 'true'],
      [125, 'coord1', 'true'],
    ];
    for (const [code, host, ...command] of codes)
      expect([command, (await on(host, ...command)).code]).toEqual([command, code]);
    expect((await on('h9', 'true')).stderr).toMatch(/h9.*h1 h2 h3/);
    const other = await run(WEFT, ['lab', 'exec', 'h1', 'true'], { env: { WEFT_LAB: 'no-such-lab' } });
    expect(other).toMatchObject({ code: 125, stderr: expect.stringMatching(/no-such-lab/) });
  });

  it('passes signals on', async () => {
    const traps = 'trap "echo TERM; exit 15" TERM; trap "echo INT; exit 2" INT; trap "echo HUP; exit 1" HUP';
    const script = `${traps}; trap "echo USR1; exit 10" USR1; echo ready; while :; do sleep 0.02; done`;
    for (const [signal, code] of [
      ['SIGTERM', 15],
      ['SIGINT', 2],
      ['SIGHUP', 1],
      ['SIGUSR1', 10],
    ] as const) {
      const child = spawn(WEFT, ['lab', 'exec', 'h1', 'sh', '-c', script], { stdio: ['ignore', 'pipe', 'inherit'] });
      let seen = '';
      child.stdout.setEncoding('utf8').on('data', (part: string) => {
        seen += part;
      });
      const ended = new Promise((resolve) => child.on('close', resolve));
      await until('it is ready', async () => seen.includes('ready'));
      child.kill(signal);
      expect([signal, await ended, seen]).toEqual([signal, code, `ready\n${signal.slice(3)}\n`]);
    }
  });

  it('needs no coordinator, and is safe 20 at a time', async () => {
    const all = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        run(WEFT, ['lab', 'exec', `h${(i % 3) + 1}`, 'sh', '-c', `echo ${i}; hostname`], {
          env: { HOME: '/nonexistent' },
        }),
      ),
    );
    expect(all.map((r) => r.stdout)).toEqual(all.map((_, i) => `${i}\nh${(i % 3) + 1}\n`));
  });
});

type Host = LabStatus['hosts'][number] & { readonly underlay: { readonly ip: string } };
type Status = Omit<LabStatus, 'hosts'> & { readonly hosts: readonly Host[] };

/** What of a lab could be left on the machine. */
async function traces(lab: string): Promise<string[]> {
  const named = (dir: string): string[] =>
    existsSync(dir)
      ? readdirSync(dir)
          .filter((name) => name.includes(lab))
          .map((name) => `${dir}/${name}`)
      : [];
  const links = JSON.parse((await run('ip', ['-j', 'link'])).stdout) as { ifname: string }[];
  const processes = readdirSync('/proc').filter((pid) => {
    try {
      return (
        /^\d+$/.test(pid) && Number(pid) !== process.pid && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(lab)
      );
    } catch {
      return false;
    }
  });
  return [
    ...links.map((link) => link.ifname).filter((name) => name.includes(lab)),
    ...readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(lab)),
    ...['/run/netns', '/run/weft-lab', '/var/lib/weft-lab', '/sys/fs/cgroup', '/sys/fs/cgroup/memory'].flatMap(named),
    ...processes.map((pid) => `process ${pid}`),
  ];
}

describe('labs', () => {
  const names = [`la${process.pid}`, `lb${process.pid}`] as const;
  const [one, two] = names;
  const home = mkdtempSync(join(tmpdir(), 'weft-labs-'));
  const lab = (name: string, ...args: string[]): Promise<Result> =>
    run(WEFT, args, { env: { HOME: home, WEFT_LAB: name } });
  const ok = async (name: string, ...args: string[]): Promise<string> => {
    const r = await lab(name, ...args);
    if (r.code !== 0) throw new Error(`${args.join(' ')}: exit ${r.code}\n${r.stdout}${r.stderr}`);
    return r.stdout;
  };
  const status = async (name: string): Promise<Status> =>
    JSON.parse(await ok(name, 'lab', 'status', '--json')) as Status;
  const context = (): { coordinators: string[] } =>
    JSON.parse(readFileSync(join(home, '.config/weft/context.json'), 'utf8')) as { coordinators: string[] };

  beforeAll(async () => {
    await Promise.all(names.map((name) => ok(name, 'lab', 'up', '--hosts', '1')));
  });
  afterAll(async () => {
    for (const name of names) await lab(name, 'lab', 'down');
    rmSync(home, { recursive: true, force: true });
  });

  it('say what they are made of, key by key', async () => {
    const seen = await status(one);
    const number = expect.any(Number) as unknown;
    expect(seen).toEqual({
      name: one,
      hosts: [
        {
          name: 'h1',
          netns: `/run/netns/${one}-h1`,
          dockerSocket: expect.stringMatching(/docker\.sock$/),
          pluginSocket: expect.stringMatching(/plugins\/weft\.sock$/),
          agentSocket: expect.stringMatching(/weft\/agent\.sock$/),
          underlay: { interface: expect.stringMatching(/./), ip: expect.stringMatching(/^\d+\.\d+\.\d+\.\d+$/) },
          stateDir: expect.stringMatching(/^\//),
          logDir: expect.stringMatching(/^\//),
          pids: { agent: number, dockerd: number, containerd: number, ovsdbServer: number, ovsVswitchd: number },
        },
      ],
      coordinators: [{ name: 'coord1', address: expect.stringMatching(/^[\d.]+:7470$/), pid: number }],
      etcd: [{ name: 'etcd1', clientUrl: expect.stringMatching(/^http:\/\/[\d.]+:2379$/), pid: number }],
      tls: { ca: expect.stringMatching(/^\//), cert: expect.stringMatching(/^\//), key: expect.stringMatching(/^\//) },
    });
    const [host] = seen.hosts;
    const sockets = [host?.dockerSocket, host?.pluginSocket, host?.agentSocket];
    for (const path of [host?.netns, ...sockets, host?.stateDir, host?.logDir, ...Object.values(seen.tls)])
      expect([path, existsSync(path ?? '')]).toEqual([path, true]);
    // The paths hold outside too.
    const images = ['-H', `unix://${host?.dockerSocket}`, 'images', '--format', '{{.Repository}}:{{.Tag}}'];
    expect((await run('docker', images)).stdout).toBe('weft/lab:1\n');
  });

  it('live side by side, each with networks of its own', async () => {
    const at = async (name: string): Promise<string[]> => (await status(name)).coordinators.map((c) => c.address);
    expect(await at(one)).not.toEqual(await at(two));
    const tls = (await status(two)).tls;
    const flags = ['--coordinator', (await at(two)).join(','), '--ca', tls.ca, '--cert', tls.cert, '--key', tls.key];
    await ok(two, 'network', 'create', 'side', ...flags);
    expect((await lab(one, 'lab', 'exec', 'h1', 'docker', 'network', 'inspect', 'side')).code).toBe(1);
    expect((await lab(two, 'lab', 'exec', 'h1', 'docker', 'network', 'inspect', 'side')).code).toBe(0);
    await ok(two, 'network', 'rm', 'side', ...flags);
  });

  it('grow while they run: hosts, coordinators, bare hosts', async () => {
    const before = await status(one);
    await ok(one, 'lab', 'up', '--hosts', '2', '--coordinators', '2', '--bare', '1');
    const after = await status(one);
    expect(after.hosts[0]).toEqual(before.hosts[0]);
    expect(after.coordinators[0]).toEqual(before.coordinators[0]);
    const agents = after.hosts.map((host) => [host.name, host.pids['agent'] !== null]);
    expect(agents).toEqual([
      ['h1', true],
      ['h2', true],
      ['h3', false],
    ]);
    expect(context().coordinators).toEqual(after.coordinators.map((c) => c.address));
    const { hosts } = JSON.parse(await ok(one, 'status', '--json')) as { hosts: { state: string }[] };
    expect(hosts.map((h) => h.state)).toEqual(['connected', 'connected']);
    await ok(one, 'network', 'create', 'grown');
    const there = ['docker', 'run', '--rm', '--network', 'grown', 'weft/lab:1', 'echo', 'there'];
    expect(await ok(one, 'lab', 'exec', 'h2', ...there)).toBe('there\n');
    expect((await lab(one, 'lab', 'exec', 'h3', 'docker', 'network', 'inspect', 'grown')).code).toBe(1);
    await ok(one, 'network', 'rm', 'grown');
    await ok(one, 'lab', 'up', '--hosts', '1');
    expect(await status(one)).toEqual(after);
  });

  it('stop, kill and start each of their parts, and nothing comes back by itself', async () => {
    const parts: ['stop' | 'kill', string, string, (lab: Status) => number | null | undefined][] = [
      ['stop', 'h1', 'agent', (s) => s.hosts[0]?.pids['agent']],
      ['kill', 'h1', 'agent', (s) => s.hosts[0]?.pids['agent']],
      ['stop', 'h1', 'dockerd', (s) => s.hosts[0]?.pids['dockerd']],
      ['kill', 'h1', 'ovs', (s) => s.hosts[0]?.pids['ovsVswitchd']],
      ['stop', 'coord1', '', (s) => s.coordinators[0]?.pid],
      ['kill', 'etcd1', '', (s) => s.etcd[0]?.pid],
      ['stop', 'h2', '', (s) => s.hosts[1]?.pids['dockerd']],
      ['kill', 'h2', '', (s) => s.hosts[1]?.pids['dockerd']],
    ];
    for (const [action, target, component, pid] of parts) {
      const words = component === '' ? [target] : [target, component];
      await ok(one, 'lab', action, ...words);
      expect([action, ...words, pid(await status(one))]).toEqual([action, ...words, null]);
      await ok(one, 'lab', 'start', ...words);
      expect([action, ...words, pid(await status(one))]).toEqual([action, ...words, expect.any(Number)]);
    }
    const [a, b] = (await status(one)).hosts.map((host) => host.underlay.ip);
    const reach = async (): Promise<boolean> =>
      (await lab(one, 'lab', 'exec', 'h1', 'ping', '-c', '1', '-W', '1', b ?? '')).code === 0;
    expect(await reach()).toBe(true);
    await ok(one, 'lab', 'stop', 'h2', 'underlay');
    expect(await reach()).toBe(false);
    await ok(one, 'lab', 'start', 'h2', 'underlay');
    await until('the underlay is mended', reach);
    expect(a).not.toBe(b);
    await until('all are connected again', async () => {
      const r = await lab(one, 'host', 'ls', '--json');
      return r.code === 0 && (JSON.parse(r.stdout) as { state: string }[]).every((host) => host.state === 'connected');
    });
  });

  it('leave nothing when they are taken down, also twice, and the lab beside stays', async () => {
    await ok(one, 'lab', 'down');
    expect(await traces(one)).toEqual([]);
    expect((await status(two)).hosts[0]?.pids['agent']).not.toBeNull();
    await ok(one, 'lab', 'down');
    expect((await lab(one, 'lab', 'exec', 'h1', 'true')).code).toBe(125);
    const gone = await lab(one, 'lab', 'status', '--json');
    expect(gone.code).toBe(1);
    expect(JSON.parse(gone.stderr)).toMatchObject({ error: { code: 'FAILED_PRECONDITION' } });
    await ok(two, 'lab', 'down');
    expect(await traces(two)).toEqual([]);
    expect(existsSync(join(home, '.config/weft/context.json'))).toBe(false);
    // This run's own lab was never touched.
    expect((await weftJson<{ hosts: { state: string }[] }>('status')).hosts.map((host) => host.state)).toEqual([
      'connected',
      'connected',
      'connected',
    ]);
    expect((await labStatus()).hosts).toHaveLength(3);
    expect((await weft('version')).code).toBe(0);
    await weftOk('wait');
  });
});
