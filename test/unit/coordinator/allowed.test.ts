import { describe, expect, test } from 'vitest';
import { allowedClash, changedAllowed, leaveNeeded } from '../../../coordinator/alloc/allowed.ts';
import type { Block } from '../../../gen/weft/v1/types.ts';
import { Address, EndpointSettings, ExternalPeer } from '../../../gen/weft/v1/types.ts';
import { allowedMac, linkLocalText, macOfLinkLocal } from '../../../lib/allowed.ts';
import { parseIp6 } from '../../../lib/ip6.ts';
import { FakeState } from '../../harness/fake-state.ts';
import { aHost, aNetworkRecord, anEndpoint } from './samples.ts';

const state = new FakeState();
const network = aNetworkRecord('n', {
  subnets: ['10.0.0.0/24', 'fd00::/64'],
  gateways: ['10.0.0.1', 'fd00::1'],
  auxAddresses: { router: '10.0.0.6' },
});
const one = anEndpoint('n', 'h1', 1, '10.0.0.2');
const two = anEndpoint('n', 'h1', 2, '10.0.0.3');
const three = anEndpoint('n', 'h1', 3, '10.0.0.4', { mac: '02:00:00:00:00:03', givenMac: true });
const mac = '02:00:00:00:00:02';
const block = (cidr: string, hostId: string): Block => ({ networkId: 'n', cidr, hostId, revision: 1n });
state.commit(
  { host: 'h1', after: aHost('h1') },
  { network: 'n', after: network },
  { endpoint: one.id, of: 'n', after: one },
  { endpoint: two.id, of: 'n', after: two },
  { endpoint: three.id, of: 'n', after: three },
  {
    external: 'p',
    of: 'n',
    after: ExternalPeer.fromPartial({
      id: 'p',
      name: 'known',
      networkId: 'n',
      macs: [{ mac: '02:00:00:00:00:01', ip: '10.0.0.99' }],
    }),
  },
  {
    address: '10.0.0.60',
    of: 'n',
    after: Address.fromPartial({ networkId: 'n', address: '10.0.0.60', hostId: 'h1', state: 'held' }),
  },
  { block: '10.0.0.0/28', of: 'n', after: block('10.0.0.0/28', 'h1') },
  { block: '10.0.0.32/28', of: 'n', after: block('10.0.0.32/28', 'h2') },
  {
    settings: two.id,
    of: 'n',
    after: EndpointSettings.fromPartial({
      endpointId: two.id,
      networkId: 'n',
      allowed: [
        { ip: '10.0.0.40', mac: '' },
        { ip: 'fe80::77', mac: '' },
      ],
    }),
  },
);

