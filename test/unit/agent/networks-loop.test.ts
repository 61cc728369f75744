import { afterEach, expect, test, vi } from 'vitest';
import { DockerApi, type DockerNetwork, type NetworkSpec } from '../../../agent/docker/api.ts';
import { Copies } from '../../../agent/docker/copies.ts';
import { NetworkDriver } from '../../../agent/docker/driver.ts';
import { NetworksLoop } from '../../../agent/docker/networks-loop.ts';
import { WeftError } from '../../../lib/errors.ts';
import { silentLog } from '../../../lib/log.ts';
import type { Drift } from '../../../lib/model.ts';
import { FakeWorld } from '../../harness/fake-mesh.ts';
import { FakeClock, MemoryJournal } from '../../harness/memory-journal.ts';

/** A dockerd of networks only. */
class FakeApi extends DockerApi {
  listed: DockerNetwork[] = [];
  readonly made: string[] = [];
  override networks(): Promise<DockerNetwork[]> {
    return Promise.resolve(this.listed);
  }
  override createNetwork(spec: NetworkSpec): Promise<string> {
    this.made.push(spec.name);
    const [four, six] = spec.pools;
    const shown = {
      subnet: four?.subnet ?? '',
      subnet6: six?.subnet ?? '',
      gateway: four?.gateway ?? '',
      gateway6: six?.gateway ?? '',
    };
    this.listed.push({ ...spec, ...shown, ipRanges: [], id: `id of ${spec.name}`, driver: 'weft', ipamDriver: 'weft' });
    return Promise.resolve(`id of ${spec.name}`);
  }
  override network(id: string): ReturnType<DockerApi['network']> {
    const network = this.listed.find((one) => one.id === id);
    return Promise.resolve(network === undefined ? null : { network, endpoints: [] });
  }
  override removeNetwork(id: string): Promise<void> {
    this.listed = this.listed.filter((one) => one.id !== id);
    return Promise.resolve();
  }
}

/** A host on which Docker has the network `net`, and the journal knows it. */
async function host() {
  const world = new FakeWorld();
  const mesh = world.host('h1');
  const journal = new MemoryJournal();
  const clock = new FakeClock();
  const log = silentLog();
  const copies = new Copies({ journal, mesh });
  const api = new FakeApi({ socketPath: '/nowhere', log });
  const driver = new NetworkDriver({ journal, mesh, copies, clock, log, created: () => undefined });
  const drift: string[] = [];
  const onDrift = ({ object, change }: Drift) => drift.push(`${object} ${change}`);
  const loop = new NetworksLoop({ journal, mesh, api, copies, clock, heal: true, onDrift, log });
  closing.push(() => loop.close());
  const network = world.createNetwork('net', '10.1.0.0/24');
  await loop.reconcile();
  await journal.write([copies.put(copies.rowFor(network, ID))]);
  api.made.length = 0;
  return { world, mesh, journal, copies, clock, api, driver, drift, loop };
}

const ID = 'id of net';
const closing: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closing.splice(0)) await close();
});

test('what Docker is removing is not made again', async () => {
  const { world, clock, api, driver, drift, loop } = await host();
  api.listed = []; // as Docker lists it from the first moment of its removal
  await loop.reconcile();
  // DeleteNetwork comes only now, and the mesh takes its time.
  const { promise: answered, resolve: answer } = Promise.withResolvers<void>();
  world.pause = () => answered;
  const deleted = driver.deleteNetwork({ NetworkID: ID });
  clock.advance(10_000);
  await loop.reconcile();
  expect(api.made).toEqual([]);
  answer();
  await deleted;
  await loop.reconcile();
  expect([world.networks.size, api.made, drift]).toEqual([0, [], []]);
});

test('what was removed without us is made again, and told', async () => {
  const { clock, api, drift, loop } = await host();
  api.listed = [];
  await loop.reconcile();
  expect(api.made).toEqual([]);
  clock.advance(300);
  await loop.reconcile();
  expect([api.made, drift]).toEqual([['net'], ['net missing']]);
});

test('what Docker removed although it was refused is made again at once', async () => {
  const { mesh, api, driver, loop } = await host();
  mesh.failNext('removeNetwork', 'FAILED_PRECONDITION');
  api.listed = [];
  await expect(driver.deleteNetwork({ NetworkID: ID })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  await loop.reconcile();
  expect(api.made).toEqual(['net']);
});

test.each(['ALREADY_EXISTS', 'INVALID_ARGUMENT'] as const)(
  'a name that the mesh refuses (%s) does not stay in Docker',
  async (code) => {
    const { world, mesh, journal, copies, api, loop } = await host();
    const made = { pool: '10.2.0.0/24', subPool: '', ipv6: false, options: {} };
    const reserved = await mesh.reserveNetwork(made);
    api.listed.push({ ...api.listed[0]!, id: 'id of NET', name: 'NET', subnet: '10.2.0.0/24' });
    await journal.write([copies.put(copies.rowFor(reserved, 'id of NET'))]);
    mesh.failNext('bindNetwork', code, 'a network named "net" exists');
    await loop.reconcile();
    expect(api.listed.map(({ name }) => name)).toEqual(['net']);
    expect([...world.networks.values()].map(({ name }) => name)).toEqual(['net']);
    expect([...copies.refused.values()]).toMatchObject([
      { network: 'NET', message: expect.stringContaining('was removed: a network named "net" exists') },
    ]);
  },
);

test.each([
  ['-o', {}, { 'weft.publish-by': 'docker' }],
  ['--ipam-opt', { publishBy: 'docker' }, {}],
])(
  'an internal network that Docker is to lead out (%s) is judged while Docker can tell its user',
  async (_, how, generic) => {
    const { mesh, journal, copies, driver } = await host();
    const reserved = await mesh.reserveNetwork({ pool: '10.2.0.0/24', subPool: '', ipv6: false, options: {} });
    await journal.write([copies.put(copies.rowFor({ ...reserved, ...how }, null))]);
    const bound = vi.spyOn(mesh, 'bindNetwork').mockRejectedValue(new WeftError('INVALID_ARGUMENT', 'no way out'));
    const request = {
      NetworkID: 'new',
      Options: { 'com.docker.network.internal': true, 'com.docker.network.generic': generic },
      IPv4Data: [{ AddressSpace: 'weft', Pool: '10.2.0.0/24', Gateway: '10.2.0.1/24', AuxAddresses: {} }],
      IPv6Data: [],
    };
    await expect(driver.createNetwork(request)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    expect(bound).toHaveBeenCalledExactlyOnceWith(expect.objectContaining({ name: '', internal: true }));
  },
);
