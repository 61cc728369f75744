import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { IMAGE, TestDockerd } from '../../harness/dockerd.ts';
import { until } from '../../harness/ovs.ts';

const SCRIPT = fileURLToPath(new URL('../../harness/docker-agent-process.ts', import.meta.url));
/** What systemd does: listens, and hands the socket over as descriptor 3 to whom it starts; here, once DIR/go exists. */
const ACTIVATE = `
  use Socket;
  my ($path, $go, @command) = @ARGV;
  $^F = 10; # descriptors up to 10 survive exec
  socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die $!;
  bind($s, sockaddr_un($path)) && listen($s, 128) or die $!;
  select(undef, undef, undef, 0.02) until -e $go;
  if (fileno($s) != 3) { require POSIX; POSIX::dup2(fileno($s), 3) or die $!; }
  ($ENV{LISTEN_PID}, $ENV{LISTEN_FDS}) = ($$, 1);
  exec @command or die $!;`;

let host: TestDockerd;
let agent: ChildProcess | null = null;
const docker = (...args: string[]) => host.docker(...args);
const file = (name: string) => join(host.dir, name);
const links = async () => (await host.enter('ip', '-br', 'link')).split('\n');
const journal = () => readFileSync(file('journal'), 'utf8');

async function start(activated = false): Promise<void> {
  rmSync(file('ready'), { force: true });
  const plugin = join(host.plugins, 'weft.sock');
  const command = [process.execPath, SCRIPT, host.dir, host.netns, host.socket, plugin];
  const activate = activated ? ['perl', '-e', ACTIVATE, plugin, file('go')] : [];
  const out = openSync(file('agent.out'), 'a');
  agent = spawn('nsenter', [...host.enterArgs, ...activate, ...command], { stdio: ['ignore', out, out] });
  closeSync(out);
  await until('the agent', () => (activated ? existsSync(plugin) : existsSync(file('ready'))), 20_000);
}

async function stop(signal: NodeJS.Signals): Promise<void> {
  const process_ = agent;
  agent = null;
  if (process_ === null || process_.exitCode !== null) return;
  const exited = new Promise((resolve) => process_.once('exit', resolve));
  process_.kill(signal);
  await exited;
}

beforeAll(async () => {
  host = await TestDockerd.create('crash');
  await start();
  await until('the copy', async () => (await docker('network', 'inspect', 'net')).code === 0);
});
afterAll(async () => {
  await host?.removeContainers();
  await stop('SIGTERM');
  await host?.[Symbol.asyncDispose]();
});

test('killed in the middle of CreateEndpoint: the start fails with a sentence, and nothing stays behind', async () => {
  writeFileSync(file('hold'), '');
  const ran = docker('run', '--name', 'one', '-d', '--network', 'net', IMAGE, 'sleep', '1000');
  await until('CreateEndpoint', () => existsSync(file('held')));
  await stop('SIGKILL');
  rmSync(file('hold'));
  rmSync(file('held'));
  await start();
  const failed = await ran; // dockerd asks again, but with an empty body
  expect(failed.stderr).toContain('dockerd has repeated a call without its content');
  await until('its endpoint is gone', async () => (await links()).every((link) => !link.startsWith('wp')), 12_000);
  expect(await docker('start', 'one')).toMatchObject({ code: 0, stderr: '' });
  await until('identity and interface', () => journal().includes('"interfaceName":"eth0"'));
  expect(await docker('rm', '-f', 'one')).toMatchObject({ code: 0, stderr: '' });
});

test('killed between CreateNetwork and the binding of its name: bound by the next agent', async () => {
  writeFileSync(file('hold'), '');
  const created = await docker('network', 'create', '-d', 'weft', '--ipam-driver', 'weft', 'late');
  expect(created).toMatchObject({ code: 0, stderr: '' });
  await until('bindNetwork', () => existsSync(file('held')));
  await stop('SIGKILL');
  rmSync(file('hold'));
  rmSync(file('held'));
  await start(); // whose mesh has forgotten the reservation, too
  await until('made again as a copy', async () => {
    // Between the one and the other there is none: docker prints an empty line then.
    const { code, stdout } = await docker('network', 'inspect', '-f', '{{.Id}}', 'late');
    return code === 0 && stdout !== created.stdout;
  });
  expect(await docker('run', '--rm', '--network', 'late', IMAGE, 'true')).toMatchObject({ code: 0, stderr: '' });
});

test('with the socket held for the agent, Docker waits until it is there', async () => {
  await stop('SIGTERM');
  await start(true);
  const ran = docker('run', '--rm', '--network', 'net', IMAGE, 'true');
  await expect(Promise.race([ran, delay(1_500).then(() => 'waits')])).resolves.toBe('waits');
  writeFileSync(file('go'), '');
  expect(await ran).toMatchObject({ code: 0, stderr: '' });
  await stop('SIGTERM');
  expect(existsSync(join(host.plugins, 'weft.sock'))).toBe(true); // not the agent's to remove
});
