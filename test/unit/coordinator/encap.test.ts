import { describe, expect, test } from 'vitest';
import {
  cannotCarry,
  checkCarried,
  chooseMtu,
  isUplink,
  largestMtu,
  mtuConflict,
  overheadOf,
} from '../../../coordinator/alloc/encap.ts';
import { peerClash } from '../../../coordinator/alloc/externals.ts';
import { checkedGroups } from '../../../coordinator/api/groups.ts';
import { EndpointSettings, ExternalPeer } from '../../../gen/weft/v1/types.ts';
import { WeftError } from '../../../lib/errors.ts';
import { FakeState } from '../../harness/fake-state.ts';
import { aHost, aNetworkRecord, anEndpoint } from './samples.ts';

const vxlan = { encap: 'vxlan', uplink: '' } as const;
const vlan = { encap: 'vlan', uplink: 'eth1' } as const;

describe('encapsulations', () => {
  test.each([
    ['vxlan', 50, 70],
    ['geneve', 50, 70],
    ['gre', 42, 62],
    ['vlan', 0, 0],
  ] as const)('%s takes %d bytes over IPv4, %d over IPv6', (encap, four, six) => {
    expect(overheadOf(encap, 'ipv4')).toBe(four);
    expect(overheadOf(encap, 'ipv6')).toBe(six);
  });

  test('who can carry what, in the agent’s words where it has some', () => {
    const probes = [
      { name: 'encap/gre', result: 'no', reason: 'kernel has no gre' },
      { name: 'uplink/eth1', result: 'no', reason: 'eth1 is down' },
    ];
    const host = aHost('h1', { probes, capabilities: ['encap/vlan', 'uplink/eth2'] });
    expect(cannotCarry(host, vxlan)).toBe(null);
    expect(cannotCarry(host, { encap: 'gre', uplink: '' })).toBe('kernel has no gre');
    expect(cannotCarry(host, { encap: 'geneve', uplink: '' })).toBe('it has no geneve');
    expect(cannotCarry(host, vlan)).toBe('eth1 is down');
    expect(cannotCarry(host, { encap: 'vlan', uplink: 'eth2' })).toBe(null);
    expect(cannotCarry(aHost('h2'), vlan)).toBe('it has no vlan networks');
    expect(() => checkCarried([], vlan)).not.toThrow();
    expect(() => checkCarried([aHost('h2'), host], { encap: 'vlan', uplink: 'eth2' })).not.toThrow();
    const many = Array.from({ length: 7 }, (_, i) => aHost(`h${i}`));
    expect(() => checkCarried(many, { encap: 'gre', uplink: '' })).toThrow(/h0 \(it has no gre\).*h4 .* and 2 more/);
  });

  test('names of interfaces, as Linux takes them', () => {
    for (const good of ['eth1', 'enp3s0f1', 'bond0.7', 'a-very-long-nam']) expect(isUplink(good)).toBe(true);
    for (const bad of ['', '.', '..', 'a b', 'a/b', 'a:b', 'a-very-long-name', 'a\0'])
      expect(isUplink(bad)).toBe(false);
  });
});

describe('MTU', () => {
  test('the least of the hosts that can carry it', () => {
    const hosts = [
      aHost('h1', { underlayMtu: 9000 }),
      aHost('h2', { underlayMtu: 0 }),
      aHost('h3', { underlayMtu: 1400, vteps: [] }),
    ];
    expect(largestMtu(hosts, vxlan)).toMatchObject({ mtu: 8950, host: { name: 'h1' } });
    expect(largestMtu([], vxlan)).toEqual({ mtu: 1450, host: null });
    const six = aHost('h6', { vteps: [{ address: 'fd00::1', encaps: ['vxlan'], encrypted: false }] });
    expect(largestMtu([...hosts, six], vxlan)).toMatchObject({ mtu: 1430, host: { name: 'h6' } });
    const uplink = (result: string) => [{ name: 'uplink/eth1', result, reason: '' }];
    const on = { capabilities: ['encap/vlan', 'uplink/eth1'], underlayMtu: 1400 };
    const vlans = [aHost('a', { ...on, probes: uplink('9000') }), aHost('b', { ...on, probes: uplink('yes') })];
    expect(largestMtu(vlans, vlan)).toMatchObject({ mtu: 9000 });
    expect(largestMtu(vlans.slice(1), vlan)).toEqual({ mtu: 1500, host: null });
  });

  test('given ones: not above what is known, not below what IP needs', () => {
    const hosts = [aHost('h1', { underlayMtu: 1500 })];
    expect(chooseMtu(hosts, vxlan, null, false)).toBe(1450);
    expect(chooseMtu(hosts, vxlan, 68, false)).toBe(68);
    expect(chooseMtu([], vxlan, 65_535, false)).toBe(65_535);
    expect(chooseMtu(hosts, vxlan, 1280, true)).toBe(1280);
    expect(() => chooseMtu(hosts, vxlan, 1279, true)).toThrow(/too small for IPv6/);
    expect(() => chooseMtu(hosts, vxlan, 1451, false)).toThrow(/too large: the underlay of h1 has MTU 1500.*1450/);
    expect(() => chooseMtu([aHost('h1', { underlayMtu: 1300 })], vxlan, null, true)).toThrow(/leaves only 1250/);
  });

  test('a network that is too large for a host is named', () => {
    const network = { name: 'blue', mtu: 1450, encap: 'vxlan', uplink: '' };
    expect(mtuConflict(aHost('h4', { underlayMtu: 1500 }), network)).toBe(null);
    expect(mtuConflict(aHost('h4', { underlayMtu: 0 }), network)).toBe(null);
    expect(mtuConflict(aHost('h4', { underlayMtu: 1400 }), network)).toMatch(
      /^network blue has MTU 1450, h4's underlay carries 1400 \(1350 inside vxlan\).*weft doctor mtu/,
    );
  });
});

