import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import type { ReserveQuery } from '../../../gen/weft/v1/session.ts';
import { SessionService } from '../../../gen/weft/v1/session.ts';
import { Reservation } from '../../../gen/weft/v1/types.ts';
import { WeftError } from '../../../lib/errors.ts';
import type { QueryHandler } from '../../harness/fake-agent.ts';
import { aHost, anEndpoint, Mesh, type Node, until } from './support.ts';

describe('reservations over two coordinators', () => {
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

  const create = (node: Node, network: string, fields: Partial<Reservation>) =>
    mesh.call(node, ControlService.createReservation, {
      project: '',
      network,
      reservation: Reservation.fromPartial(fields),
    });
  const claim = (networkId: string, address: string, ownRecord = false) => ({ networkId, address, ownRecord });

  test('whoever has the block agrees, or says who uses the address', async () => {
    const network = await mesh.network(one, 'agree', '10.40.0.0/24');
    const asked: ReserveQuery[] = [];
    const h1 = await mesh.agent(two, aHost(1), {
      hello: { interest: [network.id] },
      onQuery: (body) => {
        if (body.$case !== 'reserve') return {};
        asked.push(body.value);
        if (body.value.address.endsWith('.9')) throw new WeftError('ALREADY_EXISTS', 'container web on host h1 has it');
        return {};
      },
    });
    await h1.block(network.id);
    const { status, revision } = await create(one, 'agree', { name: 'db', ips: ['10.40.0.5'], labels: { a: 'b' } });
    expect(status).toMatchObject({ reservation: { name: 'db', ips: ['10.40.0.5'], mac: '' }, holder: undefined });
    expect(revision?.number).toBe(status?.reservation?.revision);
    expect(asked).toEqual([{ networkId: network.id, address: '10.40.0.5', name: 'db', forHostId: '' }]);
    await h1.until('it is told', () => h1.views.get(network.id)?.reservations.has('db') === true);
    await expect(create(one, 'agree', { name: 'x', ips: ['10.40.0.9'] })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('container web on host h1 has it'),
    });
    // In nobody's block there is nobody to ask.
    await create(one, 'agree', { name: 'far', ips: ['10.40.0.200'] });
    expect(asked).toHaveLength(2);
    // What the host's registered endpoint has is refused without asking it.
    await h1.register([anEndpoint(network.id, h1.host.id, 12, '10.40.0.6')]);
    await expect(create(one, 'agree', { name: 'x', ips: ['10.40.0.6'] })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('in use by container c12 on host h1'),
    });
    expect(asked).toHaveLength(2);
    await h1.close();
    await until('h1 is down', () => !one.opened.state.presences.has(h1.host.id));
    await expect(create(one, 'agree', { name: 'x', ips: ['10.40.0.7'] })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('in a block of host h1, which is not connected'),
    });
    const { reservations } = await mesh.call(one, ControlService.listReservations, { project: '', network: 'agree' });
    expect(reservations.map((r) => r.reservation?.name ?? '').toSorted()).toEqual(['db', 'far']);
  });

  test('goes from host to host: who has it lets go first, and the block’s host is not needed', async () => {
    const network = await mesh.network(one, 'follow', '10.41.0.0/24');
    const inUse = new Set<string>();
    const asked: string[] = [];
    const named =
      (name: string): QueryHandler =>
      async (body) => {
        if (body.$case !== 'reserve') return {};
        const { address, forHostId } = body.value;
        asked.push(`${name} ${forHostId === '' ? 'agree' : 'release'}`);
        if (inUse.has(name)) throw new WeftError('ALREADY_EXISTS', `container db on host ${name} has it`);
        const agent = name === 'h2' ? h2 : h3;
        if (forHostId !== '')
          await agent.call(SessionService.releaseAddresses, { networkId: network.id, addresses: [address] });
        return {};
      };
    const h4 = await mesh.agent(one, aHost(4), { onQuery: named('h4') });
    const h2 = await mesh.agent(one, aHost(2), { hello: { interest: [network.id] }, onQuery: named('h2') });
    const h3 = await mesh.agent(two, aHost(3), { hello: { interest: [network.id] }, onQuery: named('h3') });
    await h4.block(network.id);
    const mac = '02:aa:00:00:00:05';
    await create(two, 'follow', { name: 'db', ips: ['10.41.0.5'], mac });
    await h4.close();
    const first = await h2.call(SessionService.claimAddress, claim(network.id, '10.41.0.5'));
    expect(first).toMatchObject({
      block: undefined,
      address: { hostId: h2.host.id, state: 'held' },
      reservation: { name: 'db', mac },
    });
    inUse.add('h2');
    await expect(h3.call(SessionService.claimAddress, claim(network.id, '10.41.0.5'))).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('container db on host h2 has it'),
    });
    inUse.delete('h2');
    const second = await h3.call(SessionService.claimAddress, claim(network.id, '10.41.0.5'));
    expect(second.address).toMatchObject({ hostId: h3.host.id, state: 'held' });
    expect(asked).toEqual(['h4 agree', 'h2 release', 'h2 release']);
    // Holder: by its endpoint.
    const endpoint = anEndpoint(network.id, h3.host.id, 30, '10.41.0.5', { mac, givenMac: true });
    await h3.register([endpoint]);
    const listed = await mesh.call(one, ControlService.listReservations, { project: '', network: 'follow' });
    expect(listed.reservations).toMatchObject([{ holder: { hostId: h3.host.id, container: { name: 'c30' } } }]);
    expect(listed.hostNames).toEqual({ [h3.host.id]: 'h3' });
    // The MAC is nobody else's.
    const thief = anEndpoint(network.id, h2.host.id, 31, '10.41.0.99', { mac, givenMac: true });
    await expect(h2.register([thief])).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await h3.register([], [endpoint.id]);
    await h3.close();
    await until('h3 is down', () => !one.opened.state.presences.has(h3.host.id));
    await expect(h2.call(SessionService.claimAddress, claim(network.id, '10.41.0.5'))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('held by host h3, which is not connected'),
    });
    await mesh.call(one, ControlService.deleteHost, { host: 'h3' });
    expect(await h2.call(SessionService.claimAddress, claim(network.id, '10.41.0.5'))).toMatchObject({
      address: { hostId: h2.host.id },
    });
    await h2.close();
  });

  test('is made for the container that has the address: with its MAC, by a record of its own', async () => {
    const network = await mesh.network(one, 'bound', '10.42.0.0/24');
    const h5 = await mesh.agent(two, aHost(5), {
      onQuery: async (body) => {
        if (body.$case === 'reserve')
          await h5.call(SessionService.claimAddress, claim(network.id, body.value.address, true));
        return {};
      },
    });
    await h5.block(network.id);
    const mac = '02:aa:00:00:00:07';
    const endpoint = anEndpoint(network.id, h5.host.id, 7, '10.42.0.7', { mac, givenMac: true });
    await h5.register([endpoint]);
    await expect(create(one, 'bound', { name: 'c8', ips: ['10.42.0.7'] })).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
    });
    const other = { name: 'c7', ips: ['10.42.0.7'], mac: '02:aa:00:00:00:08' };
    await expect(create(one, 'bound', other)).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining(`has the MAC ${mac}`),
    });
    const { status } = await create(one, 'bound', { name: 'c7', ips: ['10.42.0.7'] });
    expect(status).toMatchObject({ reservation: { mac }, holder: { id: endpoint.id } });
    expect(two.opened.state.addresses.get(network.id)?.get('10.42.0.7')).toMatchObject({ hostId: h5.host.id });
    // The record is the host's by right: nobody takes it for an edit.
    const found = await mesh.call(one, ControlService.audit, { host: '', noHeal: true, localOnly: false });
    expect(found.hosts.flatMap((h) => h.drift)).toEqual([]);
    // Not of a block that is not its own.
    await expect(h5.call(SessionService.claimAddress, claim(network.id, '10.42.0.200', true))).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    await h5.close();
  });

  test('a container that has a reserved name and another address is a conflict, and an event', async () => {
    const network = await mesh.network(one, 'names', '10.43.0.0/24');
    const h6 = await mesh.agent(two, aHost(6), { onQuery: () => ({}) });
    await h6.block(network.id);
    await h6.register([anEndpoint(network.id, h6.host.id, 60, '10.43.0.9')]);
    await create(one, 'names', { name: 'c60', ips: ['10.43.0.5'] });
    await h6.register([anEndpoint(network.id, h6.host.id, 61, '10.43.0.10')]);
    await create(one, 'names', { name: 'c62', ips: ['10.43.0.6'] });
    await h6.register([anEndpoint(network.id, h6.host.id, 62, '10.43.0.11')]);
    await one.opened.store.caughtUp();
    const said = (name: string, has: string, reserved: string) => ({
      host: 'h6',
      network: 'names',
      message: `container ${name} has ${has}, and ${reserved} is reserved for that name: start it with --ip ${reserved}`,
    });
    const both = [said('c60', '10.43.0.9', '10.43.0.5'), said('c62', '10.43.0.11', '10.43.0.6')];
    expect((await mesh.call(one, ControlService.getStatus, {})).conflicts).toEqual(both);
    const events = [];
    const stream = mesh.stream(
      one,
      ControlService.watchEvents,
      { localOnly: true, follow: false },
      AbortSignal.timeout(5000),
    );
    for await (const event of stream) events.push(event);
    expect(events).toEqual([]); // both replicas know it by themselves
    const all = [];
    for await (const event of mesh.stream(
      one,
      ControlService.watchEvents,
      { localOnly: false, follow: false },
      AbortSignal.timeout(5000),
    ))
      all.push(event);
    expect(all.filter((e) => e.type === 'conflict').map((e) => e.message)).toEqual(both.map((c) => c.message));
    expect(all.filter((e) => e.type === 'reservation').at(-1)).toMatchObject({
      action: 'create',
      object: 'c62',
      message: '10.43.0.6 on names',
    });
    await mesh.call(one, ControlService.removeReservation, { project: '', network: 'names', name: 'c60' });
    expect((await mesh.call(one, ControlService.getStatus, {})).conflicts).toEqual(both.slice(1));
    await expect(
      mesh.call(one, ControlService.removeReservation, { project: '', network: 'names', name: 'c60' }),
    ).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await h6.close();
  });
});
