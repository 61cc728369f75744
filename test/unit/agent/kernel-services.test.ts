import { isDeepStrictEqual } from 'node:util';
import { expect, test } from 'vitest';
import { encode, FLAG, serviceKey } from '../../../agent/bpf/encode.ts';
import type { NetworkModel, ServiceModel } from '../../../agent/flows/model.ts';
import { entryMac } from '../../../agent/gateway/addresses.ts';
import { kernelSide } from '../../../agent/plan/kernel.ts';
import { MAX_TAGGED_INDEX, type Wiring } from '../../../agent/wiring.ts';
import { IPV6_MODEL } from '../../harness/flow-models.ts';

const WIRING: Wiring = {
  datapathType: 'netdev',
  backend: 'kernel-tunnel',
  express: true,
  vtep: '192.0.2.1',
  encaps: ['vxlan'],
  udpPorts: { vxlan: 4789, geneve: 6081 },
  underlayMtu: 1500,
  complete: { at: 'none', tcp: false, rewritten: true },
  outer: { ttl: 64, dscp: 'inherit', checksum: false },
};
const web: ServiceModel = {
  id: 7,
  address: { family: 4, address: 0x0a800901 },
  protocol: 6,
  port: 80,
  affinity: 0,
  backends: [{ address: { family: 4, address: 0x0a800002 }, mac: 0x02580a800002n, port: 8080 }],
};

test('services are said under the index of their network, where that has tunnels; its endpoints are marked', () => {
  const [first, second] = IPV6_MODEL.networks as [NetworkModel, NetworkModel];
  const networks: NetworkModel[] = [
    { ...first, services: [web] },
    second,
    { ...first, index: 3, encap: 'vlan', services: [web] },
    { ...first, index: MAX_TAGGED_INDEX + 1, services: [web] },
  ];
  const numbers = new Map<string, number>();
  const { model } = kernelSide(networks, WIRING, (link) => {
    numbers.set(link, numbers.get(link) ?? numbers.size + 1);
    return numbers.get(link) ?? 0;
  });
  expect(model.services).toEqual([{ ...web, index: first.index }]);
  const maps = encode(model);
  const key = { index: first.index, address: web.address };
  expect([...(maps.get('services')?.keys() ?? [])]).toEqual([serviceKey(key, web), serviceKey(key)]);
  // The index of a port is its second number, flags follow the MAC.
  for (const value of maps.get('ports')?.values() ?? []) {
    const served = (Number.parseInt(value.slice(28, 30), 16) & FLAG.served) !== 0;
    expect(served).toBe(Number.parseInt(value.slice(8, 10), 16) === first.index);
  }
});

test('where a service is published, hosts are known by MACs of their own, and what the host sends is looked at', () => {
  const [first, second] = IPV6_MODEL.networks as [NetworkModel, NetworkModel];
  const entry = 0x025b_0000_0001n;
  const transit: ServiceModel = { ...web, id: 9, address: { family: 4, address: 0xa9fe7809 } };
  const side = (express: boolean) =>
    kernelSide(
      [{ ...first, published: { entry, services: [transit], hosts: [] } }, second],
      { ...WIRING, express },
      () => 5,
    );
  const { model, attachments } = side(true);
  expect(model.config.entry).toBe(entry);
  expect(model.services).toEqual([{ ...transit, index: 0, net: first.index }]);
  expect(attachments.filter((a) => a.program === 'from_host')).toEqual([
    { ifindex: 5, link: 'weft-go', program: 'from_host' },
  ]);
  const place = { kind: 'local', ifindex: 5, rewrite: null, host: true };
  expect(model.fdb).toContainEqual({ index: first.index, mac: entry, place, express: true });
  const hosts = first.remotes.filter((r) => r.hostId !== '');
  const known = model.fdb.filter((e) => e.index === first.index && hosts.some((r) => entryMac(r.hostId) === e.mac));
  expect(known).toHaveLength(hosts.length);
  expect(side(false).attachments.some((a) => a.program === 'from_host')).toBe(false);
  expect(side(false).bare).toEqual([{ ifindex: 5, link: 'weft-go' }]);
  expect(side(true).bare).toEqual([]);
});

test('who only leads ports into a network is known by his MAC alone; so is everybody where nobody is', () => {
  const [first] = IPV6_MODEL.networks as [NetworkModel];
  const entry = 0x025b_0000_0001n;
  const transit: ServiceModel = { ...web, id: 9, address: { family: 4, address: 0xa9fe7809 } };
  const side = (n: Partial<NetworkModel>) => kernelSide([{ ...first, ...n }], WIRING, () => 5).model;
  const [published, plain] = [{ entry, services: [transit], hosts: [] }, side({})];
  const hosts = [{ hostId: 'far', vtep: '192.0.2.77' }];
  const led = side({ published: { ...published, hosts } });
  const vtep = { family: 4, address: 0xc000024d };
  const place = { kind: 'remote', vtep, device: null, key: null };
  const { index, vni } = first;
  expect(led.fdb).toContainEqual({ index, mac: entryMac('far'), place, express: true });
  const source = { index, vtep, device: 5, key: vni, external: false, learn: false };
  expect(led.sources.filter((s) => !plain.sources.some((p) => isDeepStrictEqual(p, s)))).toEqual([source]);
  expect([led.lists, led.groups, led.blocks]).toEqual([plain.lists, plain.groups, plain.blocks]);
  // Without an endpoint here: to the backends, and back.
  const alone = side({ locals: [], published });
  expect(alone).toMatchObject({ ports: [], lists: [], groups: [], config: { entry } });
  expect(alone.services).toEqual([{ ...transit, index: 0, net: index }]);
  expect([alone.nets, alone.blocks, alone.sources]).toEqual([plain.nets, plain.blocks, plain.sources]);
});