describe('addresses that somebody has behind a tunnel', () => {
  const state = new FakeState();
  const network = aNetworkRecord('n');
  const one = anEndpoint('n', 'h1', 1, '10.0.0.2');
  const two = anEndpoint('n', 'h1', 2, '10.0.0.3');
  const three = anEndpoint('n', 'h1', 3, '10.0.0.4', { mac: '02:00:00:00:00:03', givenMac: true });
  const peer = (more: Partial<ExternalPeer>) =>
    ExternalPeer.fromPartial({ id: 'new', name: 'new', networkId: 'n', vtep: '198.51.100.2', encap: 'vxlan', ...more });
  const known = peer({
    id: 'p',
    name: 'known',
    vtep: '198.51.100.1',
    macs: [{ mac: '02:00:00:00:00:01', ip: '10.0.0.99' }],
  });
  state.commit(
    { host: 'h1', after: aHost('h1') },
    { network: 'n', after: network },
    { endpoint: one.id, of: 'n', after: one },
    { endpoint: two.id, of: 'n', after: two },
    { endpoint: three.id, of: 'n', after: three },
    { external: 'p', of: 'n', after: known },
    {
      settings: two.id,
      of: 'n',
      after: EndpointSettings.fromPartial({
        endpointId: two.id,
        networkId: 'n',
        allowed: [
          { ip: '10.0.0.70', mac: '00:00:5e:00:01:07' },
          { ip: 'fe80::21:22ff:fe23:2425', mac: '' },
        ],
      }),
    },
  );
  const mac = '02:00:00:00:00:02';

  test.each<[string, Partial<ExternalPeer>, string | null]>([
    ['a new one', { macs: [{ mac, ip: '10.0.0.98' }] }, null],
    ['only a MAC', { macs: [{ mac, ip: '' }] }, null],
    ['its name', { name: 'known' }, 'ALREADY_EXISTS'],
    ['its VTEP', { vtep: '198.51.100.1' }, 'ALREADY_EXISTS'],
    ['a host’s VTEP', { vtep: '192.0.2.1' }, 'FAILED_PRECONDITION'],
    ['a peer’s MAC', { macs: [{ mac: '02:00:00:00:00:01', ip: '' }] }, 'ALREADY_EXISTS'],
    ['a peer’s address', { macs: [{ mac, ip: '10.0.0.99' }] }, 'ALREADY_EXISTS'],
    ['an endpoint’s MAC', { macs: [{ mac: one.mac, ip: '' }] }, 'ALREADY_EXISTS'],
    ['an endpoint’s address', { macs: [{ mac, ip: '10.0.0.2' }] }, 'ALREADY_EXISTS'],
    ['an allowed address', { macs: [{ mac, ip: '10.0.0.70' }] }, 'ALREADY_EXISTS'],
    ['an allowed MAC', { macs: [{ mac: '00:00:5e:00:01:07', ip: '' }] }, 'ALREADY_EXISTS'],
    ['the MAC of an allowed address', { macs: [{ mac: '02:21:22:23:24:25', ip: '' }] }, 'ALREADY_EXISTS'],
    ['the gateway', { macs: [{ mac, ip: '10.0.0.1' }] }, 'FAILED_PRECONDITION'],
    ['an address outside', { macs: [{ mac, ip: '10.9.0.1' }] }, 'INVALID_ARGUMENT'],
    ['the default MAC of an address', { macs: [{ mac: '02:58:0a:00:00:50', ip: '' }] }, 'FAILED_PRECONDITION'],
    ['that MAC with its address', { macs: [{ mac: '02:58:0a:00:00:50', ip: '10.0.0.80' }] }, 'FAILED_PRECONDITION'],
    ['the default MAC of an IPv6 address', { macs: [{ mac: '02:59:00:00:00:50', ip: '' }] }, 'FAILED_PRECONDITION'],
  ])('a peer with %s', (what, more, code) => {
    const clash = peerClash(state, network, peer(more));
    expect(clash === null ? null : WeftError.from(clash).code).toBe(code);
    if (what.includes('allowed')) expect(clash?.message).toContain('c2 on h1');
  });
});

test('multicast groups: sorted, each once, without those that every host gets', () => {
  const many = ['239.0.0.2', '239.0.0.1', '239.0.0.2', '224.0.0.1', 'FF02::1', 'ff01::1', 'FF15:0::1', 'ff0e::5'];
  expect(checkedGroups(many)).toEqual(['239.0.0.1', '239.0.0.2', 'ff0e::5', 'ff15::1']);
  for (const bad of ['10.0.0.1', 'ff::1', 'fe80::1', 'x']) expect(() => checkedGroups([bad])).toThrow();
  expect(checkedGroups(Array.from({ length: 1001 }, (_, i) => `239.1.${i >> 8}.${i & 255}`))).toBe(null);
});
