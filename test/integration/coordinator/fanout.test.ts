import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import { SessionService } from '../../../gen/weft/v1/session.ts';
import { WeftError } from '../../../lib/errors.ts';
import type { Event } from '../../../lib/model.ts';
import type { QueryHandler } from '../../harness/fake-agent.ts';
import { aHost, anEndpoint, Mesh, type Node, until } from './support.ts';

const waitFor = { network: '', project: '', timeoutMs: 5000, localOnly: false, exceptHostIds: [], revision: undefined };

describe('two coordinators as one', () => {
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

  test('hosts, waits and status are the same from either', async () => {
    const network = await mesh.network(one, 'shared', '10.30.0.0/24');
    const h1 = await mesh.agent(one, aHost(1), { hello: { interest: [network.id] } });
    const h2 = await mesh.agent(two, aHost(2), { hello: { interest: [network.id] }, ack: false });
    h2.acknowledge();
    await until('both connected', async () => {
      const { hosts } = await mesh.call(one, ControlService.listHosts, { localOnly: false });
      return hosts.filter((h) => h.state === 'connected').length === 2;
    });
    const { hosts } = await mesh.call(one, ControlService.listHosts, { localOnly: false });
    expect(hosts.map((h) => [h.host?.name, h.coordinator])).toEqual([
      ['h1', 'coord1'],
      ['h2', 'coord2'],
    ]);
    const { coordinators } = await mesh.call(two, ControlService.getStatus, {});
    expect(coordinators.map((c) => [c.name, c.state, c.sessions])).toEqual([
      ['coord1', 'up', 1],
      ['coord2', 'up', 1],
    ]);

    const block = await h1.block(network.id);
    const revision = await h1.register([anEndpoint(network.id, h1.host.id, 1, '10.30.0.2')]);
    await h2.until('told', () => h2.views.get(network.id)?.endpoints.size === 1);
    const short = { ...waitFor, revision, timeoutMs: 200 };
    const lagging = await mesh.call(one, ControlService.waitApplied, short);
    expect(lagging).toMatchObject({ applied: false, laggards: [{ host: 'h2' }] });
    h2.acknowledge({ epoch: 1n, number: revision.number - 1n }, 'openflow: table is full');
    const failing = await mesh.call(one, ControlService.waitApplied, short);
    expect(failing.laggards).toMatchObject([{ host: 'h2', reason: 'openflow: table is full' }]);
    const excepted = { ...short, exceptHostIds: [h2.host.id] };
    expect(await mesh.call(one, ControlService.waitApplied, excepted)).toMatchObject({ applied: true });

    // Event-driven: the acknowledgement ends the wait.
    const waiting = mesh.call(one, ControlService.waitApplied, { ...waitFor, revision });
    h2.acknowledge();
    expect(await waiting).toMatchObject({ applied: true, laggards: [] });

    // A host that missed the bound is named, and not waited for until it acknowledges again.
    const again = await h1.register([{ ...anEndpoint(network.id, h1.host.id, 2, '10.30.0.3'), givenMac: true }]);
    const peers = { networkId: network.id, revision: again, timeoutMs: 300 };
    expect(await h1.call(SessionService.waitPeers, peers)).toEqual({ laggards: ['h2'] });
    const start = performance.now();
    expect(await h1.call(SessionService.waitPeers, { ...peers, timeoutMs: 5000 })).toEqual({ laggards: ['h2'] });
    expect(performance.now() - start).toBeLessThan(2000);
    h2.acknowledge();
    await until('it has caught up', async () => {
      const { laggards } = await h1.call(SessionService.waitPeers, peers);
      return laggards.length === 0;
    });
    expect(block.hostId).toBe(h1.host.id);
    await h1.close();
    await h2.close();
  });

  test('containers are found and connected wherever they run', async () => {
    const network = await mesh.network(one, 'connect', '10.31.0.0/24');
    const running =
      (names: string[]): QueryHandler =>
      (body) => {
        switch (body.$case) {
          case 'findContainer': {
            const found = names.filter((name) => name.startsWith(body.value.container));
            const containers = found.map((name) => ({ id: name.padEnd(64, '0'), name }));
            return { body: { $case: 'findContainer', value: { containers } } };
          }
          case 'connect':
            if (body.value.ip === '10.31.0.66') throw new WeftError('ALREADY_EXISTS', 'that address is taken');
            return { body: { $case: 'connect', value: { ip: body.value.ip || '10.31.0.2', ip6: '' } } };
          case 'audit': {
            const drift = [{ kind: 'flow', object: 'table=0', change: 'missing', want: 'x', have: '' }];
            return { body: { $case: 'audit', value: { drift: body.value.noHeal ? drift : [] } } };
          }
          case 'flush':
          case 'probeMtu':
          case 'probeTunnel':
          case 'trace':
          case 'grant':
          case 'reserve':
          case 'giveBack':
          case 'disconnect':
            return {};
        }
      };
    const h1 = await mesh.agent(one, aHost(1), { onQuery: running(['web', 'db1']) });
    const h2 = await mesh.agent(two, aHost(2), { onQuery: running(['web', 'db2', 'cache']) });
    const h3 = await mesh.agent(two, aHost(3), { onQuery: () => undefined });
    await h3.close();
    await until('h3 is down', () => !one.opened.state.presences.has(h3.host.id));
    const connect = (container: string, more: object = {}) =>
      mesh.call(one, ControlService.connectContainer, {
        project: '',
        network: network.id.slice(0, 6),
        container,
        host: '',
        ip: '',
        ip6: '',
        mac: '',
        ...more,
      });
    expect(await connect('cache')).toEqual({ host: 'h2', ip: '10.31.0.2', ip6: '' });
    expect(await connect('h2/web', { ip: '10.31.0.5' })).toEqual({ host: 'h2', ip: '10.31.0.5', ip6: '' });
    await expect(connect('web')).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('h1/web, h2/web'),
    });
    await expect(connect('nothing')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(connect('db1', { ip: '10.31.0.66' })).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await expect(connect('web', { host: 'h3' })).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    const disconnect = { project: '', network: 'connect', container: 'cache', host: '', force: false };
    expect(await mesh.call(one, ControlService.disconnectContainer, disconnect)).toEqual({ host: 'h2' });

    const audit = await mesh.call(one, ControlService.audit, { host: '', noHeal: true, localOnly: false });
    expect(audit.hosts.map((h) => [h.host, h.drift.length, h.error !== ''])).toEqual([
      ['h1', 1, false],
      ['h2', 1, false],
      ['h3', 0, true],
    ]);
    await mesh.call(one, ControlService.deleteHost, { host: 'h3' });
    await h1.close();
    await h2.close();
  });

  test('events of both are told by either', async () => {
    const stop = new AbortController();
    const seen: Event[] = [];
    const following = (async () => {
      for await (const event of mesh.stream(
        one,
        ControlService.watchEvents,
        { localOnly: false, follow: true },
        stop.signal,
      ))
        seen.push(event);
    })();
    const h2 = await mesh.agent(two, aHost(2));
    const event: Event = {
      type: 'drift',
      time: new Date().toISOString(),
      host: '',
      action: '',
      kind: 'flow',
      object: 'table=3',
      detectedAt: '',
      healedAt: '',
      message: 'extra',
      revision: undefined,
    };
    h2.send({ $case: 'event', value: event });
    await until('told', () => seen.some((e) => e.type === 'drift' && e.object === 'table=3' && e.host === 'h2'));
    await mesh.network(two, 'seen');
    await until('the network', () =>
      seen.some((e) => e.type === 'network' && e.object === 'seen' && e.action === 'create'),
    );
    expect(seen.filter((e) => e.type === 'network' && e.object === 'seen')).toHaveLength(1);
    expect(seen.filter((e) => e.object === 'table=3')).toHaveLength(1);
    stop.abort();
    await following;
    await h2.close();
  });

  test('a host that goes to another coordinator has one session, and its dead coordinator is named', async () => {
    const three = await mesh.coordinator('coord3');
    await until('known', () => one.opened.state.coordinators.size === 3);
    const older = await mesh.agent(three, aHost(5));
    const newer = await mesh.agent(one, aHost(5));
    await until('ended', () => older.ended !== null);
    expect(older.ended?.code).toBe('ABORTED');
    const left = await mesh.agent(three, aHost(6));
    expect(left.ended).toBeNull();
    await three.coordinator.close();
    expect(left.ended).toMatchObject({ code: 'UNAVAILABLE' });
    await three.opened.close();
    await until('its record is gone', () => one.opened.state.coordinators.size === 2);
    const { hosts } = await mesh.call(one, ControlService.listHosts, { localOnly: false });
    expect(hosts.find((h) => h.host?.name === 'h6')?.state).toBe('down');
    expect(hosts.find((h) => h.host?.name === 'h5')?.state).toMatch(/connected|lagging/);
    await newer.close();
  });
});
