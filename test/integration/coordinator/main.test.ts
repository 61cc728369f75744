import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, loadPackageDefinition } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import { callUnary, channelCredentials, channelOptions, type Method } from '../../../lib/rpc.ts';
import { issueCoordinator } from '../../../lib/tls.ts';
import { freePorts } from '../../harness/etcd.ts';
import { aHost, aNetwork, Mesh, until } from './support.ts';

const MAIN = new URL('../../../coordinator/main.ts', import.meta.url).pathname;

describe('the daemon', () => {
  let mesh: Mesh;
  let dir: string;
  const children: ChildProcess[] = [];

  beforeAll(async () => {
    mesh = await Mesh.start();
    dir = await mkdtemp(join(tmpdir(), 'weft-coordinator-'));
  });
  afterAll(async () => {
    for (const child of children) child.kill('SIGKILL');
    await mesh?.[Symbol.asyncDispose]();
    await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  });

  /** Starts one and waits until it is ready. */
  async function start(name: string, etcd: string) {
    const own = join(dir, name);
    await mkdir(own, { recursive: true });
    const tls = await issueCoordinator(mesh.ca, name);
    for (const part of ['ca', 'cert', 'key'] as const) await writeFile(join(own, part), tls[part], { mode: 0o600 });
    const [port, metrics] = await freePorts(2);
    const config = `
name: ${name}
listen: ["127.0.0.1:${port}"]
metrics: 127.0.0.1:${metrics}
tls: {ca: ${own}/ca, cert: ${own}/cert, key: ${own}/key}
etcd: ${etcd}
stateDir: ${own}/state
log: {level: info, file: ${own}/log}
`;
    await writeFile(join(own, 'config'), config);
    const child = spawn(process.execPath, [MAIN, '--config', join(own, 'config')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    children.push(child);
    const url = `http://127.0.0.1:${metrics}`;
    await until(
      'ready',
      () =>
        fetch(`${url}/readyz`).then(
          (r) => r.ok,
          () => false,
        ),
      20_000,
    );
    const address = `127.0.0.1:${port}`;
    const client = new Client(address, channelCredentials(mesh.user), channelOptions());
    const call = <Req, Res>(method: Method<Req, Res>, request: Req) =>
      callUnary(client, method, request, { timeoutMs: 20_000 });
    return { child, url, address, call, close: () => client.close() };
  }

  async function exitOf(child: ChildProcess): Promise<number | null> {
    if (child.exitCode === null) await once(child, 'exit');
    return child.exitCode;
  }

  test('serves with an etcd of its own; health, reflection and metrics; stops in good order and keeps its data', async () => {
    const first = await start('single', 'embedded');
    const made = await first.call(ControlService.createNetwork, aNetwork('blue'));
    const text = await (await fetch(`${first.url}/metrics`)).text();
    expect(text).toMatch(/weft_networks\{component="coordinator"\} 1/);
    expect(text).toMatch(/process_resident_memory_bytes/);
    await expectHealthAndReflection(first.address);
    first.child.kill('SIGTERM');
    expect(await exitOf(first.child)).toBe(0);
    first.close();
    const second = await start('single', 'embedded');
    const { networks } = await second.call(ControlService.listNetworks, { project: '' });
    expect(networks).toMatchObject([{ name: 'blue', id: made.id }]);
    second.child.kill('SIGTERM');
    expect(await exitOf(second.child)).toBe(0);
    second.close();
  });

  async function expectHealthAndReflection(address: string): Promise<void> {
    const require = createRequire(import.meta.url);
    const loader = require('@grpc/proto-loader') as {
      loadSync(file: string): Parameters<typeof loadPackageDefinition>[0];
    };
    const load = (file: string) => loadPackageDefinition(loader.loadSync(require.resolve(file))) as never;
    const health = load('grpc-health-check/proto/health/v1/health.proto') as {
      grpc: { health: { v1: { Health: never } } };
    };
    const reflection = load('@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto') as {
      grpc: { reflection: { v1: { ServerReflection: never } } };
    };
    type Anything = new (
      ...args: unknown[]
    ) => Record<string, (...args: unknown[]) => NodeJS.EventEmitter & { write(m: object): void; end(): void }>;
    const dial = (kind: unknown) => new (kind as Anything)(address, channelCredentials(mesh.user), channelOptions());
    const checker = dial(health.grpc.health.v1.Health);
    const status = await new Promise((resolve, reject) => {
      checker['check']?.({ service: 'weft.v1.Control' }, (error: Error | null, answer: unknown) =>
        error ? reject(error) : resolve(answer),
      );
    });
    expect(status).toEqual({ status: 1 });
    const stream = dial(reflection.grpc.reflection.v1.ServerReflection)['serverReflectionInfo']?.();
    stream?.write({ listServices: '' });
    const [answer] = (await once(stream!, 'data')) as [{ listServicesResponse: { service: { name: string }[] } }];
    expect(answer.listServicesResponse.service.map((s) => s.name).sort()).toEqual([
      'weft.v1.Control',
      'weft.v1.Replica',
      'weft.v1.Session',
    ]);
    stream?.end();
  }

  test('a replica that hangs is named, and so are its hosts', async () => {
    const node = await mesh.coordinator('coord1');
    const other = await start('hangs', `{endpoints: ["http://${mesh.etcd.endpoint}"]}`);
    await until('known', () => node.opened.state.coordinators.size === 2);
    const h1 = await mesh.agent(node, aHost(1));
    const h2 = await mesh.agent({ address: other.address } as never, aHost(2));
    await until('seen', () => node.opened.state.presences.size === 2);
    other.child.kill('SIGSTOP');
    const request = {
      revision: undefined,
      network: '',
      project: '',
      timeoutMs: 1000,
      localOnly: false,
      exceptHostIds: [],
    };
    const waiting = mesh.call(node, ControlService.waitApplied, request);
    const [{ hosts }, { hosts: audits }, { coordinators }, waited] = await Promise.all([
      mesh.call(node, ControlService.listHosts, { localOnly: false }),
      mesh.call(node, ControlService.audit, { host: 'h1', noHeal: true, localOnly: false }),
      mesh.call(node, ControlService.getStatus, {}),
      waiting,
    ]);
    // Its lease (5 s) has not ended yet.
    expect(hosts.map((h) => [h.host?.name, h.state])).toEqual([
      ['h1', 'connected'],
      ['h2', 'lagging'],
    ]);
    expect(hosts[1]?.reason).toMatch(/hangs .* cannot be reached/);
    expect(audits).toMatchObject([{ host: 'h1', error: '' }]);
    expect(coordinators.find((c) => c.name === 'hangs')?.state).toMatch(/cannot be reached/);
    expect(waited).toMatchObject({
      applied: false,
      laggards: [{ host: 'h2', reason: expect.stringMatching(/cannot be reached/) }],
    });
    await until('its hosts are down', () => !node.opened.state.presences.has(h2.host.id), 15_000);
    expect(await mesh.call(node, ControlService.waitApplied, request)).toMatchObject({ applied: true });
    other.child.kill('SIGKILL');
    other.close();
    await h1.close();
  });

  test('what is wrong is said, with an exit status', async () => {
    const run = async (...args: string[]): Promise<{ code: number | null; stderr: string }> => {
      const child = spawn(process.execPath, [MAIN, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
      let stderr = '';
      child.stderr.on('data', (chunk: Buffer) => {
        stderr += chunk.toString();
      });
      await once(child, 'close');
      return { code: child.exitCode, stderr };
    };
    expect(await run('--bogus')).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/--bogus.*\nhint: weft coordinator/s),
    });
    expect(await run('--config', '/nonexistent')).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/\/nonexistent/),
    });
  });
});
