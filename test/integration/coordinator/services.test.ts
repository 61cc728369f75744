import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ControlService, type UpdateEndpointRequest } from '../../../gen/weft/v1/control.ts';
import { type ReserveQuery, SessionService } from '../../../gen/weft/v1/session.ts';
import { Service } from '../../../gen/weft/v1/types.ts';
import { WeftError } from '../../../lib/errors.ts';
import { aHost, anEndpoint, Mesh, type Node, until } from './support.ts';

describe('services over two coordinators', () => {
  let mesh: Mesh;
  let one: Node;
  let two: Node;

  beforeAll(async () => {
    mesh = await Mesh.start();
    one = await mesh.coordinator('coord1');
    two = await mesh.coordinator('coord2');
    await until('they know each other', () => one.opened.state.coordinators.size === 2);
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  const port = (hostPort = 0) => ({ name: '', protocol: 'tcp', port: 80, targetPort: 8080, hostPort });
  const create = (node: Node, network: string, fields: Partial<Service>) =>
    mesh.call(node, ControlService.createService, {
      project: '',
      network,
      service: Service.fromPartial({ ports: [port()], selector: { app: 'shop' }, ...fields }),
    });
  const remove = (node: Node, network: string, name: string) =>
    mesh.call(node, ControlService.removeService, { project: '', network, name });

  test('made, told to interested hosts, listed with those behind it, and removed', async () => {
    const network = await mesh.network(one, 'shops', '10.50.0.0/24');
    const h1 = await mesh.agent(two, aHost(1), { hello: { interest: [network.id] } });
    const h2 = await mesh.agent(one, aHost(2));
    const labels = { app: 'shop', tier: 'front' };
    await h1.block(network.id);
    const first = anEndpoint(network.id, h1.host.id, 11, '10.50.0.6', { labels });
    const second = anEndpoint(network.id, h1.host.id, 12, '10.50.0.7', { labels });
    const other = anEndpoint(network.id, h1.host.id, 13, '10.50.0.8', { labels: { app: 'web' } });
    await h1.register([first, second, other]);
    await one.opened.store.caughtUp();
    const { status, revision } = await create(one, 'shops', { name: 'shop', publish: 'local', ports: [port(80)] });
    expect(status?.service).toMatchObject({
      name: 'shop',
      ips: ['10.50.0.254'],
      publish: 'local',
      selector: { app: 'shop' },
    });
    expect(revision?.number).toBe(status?.service?.revision);
    expect(status?.backends.map((b) => [b.endpoint?.id, b.state])).toEqual([
      [first.id, 'healthy'],
      [second.id, 'healthy'],
    ]);
    await h1.until('it is told', () => h1.views.get(network.id)?.services.get('shop')?.ips[0] === '10.50.0.254');
    expect(h2.views.has(network.id)).toBe(false);
    // A health check fails on its host; the other one is drained.
    await h1.register([{ ...first, unhealthy: [status!.service!.id] }]);
    const drain = (draining: boolean): UpdateEndpointRequest => ({
      project: '',
      endpoint: 'c12',
      network: '',
      allow: [],
      disallow: [],
      draining,
    });
    await mesh.call(one, ControlService.updateEndpoint, drain(true));
    await h1.until('it is drained', () => h1.views.get(network.id)?.settings.get(second.id)?.draining === true);
    await two.opened.store.caughtUp();
    const { services, hostNames, networkNames } = await mesh.call(two, ControlService.listServices, {
      project: '',
      network: 'shops',
    });
    expect(services).toMatchObject([
      { service: { name: 'shop' }, backends: [{ state: 'unhealthy' }, { state: 'draining' }] },
    ]);
    expect([hostNames, networkNames]).toEqual([{ [h1.host.id]: 'h1' }, { [network.id]: 'shops' }]);
    const listed = await mesh.call(two, ControlService.listEndpoints, { project: '', network: 'shops', host: '' });
    expect(listed.drainingIds).toEqual([second.id]);
    await mesh.call(one, ControlService.updateEndpoint, drain(false));
    await h1.until('it is not', () => h1.views.get(network.id)?.settings.has(second.id) === false);
    await expect(
      mesh.call(one, ControlService.updateEndpoint, { ...drain(false), draining: undefined }),
    ).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    // The port of the hosts is its own in all networks, until it goes.
    await mesh.network(one, 'more', '10.51.0.0/24');
    await expect(create(two, 'more', { name: 'x', publish: 'all', ports: [port(80)] })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('80/tcp of the hosts leads to service shop of network shops'),
    });
    await remove(two, 'shops', 'shop');
    await h1.until('it is told', () => h1.views.get(network.id)?.services.size === 0);
    await create(two, 'more', { name: 'x', publish: 'all', ports: [port(80)] });
    await expect(remove(one, 'shops', 'shop')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(create(one, 'shops', { name: 'y', selector: {} })).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
      hint: expect.stringContaining('--selector'),
    });
    await h1.close();
    await h2.close();
  });

  test('hosts that lead ports into a network know that, and are its peers, whoever has told them', async () => {
    const network = await mesh.network(one, 'entries', '10.55.0.0/24');
    const holder = await mesh.agent(two, aHost(7), { hello: { interest: [network.id] } });
    await holder.block(network.id);
    const entry = await mesh.agent(one, { ...aHost(8), express: true });
    const flagged = (): boolean | undefined => entry.networks.get(network.id)?.published;
    const peers = (): (readonly [string, boolean])[] =>
      [...(holder.views.get(network.id)?.peers.values() ?? [])]
        .map((p) => [p.name, p.entry] as const)
        .sort(([a], [b]) => (a < b ? -1 : 1));
    await entry.until('it has the network', () => flagged() === false);
    const { revision } = await create(two, 'entries', { name: 'x', publish: 'all', ports: [port(8500)] });
    await entry.until('it is told', () => flagged() === true);
    await holder.until('it is told', () => peers().length === 2);
    expect(peers()).toEqual([
      ['h7', false],
      ['h8', true],
    ]);
    entry.interest(network.id);
    await entry.until('it knows who is behind', () => entry.views.get(network.id)?.services.has('x') === true);
    expect(entry.views.get(network.id)?.at).toBeGreaterThanOrEqual(revision?.number ?? 0n);
    expect(entry.views.get(network.id)?.blocks.size).toBe(1);
    await remove(one, 'entries', 'x');
    await entry.until('it is told', () => flagged() === false);
    await holder.until('it is told', () => peers().length === 1);
    await entry.close();
    await holder.close();
  });

  test('whoever has the block of a given address agrees, or says who uses it', async () => {
    const network = await mesh.network(one, 'agree', '10.52.0.0/24');
    const asked: ReserveQuery[] = [];
    const h3 = await mesh.agent(two, aHost(3), {
      hello: { interest: [network.id] },
      onQuery: (body) => {
        if (body.$case !== 'reserve') return {};
        asked.push(body.value);
        if (body.value.address.endsWith('.9')) throw new WeftError('ALREADY_EXISTS', 'container web on host h3 has it');
        return {};
      },
    });
    await h3.block(network.id);
    const { status } = await create(one, 'agree', { name: 'shop', ips: ['10.52.0.5'] });
    expect(status).toMatchObject({ service: { ips: ['10.52.0.5'] }, backends: [] });
    expect(asked).toEqual([{ networkId: network.id, address: '10.52.0.5', name: 'service shop', forHostId: '' }]);
    await expect(create(one, 'agree', { name: 'x', ips: ['10.52.0.9'] })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('container web on host h3 has it'),
    });
    // Outside all blocks there is nobody to ask.
    await create(two, 'agree', { name: 'far' });
    expect(asked).toHaveLength(2);
    // Nobody gets the address: not the block's host, nor another, nor an endpoint by its settings, nor by registering it.
    const claim = { networkId: network.id, address: '10.52.0.5', ownRecord: false };
    const h4 = await mesh.agent(one, aHost(4), { hello: { interest: [network.id] } });
    for (const agent of [h3, h4])
      await expect(agent.call(SessionService.claimAddress, claim)).rejects.toMatchObject({
        code: 'ALREADY_EXISTS',
        message: expect.stringContaining('is the address of service shop'),
      });
    await expect(h3.register([anEndpoint(network.id, h3.host.id, 31, '10.52.0.5')])).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
      message: expect.stringContaining('the address of service shop'),
    });
    await h3.close();
    await until('h3 is down', () => !one.opened.state.presences.has(h3.host.id));
    await expect(create(one, 'agree', { name: 'x', ips: ['10.52.0.7'] })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('in a block of host h3, which is not connected'),
    });
    await h4.close();
  });

  test('where all is in blocks, hosts are asked one after the other for an address that they do not use', async () => {
    const network = await mesh.network(one, 'full', '10.53.0.0/28');
    const asked: string[] = [];
    const used = new Set(['10.53.0.14', '10.53.0.13']);
    const h5 = await mesh.agent(two, aHost(5), {
      hello: { interest: [network.id] },
      onQuery: (body) => {
        if (body.$case !== 'reserve') return {};
        asked.push(body.value.address);
        if (used.has(body.value.address)) throw new WeftError('ALREADY_EXISTS', 'a container has it');
        return {};
      },
    });
    for (const cidr of ['10.53.0.0/29', '10.53.0.8/29']) expect((await h5.block(network.id)).cidr).toBe(cidr);
    await h5.register([anEndpoint(network.id, h5.host.id, 50, '10.53.0.12')]);
    await one.opened.store.caughtUp();
    const { status } = await create(one, 'full', { name: 'shop' });
    expect(status?.service?.ips).toEqual(['10.53.0.11']);
    expect(asked).toEqual(['10.53.0.14', '10.53.0.13', '10.53.0.11']);
    used.clear();
    // At the same moment, on both: never one address twice.
    const names = Array.from({ length: 6 }, (_, i) => `s${i}`);
    const made = await Promise.allSettled(names.map((name, i) => create(i % 2 === 0 ? one : two, 'full', { name })));
    const ips = made.flatMap((m) => (m.status === 'fulfilled' ? (m.value.status?.service?.ips ?? []) : []));
    expect(new Set(ips).size).toBe(ips.length);
    expect(ips).toHaveLength(6);
    for (let i = 0; ; i++) {
      const more = await create(one, 'full', { name: `more${i}` }).catch((error: unknown) => WeftError.from(error));
      if (!(more instanceof WeftError)) continue;
      expect(more).toMatchObject({ code: 'RESOURCE_EXHAUSTED' });
      break;
    }
    const all = [...one.opened.state.services.get(network.id)!.values()].flatMap((s) => s.ips);
    // Twelve, without the endpoint's: all but the network's, the broadcast's and the gateway's.
    expect(new Set(all).size).toBe(12);
    expect(all).toHaveLength(12);
    await h5.close();
    await until('h5 is down', () => !one.opened.state.presences.has(h5.host.id));
    await remove(one, 'full', 'shop');
    await expect(create(one, 'full', { name: 'late' })).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: expect.stringContaining('h5 could not be asked'),
    });
    expect((await create(one, 'full', { name: 'free', headless: true, ports: [] })).status?.service?.ips).toEqual([]);
  });
});
