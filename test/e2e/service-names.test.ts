/** Names of services, asked for in containers, by Docker's resolver. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { addressOf, auditClean, clean, onOk, sleeper, until, weftOk } from '../harness/lab.ts';
import { find, lookup } from '../harness/lookup.ts';

const HOSTS = ['h1', 'h2', 'h3'];
const NETWORK = 'sn-web';
const NEAR = 'sn-near';
const APP = ['--label', 'app=api'];
let ips: string[] = [];

/** Waits until a container of h3 that is not behind any service finds exactly these. */
const finds = (name: string, wanted: readonly string[]): Promise<unknown> =>
  until(
    `${name} leads to ${wanted.join(', ') || 'nobody'}`,
    async () => JSON.stringify(await find('h3', 'sn-ask', name)) === JSON.stringify(wanted.toSorted()),
    10_000,
  );

beforeAll(async () => {
  await weftOk('network', 'create', NETWORK);
  await weftOk('network', 'create', NEAR, '--dns-order', 'nearest');
  await weftOk('wait');
  await Promise.all([
    ...HOSTS.map((host) => sleeper(host, `sn-${host}`, NETWORK, ...APP)),
    sleeper('h3', 'sn-ask', NETWORK),
    ...HOSTS.map((host) => sleeper(host, `sn-near-${host}`, NEAR, ...APP)),
    ...HOSTS.map((host) => sleeper(host, `sn-ask-${host}`, NEAR)),
  ]);
  ips = await Promise.all(HOSTS.map((host) => addressOf(host, `sn-${host}`, NETWORK)));
});

afterAll(async () => {
  await weftOk('service', 'rm', 'near', '--network', NEAR);
  await clean(HOSTS);
  await auditClean();
});

it('a service leads to its virtual address, and back', async () => {
  const made = ['--network', NETWORK, '--selector', 'app=api', '--port', 'http=80:8080', '--health', 'none'];
  await weftOk('service', 'create', 'shop', ...made);
  const { ips: given } = JSON.parse(await weftOk('service', 'inspect', 'shop', '--network', NETWORK, '--json')) as {
    ips: string[];
  };
  expect(given).toHaveLength(1);
  for (const name of ['shop', `shop.${NETWORK}`, `SHOP.${NETWORK}.weft`]) await finds(name, given);
  const back = await lookup('h3', 'sn-ask', given[0] ?? '');
  expect([...back.matchAll(/name = (\S+)$/gm)].map((m) => m[1])).toEqual([`shop.${NETWORK}`, `shop.${NETWORK}.weft`]);
  expect(await lookup('h3', 'sn-ask', '-type=srv', '_http._tcp.shop')).toMatch(
    new RegExp(`_http\\._tcp\\.shop\\s+service = 0 1 80 shop\\.${NETWORK}$`, 'm'),
  );
  await weftOk('service', 'rm', 'shop', '--network', NETWORK);
  await finds(`shop.${NETWORK}.weft`, []);
});

it('a headless one leads to those that answer, on whatever host', async () => {
  const made = ['--network', NETWORK, '--selector', 'app=api', '--port', 'http=80:8080', '--headless'];
  await weftOk('service', 'create', 'api', ...made, '--health', 'none');
  await finds('api', ips);
  const srv = await lookup('h3', 'sn-ask', '-type=srv', `_http._tcp.api.${NETWORK}.weft`);
  expect([...srv.matchAll(/service = 0 1 8080 (\S+)$/gm)].map((m) => m[1] ?? '').toSorted()).toEqual(
    HOSTS.map((host) => `sn-${host}.${NETWORK}`),
  );
  await weftOk('endpoint', 'set', 'h2/sn-h2', '--drain');
  await finds('api', [ips[0] ?? '', ips[2] ?? '']);
  await weftOk('service', 'rm', 'api', '--network', NETWORK);
  await finds(`api.${NETWORK}.weft`, []);
});

it('whose health is asked for leads to the healthy', async () => {
  const made = ['--network', NETWORK, '--selector', 'app=api', '--port', '8080', '--headless', '--health', 'tcp'];
  await weftOk('service', 'create', 'sick', ...made);
  await finds('sick', []);
  await Promise.all(
    ['h1', 'h3'].map((host) =>
      onOk(host, 'docker', 'exec', '-d', `sn-${host}`, 'sh', '-c', 'while :; do nc -l -p 8080 </dev/null; done'),
    ),
  );
  await finds('sick', [ips[0] ?? '', ips[2] ?? '']);
  await weftOk('service', 'rm', 'sick', '--network', NETWORK);
});

it('is answered with the asker’s own host first, where its network says so', async () => {
  const made = ['--network', NEAR, '--selector', 'app=api', '--headless', '--health', 'none'];
  await weftOk('service', 'create', 'near', ...made);
  for (const host of HOSTS) {
    const own = await addressOf(host, `sn-near-${host}`, NEAR);
    const told = async (): Promise<string[]> =>
      [...(await lookup(host, `sn-ask-${host}`, `near.${NEAR}.weft`)).matchAll(/^Address: (\S+)$/gm)].map(
        (m) => m[1] ?? '',
      );
    await until(`all are found on ${host}`, async () => (await told()).length === HOSTS.length, 10_000);
    for (let i = 0; i < 5; i++) expect((await told())[0]).toBe(own);
  }
});
