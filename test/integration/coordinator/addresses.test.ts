import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import type { GrantQuery } from '../../../gen/weft/v1/session.ts';
import { SessionService } from '../../../gen/weft/v1/session.ts';
import { CODES, WeftError } from '../../../lib/errors.ts';
import { aHost, anEndpoint, Mesh, type Node, until } from './support.ts';

describe('blocks and addresses over two coordinators', () => {
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

  test('hosts of every coordinator give back before a network is exhausted', async () => {
    const network = await mesh.network(one, 'small', '10.20.0.0/28');
    const asked: string[] = [];
    const keepFirstHalf = (name: string) => (body: { $case: string; value: unknown }) => {
      if (body.$case !== 'giveBack') return undefined;
      const { cidr } = body.value as { cidr: string };
      asked.push(`${name} ${cidr}`);
      const [base, prefix] = cidr.split('/');
      const keep = Number(prefix) >= 31 ? [cidr] : [`${base}/${Number(prefix) + 1}`];
      return { body: { $case: 'giveBack', value: { keep } } } as const;
    };
    const h1 = await mesh.agent(one, aHost(1), { onQuery: keepFirstHalf('h1') });
    const h2 = await mesh.agent(two, aHost(2), { hello: { interest: [network.id] }, onQuery: keepFirstHalf('h2') });
    expect([(await h1.block(network.id)).cidr, (await h1.block(network.id)).cidr].sort()).toEqual([
      '10.20.0.0/29',
      '10.20.0.8/29',
    ]);
    const second = await h2.block(network.id);
    expect(second.cidr).toMatch(/^10\.20\.0\.(4|12)\/30$/);
    expect(asked).toHaveLength(1);
    expect(one.opened.state.blocks.get(network.id)?.size).toBe(3);
    const h3 = await mesh.agent(one, aHost(3), { onQuery: keepFirstHalf('h3') });
    const third = await h3.block(network.id);
    expect(third.hostId).toBe(h3.host.id);
    await until('h2 is told', () => h2.views.get(network.id)?.blocks.has(third.cidr) === true);
    await h1.close();
    await until('h1 is down', () => !one.opened.state.presences.has(h1.host.id));
    const blocks: string[] = [];
    let refusal: WeftError | null = null;
    while (refusal === null && blocks.length < 20)
      await h3.block(network.id).then(
        (block) => void blocks.push(block.cidr),
        (error: unknown) => {
          refusal = WeftError.from(error);
        },
      );
    expect(refusal).toMatchObject({ code: 'RESOURCE_EXHAUSTED', message: expect.stringMatching(/h1 \(down\)/) });
    expect(refusal).not.toMatchObject({ message: expect.stringMatching(/h2/) });
    await h2.close();
    await h3.close();
  });

  test('a claim is granted by the holder of the block, on whichever coordinator it is', async () => {
    const network = await mesh.network(one, 'claims', '10.21.0.0/24');
    const grants: GrantQuery[] = [];
    const h4 = await mesh.agent(one, aHost(4), {
      onQuery: (body) => {
        if (body.$case !== 'grant') return undefined;
        grants.push(body.value);
        if (body.value.address.endsWith('.9')) throw new WeftError('ALREADY_EXISTS', 'container web uses it');
        return body.value.address.endsWith('.10') ? undefined : {};
      },
    });
    const h5 = await mesh.agent(two, aHost(5), { hello: { interest: [network.id] } });
    const claim = (address: string) =>
      h5.call(SessionService.claimAddress, { networkId: network.id, address, ownRecord: false });
    await h4.block(network.id);
    const granted = await claim('10.21.0.7');
    expect(granted.address).toMatchObject({ state: 'held', hostId: h5.host.id, grantorHostId: h4.host.id });
    expect(grants).toEqual([{ networkId: network.id, address: '10.21.0.7', forHostId: h5.host.id }]);
    await h5.until('the address', () => h5.views.get(network.id)?.addresses.get('10.21.0.7')?.state === 'held');
    expect([...(h5.views.get(network.id)?.peers.keys() ?? [])].sort()).toEqual([h4.host.id, h5.host.id]);
    expect((await claim('10.21.0.7')).address).toMatchObject({ state: 'held' });

    await expect(claim('10.21.0.9')).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('web'),
    });
    await expect(claim('10.21.0.10')).rejects.toMatchObject({
      code: 'UNAVAILABLE',
      message: expect.stringContaining('h4'),
    });
    expect([...(two.opened.state.addresses.get(network.id)?.keys() ?? [])]).toEqual(['10.21.0.7']);
    await expect(claim('10.21.0.1')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(claim('10.21.0.255')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(claim('10.22.0.1')).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    // In no block: the block around it.
    const free = await claim('10.21.0.100');
    expect(free).toMatchObject({ block: { cidr: '10.21.0.96/28', hostId: h5.host.id }, address: undefined });
    // Held by another.
    await expect(
      h4.call(SessionService.claimAddress, { networkId: network.id, address: '10.21.0.7', ownRecord: false }),
    ).rejects.toMatchObject({
      code: 'ALREADY_EXISTS',
      message: expect.stringContaining('h5'),
    });
    await h5.call(SessionService.releaseAddresses, { networkId: network.id, addresses: ['10.21.0.7'] });
    await h5.until('released', () => h5.views.get(network.id)?.addresses.size === 0);
    // Nor may an agent say that it has what another holds.
    await expect(h4.register([anEndpoint(network.id, h4.host.id, 40, '10.21.0.100')])).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
      message: expect.stringContaining('h5'),
    });
    await expect(h5.register([anEndpoint(network.id, h5.host.id, 50, '10.21.0.5')])).rejects.toMatchObject({
      code: 'PERMISSION_DENIED',
    });
    // One that is refused keeps none of the others from being registered; the first who has a MAC keeps it.
    const mac = '02:aa:00:00:00:01';
    const given = (n: number, ip: string) => anEndpoint(network.id, h5.host.id, n, ip, { mac, givenMac: true });
    const { refused } = await h5.call(SessionService.registerEndpoints, {
      upserts: [
        given(60, '10.21.0.101'),
        anEndpoint(network.id, h5.host.id, 61, '10.21.0.5'),
        given(62, '10.21.0.102'),
      ],
      removed: [],
    });
    expect(
      refused.map((r) => [Number.parseInt(r.endpointId, 16), r.code]).toSorted(([a = 0], [b = 0]) => a - b),
    ).toEqual([
      [61, CODES.PERMISSION_DENIED],
      [62, CODES.ALREADY_EXISTS],
    ]);
    expect(h5.ended).toBeNull();
    await h5.register([], [anEndpoint(network.id, h5.host.id, 60, '10.21.0.101').id]);
    await h4.close();
    await until('h4 is down', () => !two.opened.state.presences.has(h4.host.id));
    await expect(claim('10.21.0.7')).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringContaining('h4'),
    });
    await h5.close();
  });

  test('a block that the host gives back by itself is free; what is not its own stays', async () => {
    const network = await mesh.network(one, 'unused', '10.24.0.0/28');
    const h7 = await mesh.agent(one, aHost(7));
    const h8 = await mesh.agent(two, aHost(8));
    const release = (host: typeof h7, cidrs: string[]) =>
      host.call(SessionService.releaseBlocks, { networkId: network.id, cidrs });
    const [first, second] = [await h7.block(network.id), await h8.block(network.id)];
    await release(h7, [first.cidr, second.cidr, '10.24.0.0/30']);
    expect([...one.opened.state.blocks.get(network.id)!.keys()]).toEqual([second.cidr]);
    await release(h7, [first.cidr]);
    await until('coord2 sees it', () => two.opened.state.blocks.get(network.id)?.size === 1);
    expect((await h8.block(network.id)).cidr).toBe(first.cidr);
    expect([h7.ended, h8.ended]).toEqual([null, null]);
    await h7.close();
    await h8.close();
  });

  test('a claim in a block that is being taken back gets nothing of what was given away', async () => {
    const network = await mesh.network(one, 'crossing', '10.25.0.0/28');
    const asked = Promise.withResolvers<void>();
    const answer = Promise.withResolvers<void>();
    const h9 = await mesh.agent(one, aHost(9), {
      onQuery: async (body) => {
        if (body.$case !== 'giveBack') return undefined;
        asked.resolve();
        await answer.promise;
        const { cidr } = body.value;
        return { body: { $case: 'giveBack', value: { keep: [cidr === '10.25.0.8/29' ? '10.25.0.8/30' : cidr] } } };
      },
    });
    const taken = [await h9.block(network.id), await h9.block(network.id)].map((block) => block.cidr);
    expect(taken.toSorted()).toEqual(['10.25.0.0/29', '10.25.0.8/29']);
    await h9.call(SessionService.releaseBlocks, { networkId: network.id, cidrs: ['10.25.0.0/29'] });
    const h10 = await mesh.agent(one, aHost(10), { onQuery: () => undefined });
    expect((await h10.block(network.id)).cidr).toBe('10.25.0.0/29');
    const wanted = h10.block(network.id);
    await asked.promise;
    const claim = (address: string) =>
      h9.call(SessionService.claimAddress, { networkId: network.id, address, ownRecord: false });
    const given = claim('10.25.0.13');
    const kept = claim('10.25.0.9');
    answer.resolve();
    expect((await kept).block?.cidr).toBe('10.25.0.8/30');
    // Either of the two gets what has become free.
    const got = [await wanted.catch(() => undefined), (await given.catch(() => undefined))?.block];
    expect(got.filter((block) => block !== undefined).map((block) => block.cidr)).toEqual(['10.25.0.12/30']);
    await h9.close();
    await h10.close();
  });

  test('what was edited by hand in etcd is put back, and told as drift', async () => {
    const network = await mesh.network(one, 'edited', '10.23.0.0/24');
    const h6 = await mesh.agent(one, aHost(6), { hello: { interest: [network.id] } });
    const block = await h6.block(network.id);
    const endpoint = anEndpoint(network.id, h6.host.id, 6, '10.23.0.2');
    await h6.register([endpoint]);
    const key = `/weft/v1/default/endpoints/${network.id}/${endpoint.id}`;
    const prefix = `/weft/v1/default/blocks/${network.id}/`;
    await mesh.etcd.ctl('del', key);
    await mesh.etcd.ctl('del', prefix, '--prefix');
    await until('both are back', () => {
      const { endpoints, blocks } = one.opened.state;
      return endpoints.get(network.id)?.has(endpoint.id) === true && blocks.get(network.id)?.has(block.cidr) === true;
    });
    const drift: string[] = [];
    await until('told', async () => {
      drift.length = 0;
      const stop = new AbortController();
      for await (const e of mesh.stream(
        two,
        ControlService.watchEvents,
        { localOnly: false, follow: false },
        stop.signal,
      ))
        if (e.type === 'drift') drift.push(e.object);
      return drift.includes(key);
    });
    expect(h6.ended).toBeNull();
    const { hosts } = await mesh.call(one, ControlService.audit, { host: '', noHeal: false, localOnly: false });
    expect(hosts.filter((h) => h.host === 'etcd')).toEqual([]);
    await h6.close();
  });
});
