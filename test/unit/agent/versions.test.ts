import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { DockerApi } from '../../../agent/docker/api.ts';
import { Versions } from '../../../agent/versions.ts';
import { silentLog } from '../../../lib/log.ts';
import { until } from '../../harness/ovs.ts';

const stops: (() => void | Promise<void>)[] = [];
afterEach(async () => {
  for (const stop of stops.splice(0).toReversed()) await stop();
});

function setup(read: Record<string, () => Promise<string>>) {
  const told: Readonly<Record<string, string>>[] = [];
  const versions = new Versions({ read, changed: (known) => told.push(known), log: silentLog(), retryMs: 5 });
  stops.push(() => versions.close());
  return { told, versions };
}

describe('versions', () => {
  it('are told once they are known, and when they change, each without the others being lost', async () => {
    const now = { docker: '20.10.24', ovs: '3.1.0' };
    const { told, versions } = setup({ docker: async () => now.docker, ovs: async () => now.ovs });
    versions.look('ovs');
    versions.look('docker');
    await until('both are known', () => versions.known['docker'] !== undefined && versions.known['ovs'] !== undefined);
    expect(told.at(-1)).toEqual(now);
    expect(told).toHaveLength(2);
    now.docker = '26.1.5';
    versions.look('docker');
    versions.look('ovs');
    await until('the new one is known', () => versions.known['docker'] === '26.1.5');
    expect(told.slice(2)).toEqual([{ docker: '26.1.5', ovs: '3.1.0' }]);
  });

  it('are asked for until they are known, and what was known stays while nobody answers', async () => {
    let asked = 0;
    const answers = ['3.1.0', '', null, null, '3.5.0'];
    const { told, versions } = setup({
      ovs: async () => {
        const answer = answers[Math.min(asked++, answers.length - 1)];
        if (answer === null || answer === undefined) throw new Error('nobody there');
        return answer;
      },
    });
    versions.look('ovs');
    await until('it is known', () => told.length === 1);
    versions.look('ovs');
    await until('it is known again', () => told.length === 2);
    expect(told).toEqual([{ ovs: '3.1.0' }, { ovs: '3.5.0' }]);
    expect(asked).toBe(5);
  });

  it('that are being read when the connection comes up are read once more', async () => {
    const first = Promise.withResolvers<string>();
    let asked = 0;
    const { told, versions } = setup({ docker: () => (asked++ === 0 ? first.promise : Promise.resolve('26.1.5')) });
    versions.look('docker');
    versions.look('docker');
    versions.look('docker');
    first.resolve('20.10.24');
    await until('both have been told', () => told.length === 2);
    expect(told.map((known) => known['docker'])).toEqual(['20.10.24', '26.1.5']);
    expect(asked).toBe(2);
  });

  it('are not told after the end', async () => {
    const answer = Promise.withResolvers<string>();
    const { told, versions } = setup({ docker: () => answer.promise });
    versions.look('docker');
    versions.close();
    answer.resolve('26.1.5');
    await answer.promise;
    await new Promise((resolve) => setImmediate(resolve));
    expect(told).toEqual([]);
  });

  it('of dockerd: it fails at first, and is another one after its event stream broke', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'weft-versions-'));
    stops.push(() => rm(dir, { recursive: true }));
    const socketPath = join(dir, 'docker.sock');
    let failures = 2;
    const dockerd = async (Version: string): Promise<Server> => {
      const server = createServer((request, response) => {
        if (request.url?.includes('/events') === true) response.writeHead(200).flushHeaders();
        else if (failures-- > 0) response.writeHead(503).end('{"message":"starting"}');
        else response.writeHead(200).end(JSON.stringify({ Version, ApiVersion: '1.41' }));
      });
      server.listen(socketPath);
      await once(server, 'listening');
      return server;
    };
    const stop = async (server: Server): Promise<void> => {
      const closed = once(server, 'close');
      server.close();
      server.closeAllConnections();
      await closed;
    };
    const older = await dockerd('20.10.24');
    const api = new DockerApi({ socketPath, log: silentLog() });
    const { told, versions } = setup({ docker: async () => (await api.version()).version });
    const abort = new AbortController();
    const connected = (): void => versions.look('docker');
    const events = api.events({ event: () => undefined, connected }, abort.signal);
    await until('it is known', () => told.length === 1);
    await stop(older);
    const newer = await dockerd('26.1.5');
    await until('the new one is known', () => told.length === 2);
    expect(told).toEqual([{ docker: '20.10.24' }, { docker: '26.1.5' }]);
    abort.abort();
    api.close();
    await events;
    await stop(newer);
  });
});