describe('what an endpoint may be allowed', () => {
  test.each<[string, { ip: string; mac: string }, RegExp | null]>([
    ['a free address', { ip: '10.0.0.50', mac: '' }, null],
    ['a free address of IPv6', { ip: 'fd00::50', mac: '' }, null],
    ['an auxiliary address', { ip: '10.0.0.6', mac: '' }, null],
    ['what another one is allowed too', { ip: '10.0.0.40', mac: '' }, null],
    ['a VRRP MAC', { ip: '', mac: '00:00:5e:00:01:01' }, null],
    ['any address from its own MAC', { ip: '', mac: one.mac }, null],
    ['a virtual link-local address', { ip: 'fe80::1', mac: '00:00:5e:00:02:01' }, null],
    ['the link-local address of a virtual MAC', { ip: 'fe80::200:5eff:fe00:201', mac: '00:00:5e:00:02:01' }, null],
    ['its own', { ip: '10.0.0.2', mac: '' }, /is the endpoint's own/],
    ['its own with its MAC', { ip: '10.0.0.2', mac: one.mac }, /is the endpoint's own/],
    ['its own link-local address', { ip: linkLocalText(one.mac), mac: '' }, /is the endpoint's own/],
    ['another’s link-local address', { ip: linkLocalText(two.mac), mac: '' }, /is c2 on h1's own: it is made of/],
    ['that of a given MAC', { ip: linkLocalText(three.mac), mac: '' }, /is c3 on h1's own: it is made of/],
    ['that of an endpoint to come', { ip: 'fe80::58:aff:fe00:63', mac: '' }, /02:58:0a:00:00:63, a MAC of the form/],
    ['that of the gateway', { ip: 'fe80::57:ff:fe00:1', mac: '' }, /a MAC of the form/],
    ['that of a peer', { ip: 'fe80::ff:fe00:1', mac: '' }, /behind peer known/],
    ['an address outside', { ip: '203.0.113.5', mac: '' }, /not in 10\.0\.0\.0\/24 or fd00::\/64/],
    ['a link-local address of no link', { ip: 'fe80:1::5', mac: '' }, /not in/],
    ['the zero address of the link', { ip: 'fe80::', mac: '' }, /network address/],
    ['the network address', { ip: '10.0.0.0', mac: '' }, /network address of 10\.0\.0\.0\/24/],
    ['the broadcast address', { ip: '10.0.0.255', mac: '' }, /broadcast address of 10\.0\.0\.0\/24/],
    ['the routers’ anycast address', { ip: 'fd00::', mac: '' }, /network address/],
    ['everybody', { ip: '255.255.255.255', mac: '' }, /address of a group/],
    ['a group', { ip: '224.0.0.5', mac: '' }, /address of a group/],
    ['a group of IPv6', { ip: 'ff02::1', mac: '' }, /address of a group/],
    ['the gateway', { ip: '10.0.0.1', mac: '' }, /is the gateway/],
    ['the gateway of IPv6', { ip: 'fd00::1', mac: '' }, /is the gateway/],
    ['another’s address', { ip: '10.0.0.3', mac: '' }, /c2 on h1's own/],
    ['an address that a host has claimed', { ip: '10.0.0.60', mac: '' }, /held by host h1/],
    ['another’s MAC', { ip: '10.0.0.50', mac: two.mac }, /form that the mesh gives/],
    ['another’s given MAC', { ip: '10.0.0.50', mac: '02:00:00:00:00:03' }, /c3 on h1's own/],
    ['a peer’s address', { ip: '10.0.0.99', mac: '' }, /behind peer known/],
    ['a peer’s MAC', { ip: '', mac: '02:00:00:00:00:01' }, /behind peer known/],
  ])('%s', (_, allowed, message) => {
    const clash = allowedClash(state, network, one, allowed);
    if (message === null) expect(clash).toBe(null);
    else expect(clash?.message).toMatch(message);
  });

  test('adding and removing', () => {
    const [a, b, c] = [
      { ip: '10.0.0.9', mac: '' },
      { ip: '10.0.0.9', mac },
      { ip: '', mac },
    ];
    expect(changedAllowed([], [b, a, a], [])).toEqual([a, b]);
    expect(changedAllowed([a, b, c], [], [a])).toEqual([c]);
    expect(changedAllowed([a, b, c], [], [b])).toEqual([c, a]);
    expect(changedAllowed([a], [c], [{ ip: '10.9.9.9', mac: '' }])).toEqual([c, a]);
  });

  test('whose leave it needs: of the holder of the block, once, and again when the block has moved', () => {
    const allow = ['10.0.0.9', '10.0.0.9', '10.0.0.41', '10.0.0.100', '10.0.0.6', 'fe80::1', ''].map((ip) => ({
      ip,
      mac,
    }));
    const [first, second] = [
      { ip: '10.0.0.9', hostId: 'h1' },
      { ip: '10.0.0.41', hostId: 'h2' },
    ];
    expect(leaveNeeded(state, network, allow, [])).toEqual({ ask: [first, second], sharedWith: [] });
    expect(leaveNeeded(state, network, allow, [first])).toEqual({ ask: [second], sharedWith: [] });
    expect(leaveNeeded(state, network, allow, [{ ...first, hostId: 'h3' }, second])).toMatchObject({ ask: [first] });
    // Another one is allowed it: its host has been asked then.
    expect(leaveNeeded(state, network, [{ ip: '10.0.0.40', mac }], [])).toEqual({ ask: [], sharedWith: [two.id] });
  });
});

test('link-local addresses are made of MACs, and MACs read from them', () => {
  expect(linkLocalText('02:58:0a:80:00:07')).toBe('fe80::58:aff:fe80:7');
  for (const one of ['02:58:0a:80:00:07', '00:00:5e:00:02:05'])
    expect(macOfLinkLocal(parseIp6(linkLocalText(one)))).toBe(one);
  for (const none of ['fe80::1', 'fe80::58:aff:ee80:7', 'fe80:0:0:1:58:aff:fe80:7', 'fd00::58:aff:fe80:7'])
    expect(macOfLinkLocal(parseIp6(none))).toBe(null);
  const settings = ['fe80::ff:fe00:2', 'fe80::77'].map((ip, i) =>
    EndpointSettings.fromPartial({ endpointId: `e${i}`, allowed: [{ ip }, { mac: '00:00:5e:00:01:07' }] }),
  );
  expect(allowedMac(settings, mac, '')).toBe('e0');
  expect(allowedMac(settings, mac, 'e0')).toBe(null);
  expect(allowedMac(settings, '00:00:5e:00:01:07', 'e0')).toBe('e1');
});
