import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type OpenedStore, openStore } from '../../../coordinator/store/index.ts';
import { silentLog } from '../../../lib/log.ts';
import { createCa, issueCoordinator } from '../../../lib/tls.ts';
import { TestEtcd } from '../../harness/etcd.ts';
import { aHost, aSpec, until } from './support.ts';

const coordinator = { id: 'one', name: 'coord-one', address: '127.0.0.1:7470', version: '0.1.0' };

describe('an etcd of three members', () => {
  let members: TestEtcd[];
  let one: OpenedStore;

  beforeAll(async () => {
    members = await TestEtcd.startCluster(3);
    const endpoints = members.map((member) => member.endpoint);
    one = await openStore({ endpoints, coordinator, log: silentLog(), idleMs: 1000, verifyMs: 1000 });
  });
  afterAll(async () => {
    await one?.close();
    for (const member of members ?? []) await member[Symbol.asyncDispose]();
  });

  test('the member in use is killed: the next one is asked, the lease lives on', async () => {
    let lost = 0;
    one.lease.onLost(() => lost++);
    await one.store.putHost(aHost('h'));
    await one.store.putPresence('h', 's1');
    const used = one.deps.client.member;
    await members[used]!.signal('SIGKILL');
    const network = await one.store.createNetwork(aSpec('killed'));
    expect(one.state.networks.get(network.id)).toEqual(network);
    expect(one.deps.client.member).not.toBe(used);
    await members[used]!.run();
    // Longer than the lease.
    const end = performance.now() + 6000;
    await until('time has passed', () => performance.now() > end);
    expect(lost).toBe(0);
    expect(one.state.presences.has('h')).toBe(true);
  });

  test('the member in use is frozen: the same, within the deadline', async () => {
    const used = one.deps.client.member;
    await members[used]!.signal('SIGSTOP');
    try {
      const started = performance.now();
      const network = await one.store.createNetwork(aSpec('frozen'));
      expect(performance.now() - started).toBeLessThan(10_000);
      expect(one.state.networks.get(network.id)).toEqual(network);
    } finally {
      await members[used]!.signal('SIGCONT');
    }
    await one.store.createNetwork(aSpec('after'));
    expect(await one.auditor.audit(false)).toEqual([]);
  });
});

test('over TLS, with a certificate of its own', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'weft-etcd-tls-'));
  try {
    const ca = await createCa({ name: 'test' });
    const server = await issueCoordinator(ca, 'etcd', ['127.0.0.1']);
    const client = await issueCoordinator(ca, 'one');
    const files = {
      'ca.pem': ca.cert,
      'srv.pem': server.cert,
      'srv.key': server.key,
      'cl.pem': client.cert,
      'cl.key': client.key,
    };
    for (const [name, pem] of Object.entries(files)) await writeFile(join(dir, name), pem);
    const at = (name: string): string => join(dir, name);
    await using etcd = await TestEtcd.start({
      scheme: 'https',
      args: [
        '--cert-file',
        at('srv.pem'),
        '--key-file',
        at('srv.key'),
        '--client-cert-auth',
        '--trusted-ca-file',
        at('ca.pem'),
      ],
      ctlArgs: ['--cacert', at('ca.pem'), '--cert', at('cl.pem'), '--key', at('cl.key')],
    });
    const tls = { ca: Buffer.from(ca.cert), cert: Buffer.from(client.cert), key: Buffer.from(client.key) };
    const options = { endpoints: [`https://${etcd.endpoint}`], coordinator, log: silentLog() };
    await using one = await openStore({ ...options, tls });
    await one.store.createNetwork(aSpec('safe'));
    await expect(openStore({ ...options, tls: { ca: tls.ca }, deadlineMs: 500 })).rejects.toMatchObject({
      code: 'UNAVAILABLE',
    });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});

test('with passwords: the watch outlives its token', async () => {
  await using etcd = await TestEtcd.start({ args: ['--auth-token-ttl', '2'] });
  for (const args of [
    ['user', 'add', 'root:secret'],
    ['user', 'grant-role', 'root', 'root'],
    ['auth', 'enable'],
  ])
    await etcd.ctl(...args);
  const auth = { username: 'root', password: 'secret' };
  await using one = await openStore({
    endpoints: [etcd.endpoint],
    coordinator,
    log: silentLog(),
    auth,
    idleMs: 300,
    verifyMs: 60_000,
  });
  const end = performance.now() + 4000;
  await until('the token has expired', () => performance.now() > end);
  one.watch.interrupt('test');
  await until('a new stream', () => one.watch.failures > 0);
  await one.store.createNetwork(aSpec('late'));
  expect(one.state.networkByName('default', 'late')).toBeDefined();
});
