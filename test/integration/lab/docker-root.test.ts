import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { act, findTarget } from '../../../cli/lab/components.ts';
import { checkDockerRoot } from '../../../cli/lab/docker-root.ts';
import { down } from '../../../cli/lab/down.ts';
import { nodePaths } from '../../../cli/lab/paths.ts';
import { processes } from '../../../cli/lab/procs.ts';
import { status } from '../../../cli/lab/status.ts';
import { up } from '../../../cli/lab/up.ts';

// The root is the machine's own: what is tested is the way in and out, whichever Debian is below.
const LAB = `dr${process.pid}`;
const WEFT = fileURLToPath(new URL('../../../bin/weft', import.meta.url));
const home = mkdtempSync(`${tmpdir()}/weft-lab-test-`);
const realHome = process.env['HOME'];
const wanted = { hosts: 0, bare: 1, coordinators: 0, etcdMembers: 1 };
const node = nodePaths(LAB, 'h1');

const on = async (...command: string[]): Promise<string> =>
  (await promisify(execFile)(WEFT, ['lab', 'exec', '--name', LAB, 'h1', ...command])).stdout.trim();
const mounts = (pid: number | string): string => readlinkSync(`/proc/${pid}/ns/mnt`);
const anchor = (): string => readFileSync(node.anchorPid, 'utf8').trim();
const dockerd = async (): Promise<number> => (await status(LAB)).hosts[0]?.pids.dockerd ?? 0;
const doIt = (action: 'start' | 'stop' | 'kill', component?: string): Promise<void> =>
  act(action, findTarget(LAB, 'h1', component));
const leftovers = (): string[] => [
  ...readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .filter((line) => line.includes(LAB)),
  ...processes()
    .filter((proc) => proc.pid !== process.pid && proc.argv.some((word) => word.includes(LAB)))
    .map((proc) => proc.argv.join(' ')),
  ...[node.run, node.state, node.netnsFile].filter((path) => existsSync(path)),
];

beforeAll(async () => {
  process.env['HOME'] = home;
  await up(LAB, { ...wanted, dockerRoot: '/' }, () => {});
});
afterAll(async () => {
  await down(LAB);
  process.env['HOME'] = realHome;
  rmSync(home, { recursive: true, force: true });
});

it('refuses a directory without Docker', () => {
  expect(() => checkDockerRoot(home)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  expect(() => checkDockerRoot('/')).not.toThrow();
});

it('runs dockerd in a root of its own, which sees the host and is seen by it', async () => {
  const pid = await dockerd();
  expect(mounts(pid)).not.toBe(mounts(anchor()));
  expect(readFileSync(`/proc/${pid}/mountinfo`, 'utf8')).toMatch(/ \/ \/ [^\n]* tmpfs /);
  expect(readFileSync(`/proc/${pid}/mountinfo`, 'utf8')).not.toContain('/.old');
  const id = await on('docker', 'run', '-d', '--name', 'stays', '-v', `${home}:/seen`, 'weft/lab:1', 'sleep', '1000');
  const sandbox = await on('docker', 'inspect', '-f', '{{.NetworkSettings.SandboxKey}}', id);
  // The namespace is a mount that dockerd made: the agent enters it by this path.
  expect(await on('nsenter', `--net=${sandbox}`, 'cat', '/sys/class/net/lo/operstate')).toBe('unknown');
  expect(await on('docker', 'exec', 'stays', 'ls', '-d', '/seen')).toBe('/seen');
});

it('keeps containers and their mounts while dockerd goes and comes', async () => {
  const before = mounts(await dockerd());
  for (const action of ['kill', 'stop'] as const) {
    await doIt(action, 'dockerd');
    await doIt('start', 'dockerd');
    expect(mounts(await dockerd())).toBe(before);
    expect(await on('docker', 'exec', 'stays', 'echo', 'here')).toBe('here');
  }
  expect(await on('docker', 'restart', '-t', '0', 'stays')).toBe('stays');
});

it('is remembered by the lab, and made up again after a power cut', async () => {
  await doIt('kill');
  expect(leftovers().filter((line) => line.includes(`${LAB} h1`) || line.includes('docker-root'))).toEqual([]);
  await up(LAB, wanted, () => {});
  expect(mounts(await dockerd())).not.toBe(mounts(anchor()));
  expect(await on('docker', 'start', 'stays')).toBe('stays');
  await expect(up(LAB, { ...wanted, dockerRoot: '/usr/..' }, () => {})).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
  });
});

it('leaves nothing behind', async () => {
  await down(LAB);
  await expect.poll(leftovers).toEqual([]); // the lock’s holder ends a moment later
});
