/** Policies over real hosts: who may call whom, from everywhere, by packets; and what becomes of connections when rules come and go. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { agentMetrics, metricOf } from '../harness/drift.ts';
import {
  auditClean,
  clean,
  docker,
  on,
  onOk,
  pings,
  run,
  sleeper,
  until,
  WEFT,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';
import { labStatus } from '../harness/lab-direct.ts';
import { answerers, Backend, calls, Held } from '../harness/service.ts';
import { Stranger } from '../harness/stranger.ts';
import { atStranger, inContainer, Server, whoAmI } from '../harness/whoami.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NET = 'po';
const PORT = 9042;
const [OPEN] = [8080];

const servers: Backend[] = [];
const ips = new Map<string, string[]>();
const four = (name: string): string => ips.get(name)?.find((ip) => !ip.includes(':')) ?? '';

interface Told {
  readonly type: string;
  readonly action: string | null;
  readonly object: string | null;
  readonly message: string | null;
}

interface Shown {
  readonly ips: string[];
  readonly container: { readonly name: string } | null;
}

const apply = async (text: string): Promise<void> => {
  const r = await run(WEFT, ['policy', 'apply', '-f', '-'], { input: text });
  if (r.code !== 0) throw new Error(`policy apply: ${r.stdout}${r.stderr}`);
};
const remove = (...names: string[]): Promise<string> => weftOk('policy', 'rm', ...names, '--network', NET);

/** True: a connection is answered. In each family. */
async function reaches(
  host: string,
  from: string,
  to: string,
  port = PORT,
  protocol: 'tcp' | 'udp' = 'tcp',
): Promise<boolean[]> {
  return Promise.all(
    (ips.get(to) ?? []).map(async (ip) => answerers(await calls(host, from, { protocol, ip, port }, 1))[0] === to),
  );
}
const YES = [true, true];
const NO = [false, false];

/** Only callers of the database's own application, and only to its port. */
const ALLOW_WEB = `
name: db
network: ${NET}
select: { app: db }
ingress:
  - action: allow
    from: [{ labels: { app: web } }]
    ports: ["${PORT}/tcp"]
  - action: drop
`;

beforeAll(async () => {
  await weftOk('network', 'create', NET, '--ipv6');
  await Promise.all([
    sleeper('h1', 'db-1', NET, '--label', 'app=db'),
    sleeper('h2', 'db-2', NET, '--label', 'app=db'),
    sleeper('h1', 'web-1', NET, '--label', 'app=web'),
    sleeper('h2', 'web-2', NET, '--label', 'app=web'),
    sleeper('h3', 'web-3', NET, '--label', 'app=web', '--label', 'zone=far'),
    sleeper('h1', 'other-1', NET, '--label', 'app=other'),
    sleeper('h3', 'other-3', NET),
  ]);
  for (const [host, name] of [
    ['h1', 'db-1'],
    ['h2', 'db-2'],
    ['h3', 'other-3'],
  ] as const)
    for (const port of [PORT, OPEN]) servers.push(await Backend.open(host, name, port!));
  for (const e of await weftJson<Shown[]>('endpoint', 'ls', '--network', NET)) ips.set(e.container?.name ?? '', e.ips);
  await weftOk('wait');
});

