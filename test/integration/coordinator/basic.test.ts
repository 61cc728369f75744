import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import { SessionService } from '../../../gen/weft/v1/session.ts';
import { aHost, aNetwork, anEndpoint, Mesh, type Node, until } from './support.ts';

describe('one coordinator', () => {
  let mesh: Mesh;
  let node: Node;

  beforeAll(async () => {
    mesh = await Mesh.start();
    node = await mesh.coordinator('coord1');
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  test('a session begins complete, and follows what changes', async () => {
    const before = await mesh.network(node, 'before', '10.10.0.0/24');
    const agent = await mesh.agent(node, aHost(1), { hello: { interest: [before.id] } });
    expect(agent.messages.map((m) => m.body?.$case)).toEqual(['welcome', 'catalogue', 'network', 'sync']);
    expect(agent.welcome).toMatchObject({ epoch: 1n, coordinator: 'coord1', vxlanPort: 4789, host: { name: 'h1' } });
    expect(agent.networks.get(before.id)?.name).toBe('before');

    const after = await mesh.network(node, 'after');
    await agent.until('the new network', () => agent.networks.has(after.id));
    await mesh.call(node, ControlService.deleteNetwork, { project: '', network: 'after' });
    await agent.until('its removal', () => !agent.networks.has(after.id));

    const block = await agent.block(before.id);
    expect(block.cidr).toBe('10.10.0.0/28');
    await agent.until('its block', () => agent.views.get(before.id)?.blocks.has(block.cidr) === true);
    expect([...(agent.views.get(before.id)?.peers.keys() ?? [])]).toEqual([agent.host.id]);
    const revision = await agent.register([anEndpoint(before.id, agent.host.id, 1, '10.10.0.2')]);
    await agent.until('its endpoint', () => agent.views.get(before.id)?.endpoints.size === 1);
    const waited = await mesh.call(node, ControlService.waitApplied, {
      revision,
      network: 'before',
      project: '',
      timeoutMs: 5000,
      localOnly: false,
      exceptHostIds: [],
    });
    expect(waited).toEqual({ revision, applied: true, laggards: [] });

    await expect(
      mesh.call(node, ControlService.deleteNetwork, { project: '', network: 'before' }),
    ).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    const list = await mesh.call(node, ControlService.listEndpoints, { project: '', network: 'before', host: '' });
    expect(list).toMatchObject({ endpoints: [{ ips: ['10.10.0.2'] }], networkNames: { [before.id]: 'before' } });
    expect(list.hostNames).toEqual({ [agent.host.id]: 'h1' });
    const { hosts } = await mesh.call(node, ControlService.listHosts, { localOnly: false });
    expect(hosts).toMatchObject([{ host: { name: 'h1' }, state: 'connected', coordinator: 'coord1' }]);

    await agent.register([], [anEndpoint(before.id, '', 1, '10.10.0.2').id]);
    await agent.until('its end', () => agent.views.get(before.id)?.endpoints.size === 0);
    await agent.close();
    await until('down', async () => {
      const status = await mesh.call(node, ControlService.getStatus, {});
      return status.hosts[0]?.state === 'down' && status.coordinators[0]?.state === 'up';
    });
    await mesh.call(node, ControlService.deleteHost, { host: 'h1' });
    expect((await mesh.call(node, ControlService.listHosts, { localOnly: false })).hosts).toEqual([]);
  });

  test('refusals are sentences with codes', async () => {
    const agent = await mesh.agent(node, aHost(2));
    await expect(mesh.agent(node, aHost(3, { name: 'h2' }))).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await expect(mesh.agent(node, aHost(3), { hello: { protocol: 2 } })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    await expect(mesh.call(node, ControlService.deleteHost, { host: 'h2' })).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
    });
    await expect(mesh.call(node, ControlService.createNetwork, aNetwork('', ''))).rejects.toMatchObject({
      code: 'INVALID_ARGUMENT',
    });
    await expect(mesh.call(node, ControlService.getNetwork, { project: '', network: 'x' })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    await expect(mesh.call(node, ControlService.listNetworks, { project: 'other' })).rejects.toMatchObject({
      code: 'NOT_FOUND',
    });
    await expect(
      mesh.call(node, SessionService.releaseBlocks, { sessionId: '', networkId: '', cidrs: [] }),
    ).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
    });
    const stale = { sessionId: 'stale' };
    await expect(
      agent.call(SessionService.waitPeers, { networkId: '', revision: undefined, timeoutMs: 1, ...stale }),
    ).resolves.toBeDefined();
    await agent.close();
    await expect(agent.call(SessionService.releaseBlocks, { networkId: '', cidrs: [] })).rejects.toBeDefined();
  });

  test('a newer session of a host ends the older one', async () => {
    const older = await mesh.agent(node, aHost(4));
    const newer = await mesh.agent(node, aHost(4));
    await until('ended', () => older.ended !== null);
    expect(older.ended?.code).toBe('ABORTED');
    expect(node.opened.state.presences.get(newer.host.id)?.sessionId).toBe(newer.welcome?.sessionId);
    await newer.close();
  });
});
