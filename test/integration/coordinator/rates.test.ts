import { afterAll, beforeAll, expect, test } from 'vitest';
import { ControlService, type UpdateEndpointRequest } from '../../../gen/weft/v1/control.ts';
import { Network } from '../../../gen/weft/v1/types.ts';
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

const rate = (bits: bigint, burst = 0n) => ({ bits, burst });
const update = (endpoint: string, more: Partial<UpdateEndpointRequest>) =>
  mesh.call(one, ControlService.updateEndpoint, {
    project: '',
    endpoint,
    network: '',
    allow: [],
    disallow: [],
    ...more,
  });
const edit = (network: string, bits: bigint | null) => {
  const values = Network.fromPartial(bits === null ? {} : { rate: rate(bits) });
  return mesh.call(one, ControlService.updateNetwork, { project: '', network, fields: ['rate'], values });
};
const inForce = async (id: string) => {
  await two.opened.store.caughtUp();
  const request = { project: '', network: '', host: '' };
  const { rates, priorities } = await mesh.call(two, ControlService.listEndpoints, request);
  const found = rates[id];
  return [found === undefined ? null : `${found.rate?.bits} by ${found.by}`, priorities[id] ?? null];
};

test('rates are told to the host; endpoint goes before container, container before network', async () => {
  const network = await mesh.network(one, 'paced', '10.60.0.0/24');
  const h1 = await mesh.agent(two, { ...aHost(1), express: true }, { hello: { interest: [network.id] } });
  await h1.block(network.id);
  const plain = anEndpoint(network.id, h1.host.id, 11, '10.60.0.6');
  const asking = { ...anEndpoint(network.id, h1.host.id, 12, '10.60.0.7'), rate: rate(2_000_000n), priority: 'low' };
  await h1.register([plain, asking]);
  expect(await inForce(plain.id)).toEqual([null, null]);
  await edit('paced', 3_000_000n);
  await h1.until('it is told', () => h1.networks.get(network.id)?.rate?.bits === 3_000_000n);
  expect(await inForce(plain.id)).toEqual(['3000000 by network', null]);
  expect(await inForce(asking.id)).toEqual(['2000000 by container', 'low']);
  const settings = () => h1.views.get(network.id)?.settings.get(asking.id);
  await update('c12', { rate: rate(1_000_000n, 16_384n), priority: 'high' });
  await h1.until('it is told', () => settings()?.rate?.bits === 1_000_000n);
  expect(settings()).toMatchObject({ rate: rate(1_000_000n, 16_384n), priority: 'high' });
  expect(await inForce(asking.id)).toEqual(['1000000 by endpoint', 'high']);
  // One thing at a time: what is not named stays.
  await update('c12', { draining: true });
  await h1.until('it is told', () => settings()?.draining === true);
  expect(settings()).toMatchObject({ rate: rate(1_000_000n, 16_384n), priority: 'high' });
  await update('c12', { draining: false, rate: rate(0n) });
  expect(await inForce(asking.id)).toEqual([null, 'high']);
  await update('c12', { unsetRate: true, unsetPriority: true });
  expect(await inForce(asking.id)).toEqual(['2000000 by container', 'low']);
  await h1.until('nothing is set', () => settings() === undefined);
  await edit('paced', null);
  expect(await inForce(plain.id)).toEqual([null, null]);
  await h1.close();
});

test('what cannot be is refused, and nothing is changed', async () => {
  const network = await mesh.network(one, 'refused', '10.61.0.0/24');
  const h2 = await mesh.agent(
    one,
    { ...aHost(2), express: false, datapath: 'netdev' },
    { hello: { interest: [network.id] } },
  );
  await h2.block(network.id);
  const there = anEndpoint(network.id, h2.host.id, 21, '10.61.0.6');
  await h2.register([there, { ...anEndpoint(network.id, h2.host.id, 22, '10.61.0.7'), kind: 'tap' }]);
  for (const [more, code, message] of [
    [{ rate: rate(7_999n) }, 'INVALID_ARGUMENT', 'cannot be held'],
    [{ rate: rate(1_000_000n, 1n) }, 'INVALID_ARGUMENT', 'burst'],
    [{ priority: 'urgent' }, 'INVALID_ARGUMENT', 'high, normal or low'],
    [{ rate: rate(1_000_000n), unsetRate: true }, 'INVALID_ARGUMENT', 'exclude each other'],
    [{ rate: rate(1_000_000n), draining: true }, 'FAILED_PRECONDITION', 'neither the express path'],
    [{ priority: 'low' }, 'FAILED_PRECONDITION', 'no express path'],
  ] as const)
    await expect(update('c21', more)).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
  await expect(update('c22', { rate: rate(1_000_000n) })).rejects.toMatchObject({
    code: 'FAILED_PRECONDITION',
    message: expect.stringContaining('device'),
  });
  await expect(edit('refused', 7_999n)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await one.opened.store.caughtUp();
  expect(one.opened.state.settings.get(network.id)?.size ?? 0).toBe(0);
  // What is not held anyway may be called off.
  await update('c21', { rate: rate(0n) });
  await h2.close();
});