afterAll(async () => {
  for (const server of servers) await server[Symbol.asyncDispose]();
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

describe('a policy', () => {
  it('lets in whom it names, from every host, and nobody else', async () => {
    expect(await reaches('h3', 'other-3', 'db-1')).toEqual(YES);
    await apply(ALLOW_WEB);
    for (const db of ['db-1', 'db-2']) {
      for (const [host, web] of [
        ['h1', 'web-1'],
        ['h2', 'web-2'],
        ['h3', 'web-3'],
      ] as const) {
        expect(await reaches(host, web, db), `${web} to ${db}`).toEqual(YES);
        expect(await reaches(host, web, db, OPEN), `${web} to another port of ${db}`).toEqual(NO);
        expect(await reaches(host, web, db, PORT, 'udp'), `${web} to ${db} by UDP`).toEqual(NO);
      }
      expect(await reaches('h1', 'other-1', db), `other-1 to ${db}`).toEqual(NO);
      expect(await reaches('h3', 'other-3', db), `other-3 to ${db}`).toEqual(NO);
      expect(await pings('h3', 'other-3', four(db))).toBe(false);
    }
    // Whom it does not select is as free as before, and the database itself calls whom it likes.
    expect(await reaches('h1', 'other-1', 'other-3', OPEN)).toEqual(YES);
    expect(await reaches('h1', 'db-1', 'other-3', OPEN)).toEqual(YES);
    await auditClean();
  });

  it('is about a container from its start', async () => {
    await docker(
      'h3',
      'run',
      '-d',
      '--name',
      'web-new',
      '--network',
      NET,
      '--label',
      'app=web',
      'weft/lab:1',
      'sleep',
      '100000',
    );
    await until('the new one is let in', async () => (await reaches('h3', 'web-new', 'db-1')).every(Boolean));
    await docker('h3', 'run', '-d', '--name', 'other-new', '--network', NET, 'weft/lab:1', 'sleep', '100000');
    await weftOk('wait');
    expect(await reaches('h3', 'other-new', 'db-1')).toEqual(NO);
    await docker('h3', 'rm', '-f', 'web-new', 'other-new');
  });

  it('that goes takes the connections along that it alone allowed, and no others', async () => {
    await apply(`
name: far
network: ${NET}
order: 50
select: { app: db }
ingress: [{ action: allow, from: [{ labels: { zone: far } }], ports: ["${PORT}/tcp"] }]
`);
    await using near = await Held.open('h2', 'web-2', four('db-1'), PORT);
    await using far = await Held.open('h3', 'web-3', four('db-1'), PORT);
    expect([await near.ask(), await far.ask()]).toEqual(['db-1', 'db-1']);
    await apply(`
name: db
network: ${NET}
select: { app: db }
ingress: [{ action: drop }]
`);
    expect(await far.ask()).toBe('db-1');
    const answered = await Promise.race([
      near.ask(),
      new Promise<string>((resolve) => setTimeout(() => resolve('silence'), 2_000)),
    ]);
    expect(answered).not.toBe('db-1');
    expect(await reaches('h3', 'web-3', 'db-1')).toEqual(YES);
    await remove('far');
    expect(await reaches('h3', 'web-3', 'db-1')).toEqual(NO);
  });

  it('that rejects says so at once', async () => {
    await apply(`
name: db
network: ${NET}
select: { app: db }
ingress: [{ action: reject }]
`);
    for (const [host, name] of [
      ['h1', 'other-1'],
      ['h3', 'other-3'],
    ] as const) {
      const began = Date.now();
      const r = await on(host, 'docker', 'exec', name, 'nc', '-w', '5', four('db-1'), String(PORT));
      expect([r.code === 0, Date.now() - began < 4_000], `${name}: ${r.stderr}`).toEqual([false, true]);
      const ping = await on(host, 'docker', 'exec', name, 'ping', '-c', '1', '-W', '3', four('db-1'));
      expect(ping.stdout, name).toMatch(/prohibited|filtered|Communication/i);
    }
  });

  it('may be about what a container sends', async () => {
    await remove('db');
    await apply(`
name: fence
network: ${NET}
tier: platform
select: { app: other }
egress:
  - action: allow
    to: [{ cidr: ${four('db-2')}/32 }]
    ports: ["${PORT}/tcp"]
  - action: drop
`);
    expect((await reaches('h1', 'other-1', 'db-2'))[0]).toBe(true);
    expect((await reaches('h1', 'other-1', 'db-1'))[0]).toBe(false);
    expect((await reaches('h1', 'other-1', 'other-3', OPEN))[0]).toBe(false);
    expect(await reaches('h1', 'web-1', 'db-1')).toEqual(YES);
    // Who is called by it answers, and it answers who calls.
    expect((await pings('h1', 'web-1', four('other-1'))) && (await pings('h3', 'other-3', four('other-1')))).toBe(true);
    await remove('fence');
    expect(await reaches('h1', 'other-1', 'db-1')).toEqual(YES);
  });

  it('is mended where somebody changes its flows', async () => {
    await apply(ALLOW_WEB);
    await onOk('h1', 'ovs-ofctl', '-O', 'OpenFlow14', 'del-flows', 'br-weft', 'table=32');
    await until('flows are there again', async () => (await weft('audit', '--no-heal')).code === 0);
    expect(await reaches('h3', 'other-3', 'db-1')).toEqual(NO);
    expect(await reaches('h3', 'web-3', 'db-1')).toEqual(YES);
    await remove('db');
  });
});

describe('a staged policy', () => {
  it('stops nobody, and says whom it would have stopped', async () => {
    await apply(`${ALLOW_WEB}staged: true\n`);
    const counted = async (host: string): Promise<number> =>
      metricOf(await agentMetrics(host), 'weft_policy_staged_total', { network: NET, policy: 'db', rule: '2' });
    const before = await counted('h1');
    expect(await reaches('h3', 'other-3', 'db-1')).toEqual(YES);
    expect(await reaches('h3', 'web-3', 'db-1')).toEqual(YES);
    // One connection in each family; a first packet that is sent again counts again, and the switch says so a moment later.
    await until('both are counted', async () => (await counted('h1')) - before >= 2);
    expect(await counted('h2')).toBe(0);
    const explained = await weftOk('policy', 'explain', 'other-3', 'db-1', `${PORT}/tcp`, '--network', NET);
    expect(explained).toContain('staged: would drop, policy db, ingress rule 2 (application, order 100)');
    await until('it is told of', async () =>
      (await weftOk('events', '--json'))
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as Told)
        .some(
          (e) =>
            e.type === 'policy' &&
            e.action === 'staged' &&
            e.object === `${NET}/db` &&
            e.message?.startsWith(`ingress rule 2 would drop tcp ${four('other-3')}:`) &&
            e.message.endsWith(`→ ${four('db-1')}:${PORT}; in force: allow`),
        ),
    );
    await auditClean();
    // In force, the same says no; a staged one that would let them in changes nothing.
    await apply(ALLOW_WEB);
    await apply(`
name: soon
network: ${NET}
order: 10
select: { app: db }
ingress: [{ action: allow }]
staged: true
`);
    expect(await reaches('h3', 'other-3', 'db-1')).toEqual(NO);
    await until(
      'the staged one is counted',
      async () =>
        metricOf(await agentMetrics('h1'), 'weft_policy_staged_total', { policy: 'soon', direction: 'ingress' }) > 0,
    );
    await remove('db', 'soon');
    await auditClean();
  });
});

describe('who comes in from outside', () => {
  it('is judged by his address, at a published port and at a port that leads to a service, by whatever host', async () => {
    const lab = await labStatus();
    const at = (host: string): string => lab.hosts.find((h) => h.name === host)?.underlay.ip ?? '';
    await using outside = await Stranger.open(lab);
    const asks = (host: string, port: number): Promise<string | null> =>
      whoAmI(atStranger(outside), 'tcp', at(host), port);
    await sleeper('h1', 'front-1', NET, '--label', 'app=front', '-p', '8301:7000');
    await sleeper('h2', 'front-2', NET, '--label', 'app=front');
    await using _one = await Server.open(await inContainer('h1', 'front-1'), 7000);
    await using _two = await Server.open(await inContainer('h2', 'front-2'), 7000);
    await weftOk(
      'service',
      'create',
      'front',
      '--network',
      NET,
      '--selector',
      'app=front',
      '--port',
      '80:7000',
      '--publish',
      '8300:80',
    );
    await weftOk('wait');
    const everywhere = async (): Promise<(string | null)[]> => {
      const all: (string | null)[] = [await asks('h1', 8301)];
      // Often enough that both are chosen.
      for (const host of HOSTS) for (let i = 0; i < 4; i++) all.push(await asks(host, 8300));
      return all;
    };
    await until('it is let in', async () => (await everywhere()).every((saw) => saw === outside.ip));
    const only = (from: string): string => `
name: front
network: ${NET}
select: { app: front }
ingress:
  - { action: allow, from: [{ cidr: ${from}/32 }], ports: ["7000/tcp"] }
  - { action: drop }
`;
    await apply(only(outside.ip));
    expect(new Set(await everywhere())).toEqual(new Set([outside.ip]));
    await apply(only('192.0.2.250'));
    expect(new Set([await asks('h1', 8301), await asks('h2', 8300), await asks('h3', 8300)])).toEqual(new Set([null]));
    // The host's own question, whether they answer, is none that a policy is about.
    expect(
      (await weftJson<{ backends: { state: string }[] }>('service', 'inspect', 'front')).backends.map((b) => b.state),
    ).toEqual(['healthy', 'healthy']);
    await remove('front');
    expect(await asks('h1', 8301)).toBe(outside.ip);
    await weftOk('service', 'rm', 'front', '--network', NET);
    await docker('h1', 'rm', '-f', 'front-1');
    await docker('h2', 'rm', '-f', 'front-2');
  });
});

describe('a network that drops by default', () => {
  it('lets nothing pass but what is allowed, and names are found all the same', async () => {
    await weftOk('network', 'set', NET, '--policy-default', 'drop');
    expect(await reaches('h1', 'other-1', 'db-1')).toEqual(NO);
    expect(await reaches('h2', 'web-2', 'db-1')).toEqual(NO);
    expect(await docker('h1', 'exec', 'other-1', 'nslookup', 'db-2')).toContain(four('db-2'));
    await apply(`
policies:
  - name: web
    network: ${NET}
    select: { app: web }
    egress: [{ action: allow, to: [{ labels: { app: db } }] }]
  - name: db
    network: ${NET}
    select: { app: db }
    ingress: [{ action: allow, from: [{ labels: { app: web } }] }]
`);
    for (const [host, web] of [
      ['h1', 'web-1'],
      ['h3', 'web-3'],
    ] as const)
      for (const db of ['db-1', 'db-2']) expect(await reaches(host, web, db), `${web} to ${db}`).toEqual(YES);
    expect(await reaches('h1', 'other-1', 'db-1')).toEqual(NO);
    expect(await reaches('h1', 'db-1', 'other-3', OPEN)).toEqual(NO);
    await auditClean();
    await weftOk('network', 'set', NET, '--policy-default', 'allow');
    await remove('web', 'db');
    expect(await reaches('h1', 'other-1', 'db-1')).toEqual(YES);
    await auditClean();
  });
});
