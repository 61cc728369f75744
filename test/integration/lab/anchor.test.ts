import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { startAgentProcess, startAnchor, startInHost } from '../../../cli/lab/anchor.ts';
import { labPaths, nodePaths } from '../../../cli/lab/paths.ts';
import { powerOff } from '../../../cli/lab/power.ts';
import { alive, waitGone } from '../../../cli/lab/procs.ts';
import { until } from '../../../cli/lab/run.ts';

// A stand-in for the agent: takes the listening socket as systemd passes it, and says who it is to everyone who connects.
const AGENT = `
const net = require('node:net');
if (process.env.LISTEN_FDS !== '1' || process.env.LISTEN_PID !== String(process.pid)) process.exit(3);
net.createServer((socket) => socket.end(String(process.pid))).listen({ fd: 3 });
`;
const LAB = `an${process.pid}`;
const dir = mkdtempSync(`${tmpdir()}/weft-anchor-`);
const node = { ...nodePaths(LAB, 'h1'), state: dir, log: dir };
const socket = `${node.hostRun}/docker/plugins/weft.sock`;

/** What the agent behind the socket says; waits for one as long as it takes. */
const ask = (): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = '';
    createConnection(socket)
      .on('data', (part) => {
        text += String(part);
      })
      .on('error', reject)
      .on('close', () => resolve(text));
  });

beforeAll(async () => {
  writeFileSync(`${dir}/agent.cjs`, AGENT);
  await promisify(execFile)('ip', ['netns', 'add', node.netns]);
  await startAnchor(LAB, node, [`${dir}/agent.out`, process.execPath, `${dir}/agent.cjs`]);
});
afterAll(async () => {
  await powerOff(labPaths(LAB), 'h1');
  rmSync(labPaths(LAB).run, { recursive: true, force: true });
  rmSync(dir, { recursive: true, force: true });
});

it('keeps the plugin socket while agents come and go', async () => {
  const early = ask(); // nobody accepts yet
  const first = await startAgentProcess(node);
  expect(await early).toBe(String(first));
  expect(await startAgentProcess(node)).toBe(first);
  process.kill(first, 'SIGKILL');
  await waitGone([first], 'the agent has ended', 5000);
  const waiting = ask();
  const second = await startAgentProcess(node);
  expect(second).not.toBe(first);
  expect(await waiting).toBe(String(second));
});

it('collects what dies in the host, also when its parent is gone', async () => {
  const file = `${dir}/orphan`;
  await startInHost(node, `${dir}/out`, ['sh', '-c', `sleep 1000 & echo $! > ${file}`]);
  const orphan = await until('the orphan', () => existsSync(file) && Number(readFileSync(file, 'utf8')), {
    deadline: 5000,
  });
  expect(alive(orphan)).toBe(true);
  process.kill(orphan, 'SIGKILL');
  await until('not even a zombie', () => !existsSync(`/proc/${orphan}`), { deadline: 500 });
});

it('says what it cannot do', async () => {
  await expect(startInHost(node, `${dir}/out`, [])).rejects.toMatchObject({ code: 'INTERNAL' });
});
