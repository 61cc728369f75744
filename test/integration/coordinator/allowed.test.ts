/** Allowed addresses inside blocks: only with the leave of the host that gives out the block's addresses, over two coordinators. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import type { GrantQuery } from '../../../gen/weft/v1/session.ts';
import { SessionService } from '../../../gen/weft/v1/session.ts';
import { WeftError } from '../../../lib/errors.ts';
import type { FakeAgent } from '../../harness/fake-agent.ts';
import { aHost, anEndpoint, Mesh, type Node, until } from './support.ts';

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

const set = (endpoint: string, allow: string[], disallow: string[] = []) => {
  const of = (texts: string[]) => texts.map((text) => ({ ip: text, mac: '' }));
  const request = { project: '', network: '', endpoint, allow: of(allow), disallow: of(disallow) };
  return mesh.call(two, ControlService.updateEndpoint, request);
};

test('the holder of the block is asked, once for all who share; its refusal and its absence are told', async () => {
  const network = await mesh.network(one, 'vips', '10.31.0.0/24');
  const grants: GrantQuery[] = [];
  const h1 = await mesh.agent(one, aHost(1), {
    onQuery: (body) => {
      if (body.$case !== 'grant') return undefined;
      grants.push(body.value);
      if (body.value.address.endsWith('.9')) throw new WeftError('ALREADY_EXISTS', 'container web uses it');
      return {};
    },
  });
  const h2 = await mesh.agent(two, aHost(2));
  await h1.block(network.id);
  const { cidr } = await h2.block(network.id);
  expect(cidr).toBe('10.31.0.16/28');
  const attached = async (n: number, ip: string): Promise<string> => {
    const endpoint = anEndpoint(network.id, h2.host.id, n, ip);
    await h2.register([endpoint]);
    return endpoint.id;
  };
  const [a, b] = [await attached(21, '10.31.0.18'), await attached(22, '10.31.0.19')];
  await until('both are known', () => two.opened.state.endpoints.get(network.id)?.size === 2);
  const allowed = (id: string) =>
    (two.opened.state.settings.get(network.id)?.get(id)?.allowed ?? []).map((address) => address.ip);

  await set(a, ['10.31.0.7', '10.31.0.200', 'fe80::1']);
  expect(grants).toEqual([{ networkId: network.id, address: '10.31.0.7', forHostId: h2.host.id }]);
  expect(allowed(a)).toEqual(['10.31.0.200', '10.31.0.7', 'fe80::1']);
  await set(b, ['10.31.0.7']);
  expect(grants).toHaveLength(1);
  await expect(set(a, ['10.31.0.9'])).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
    message: expect.stringMatching(/h1 does not give the address 10\.31\.0\.9 away: container web uses it/),
  });
  // Nor is it then given to an endpoint, or known behind a peer.
  await expect(
    h2.call(SessionService.claimAddress, { networkId: network.id, address: '10.31.0.7', ownRecord: false }),
  ).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });

  await h1.close();
  await until('h1 is down', () => !two.opened.state.presences.has(h1.host.id));
  await expect(set(a, ['10.31.0.8'])).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
    message: 'Address 10.31.0.8 is in a block of host h1, which is not connected.',
  });
  // Its leave still holds, as long as there is somebody who has it.
  await set(a, [], ['10.31.0.7']);
  await set(a, ['10.31.0.7']);
  await set(a, [], ['10.31.0.7']);
  await set(b, [], ['10.31.0.7']);
  await expect(set(a, ['10.31.0.7'])).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  expect([allowed(a), allowed(b)]).toEqual([['10.31.0.200', 'fe80::1'], []]);
  await h2.close();
});

test('its own host is asked as well, and one that holds the block by now', async () => {
  const network = await mesh.network(one, 'moves', '10.32.0.0/28');
  const asked: string[] = [];
  let first: FakeAgent | null = null;
  let moves = true;
  const h3 = await mesh.agent(one, aHost(3), {
    onQuery: async (body) => {
      if (body.$case !== 'grant') return undefined;
      asked.push(`h3 ${body.value.address}`);
      if (moves) await first?.call(SessionService.releaseBlocks, { networkId: network.id, cidrs: ['10.32.0.0/29'] });
      moves = false;
      return {};
    },
  });
  first = h3;
  expect((await h3.block(network.id)).cidr).toBe('10.32.0.0/29');
  const h4 = await mesh.agent(two, aHost(4), {
    onQuery: (body) => {
      if (body.$case !== 'grant') return undefined;
      asked.push(`h4 ${body.value.address}`);
      return {};
    },
  });
  expect((await h4.block(network.id)).cidr).toBe('10.32.0.8/29');
  const endpoint = anEndpoint(network.id, h4.host.id, 41, '10.32.0.9');
  await h4.register([endpoint]);
  await set(endpoint.id, ['10.32.0.10', '10.32.0.5']);
  expect(asked.toSorted()).toEqual(['h3 10.32.0.5', 'h4 10.32.0.10']);
  // No block has it now, and none gets it.
  const rest = [await h3.block(network.id), await h3.block(network.id)].map((block) => block.cidr);
  expect(rest.toSorted()).toEqual(['10.32.0.0/30', '10.32.0.6/31']);
  await h3.close();
  await h4.close();
});

test('a MAC that another endpoint may send from is not registered', async () => {
  const network = await mesh.network(one, 'macs', '10.33.0.0/24');
  const h5 = await mesh.agent(one, aHost(5));
  await h5.block(network.id);
  const vrrp = anEndpoint(network.id, h5.host.id, 51, '10.33.0.2');
  await h5.register([vrrp]);
  const mac = '00:00:5e:00:01:07';
  await mesh.call(one, ControlService.updateEndpoint, {
    project: '',
    network: '',
    endpoint: vrrp.id,
    allow: [{ ip: '', mac }],
    disallow: [],
  });
  const other = anEndpoint(network.id, h5.host.id, 52, '10.33.0.3', { mac, givenMac: true });
  await expect(h5.register([other])).rejects.toMatchObject({
    code: 'ALREADY_EXISTS',
    message: expect.stringContaining('is one that c51 on h5 may send from'),
  });
  await h5.close();
});
