/** Hosts as the command line deals with them: drained, without their agent, late, removed. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { docker, endpoints, fails, HOSTS, refused, runs, start } from '../harness/docker-view.ts';
import { addressOf, auditClean, clean, pings, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { labStatus } from '../harness/lab-direct.ts';

const DECIMAL = /^[1-9]\d*$/;
const text = (pattern: RegExp): unknown => expect.stringMatching(pattern);
const stateOf = async (host: string): Promise<string> =>
  (await weftJson<{ state: string }>('host', 'inspect', host)).state;

beforeAll(async () => {
  await weftOk('network', 'create', 'cli-a', '--subnet', '10.91.0.0/24');
  await start('h1', 'cli-one', 'cli-a');
  await endpoints('cli-a', 'h1/cli-one');
});
afterAll(async () => {
  await clean(HOSTS);
  await auditClean();
});

it('a host that drains takes no new endpoints; what runs there goes on', async () => {
  await start('h2', 'cli-stays', 'cli-a', '--ip', '10.91.0.20');
  expect(await weftJson('host', 'drain', 'h2')).toMatchObject({ name: 'h2', draining: true });
  await refused('h2', runs('cli-a'), 125, /host h2 is being drained.*weft host undrain h2/);
  expect(await pings('h1', 'cli-one', '10.91.0.20')).toBe(true);
  await docker('h3', ...runs('cli-a'));
  await docker('h2', ...runs('bridge'));
  expect((await weft('host', 'ls')).stdout).toMatch(/h2 +connected \(draining\)/);
  expect(await weftJson('host', 'undrain', 'h2')).toMatchObject({ draining: false });
  await docker('h2', ...runs('cli-a'));
  await docker('h2', 'rm', '-f', 'cli-stays');
});

it('a host without its agent is not waited for, and cannot be audited: exit 3', async () => {
  await weftOk('lab', 'kill', 'h3', 'agent');
  try {
    await until('h3 is down', async () => (await stateOf('h3')) === 'down');
    const r = await weft('audit', '--json', '--no-heal');
    expect(r.code).toBe(3);
    const { clean: clear, hosts } = JSON.parse(r.stdout) as {
      clean: boolean;
      hosts: { host: string; error: string | null }[];
    };
    expect(clear).toBe(false);
    expect(hosts.filter((h) => h.error !== null)).toEqual([{ host: 'h3', drift: [], error: text(/not connected/) }]);
    expect((await weft('audit', '--host', 'h1')).code).toBe(0);
    const made = await weft('network', 'create', 'cli-two');
    expect(made).toMatchObject({ code: 0, stderr: '' });
    expect((await weft('wait')).code).toBe(0);
    expect((await weft('network', 'rm', 'cli-two')).code).toBe(0);
  } finally {
    await weftOk('lab', 'start', 'h3', 'agent');
  }
  await until('h3 is back', async () => (await stateOf('h3')) === 'connected');
});

it('a host that does not answer is a laggard: named by wait (exit 1), and a warning of what is done', async () => {
  const pid = (await labStatus()).hosts.find((host) => host.name === 'h3')?.pids['agent'];
  if (typeof pid !== 'number') throw new Error('h3 has no agent');
  process.kill(pid, 'SIGSTOP');
  try {
    const made = weft('network', 'create', 'cli-slow', '--json');
    const late = await until('h3 lags', async () => {
      const r = await weft('wait', '--timeout', '1', '--json');
      return r.code === 1 ? r : null;
    });
    expect(JSON.parse(late.stdout)).toMatchObject({
      applied: false,
      laggards: [{ host: 'h3', appliedRevision: text(DECIMAL), reason: text(/./) }],
    });
    expect(late.stderr).toBe('');
    const { code, stdout, stderr } = await made;
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ name: 'cli-slow' });
    // Either it is still held to be connected, and late, or its session has ended by then.
    if (stderr !== '') expect(JSON.parse(stderr)).toMatchObject({ warning: { message: text(/h3/) } });
    await docker('h1', ...runs('cli-slow'));
  } finally {
    process.kill(pid, 'SIGCONT');
  }
  await until('h3 has it', async () => (await weft('wait', '--timeout', '5')).code === 0);
  await docker('h3', ...runs('cli-slow'));
  await weftOk('network', 'rm', 'cli-slow');
});

it('a host is removed only when it is down: what it held is free then, and it may come back', async () => {
  await start('h3', 'cli-lost', 'cli-a');
  const ip = await addressOf('h3', 'cli-lost', 'cli-a');
  await endpoints('cli-a', 'h1/cli-one', 'h3/cli-lost');
  const refusal = await fails(1, 'FAILED_PRECONDITION', 'host', 'rm', 'h3');
  expect(refusal.message).toMatch(/h3 is connected/);
  const { id } = await weftJson<{ id: string }>('host', 'inspect', 'h3');
  await weftOk('lab', 'stop', 'h3', 'agent');
  try {
    await until('h3 is down', async () => (await stateOf('h3')) === 'down');
    expect(await weftJson('host', 'rm', 'h3')).toEqual({ removed: ['h3'] });
    await fails(1, 'NOT_FOUND', 'host', 'inspect', 'h3');
    await endpoints('cli-a', 'h1/cli-one');
    expect((await weft('audit')).code).toBe(0);
  } finally {
    await weftOk('lab', 'start', 'h3', 'agent');
  }
  await until('h3 is back', async () => {
    const r = await weft('host', 'inspect', 'h3', '--json');
    return r.code === 0 && (JSON.parse(r.stdout) as { state: string }).state === 'connected';
  });
  expect(await weftJson('host', 'inspect', 'h3')).toMatchObject({ id });
  // Its container has run all the time, and is known again.
  await endpoints('cli-a', 'h1/cli-one', 'h3/cli-lost');
  await until('it is reached', async () => pings('h1', 'cli-one', ip));
  await docker('h3', 'rm', '-f', 'cli-lost');
  await until('the audit is clean', async () => (await weft('audit', '--no-heal')).code === 0);
});
