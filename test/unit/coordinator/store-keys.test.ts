import { describe, expect, test } from 'vitest';
import { decode, encode, type RawKey } from '../../../coordinator/store/codec.ts';
import { keys, parseKey } from '../../../coordinator/store/keys.ts';
import {
  Endpoint,
  EndpointSettings,
  ExternalPeer,
  Memberships,
  Network,
  Policy,
  Service,
} from '../../../gen/weft/v1/types.ts';

const raw = (value: string): RawKey => ({ value, create: 1n, mod: 7n, lease: '0' });

describe('keys', () => {
  test('every kind is read as it was written', () => {
    const pairs: readonly (readonly [string, object])[] = [
      [keys.cluster(), { kind: 'cluster' }],
      [keys.stamp(), { kind: 'stamp' }],
      [keys.leader('reaper'), { kind: 'leader', name: 'reaper' }],
      [keys.network('default', 'n1'), { kind: 'network', project: 'default', id: 'n1' }],
      [keys.name('default', 'blue'), { kind: 'name', project: 'default', name: 'blue' }],
      [keys.vni(4096), { kind: 'vni', vni: 4096 }],
      [keys.vlan('eth1', 100), { kind: 'vlan', uplink: 'eth1', tag: 100 }],
      [keys.subnet('p', 's', '10.0.0.0/8'), { kind: 'subnet', project: 'p', space: 's', cidr: '10.0.0.0/8' }],
      [keys.pool('p', 's'), { kind: 'pool', project: 'p', space: 's' }],
      [keys.restingVni(5), { kind: 'restingVni', vni: 5 }],
      [
        keys.restingSubnet('p', 's', '10.0.0.0/8'),
        { kind: 'restingSubnet', project: 'p', space: 's', cidr: '10.0.0.0/8' },
      ],
      [keys.block('p', 'n', '10.0.0.0/28'), { kind: 'block', project: 'p', networkId: 'n', cidr: '10.0.0.0/28' }],
      [keys.blockguard('p', 'n'), { kind: 'blockguard', project: 'p', networkId: 'n' }],
      [keys.address('p', 'n', '10.0.0.1'), { kind: 'address', project: 'p', networkId: 'n', address: '10.0.0.1' }],
      [keys.endpoint('p', 'n', 'e'), { kind: 'endpoint', project: 'p', networkId: 'n', id: 'e' }],
      [keys.external('p', 'n', 'x'), { kind: 'external', project: 'p', networkId: 'n', id: 'x' }],
      [keys.settings('p', 'n', 'e'), { kind: 'settings', project: 'p', networkId: 'n', endpointId: 'e' }],
      [keys.memberships('p', 'n', 'h'), { kind: 'memberships', project: 'p', networkId: 'n', hostId: 'h' }],
      [keys.reservation('p', 'n', 'db'), { kind: 'reservation', project: 'p', networkId: 'n', name: 'db' }],
      [keys.service('p', 'n', 'shop'), { kind: 'service', project: 'p', networkId: 'n', name: 'shop' }],
      [keys.policy('p', 'n', 'web'), { kind: 'policy', project: 'p', networkId: 'n', name: 'web' }],
      [keys.portguard(), { kind: 'portguard' }],
      [keys.host('h'), { kind: 'host', id: 'h' }],
      [keys.hostname('h1'), { kind: 'hostname', name: 'h1' }],
      [keys.presence('h'), { kind: 'presence', hostId: 'h' }],
      [keys.coordinator('c'), { kind: 'coordinator', id: 'c' }],
    ];
    for (const [text, key] of pairs) expect(parseKey(text), text).toEqual(key);
  });

  test('what is not of the layout is nothing', () => {
    const bad = [
      '/weft/v1/',
      '/weft/v1/x',
      '/weft/v2/cluster',
      '/weft/v1/default/networks',
      '/weft/v1/default/networks/',
    ];
    bad.push(
      '/weft/v1/default/blocks/n/10.0.0.1_28',
      '/weft/v1/vnis/16777216',
      '/weft/v1/vnis/04',
      '/weft/v1/hosts/a/b',
    );
    bad.push('/weft/v1/vlans/eth1/4095', '/weft/v1/vlans/eth1', '/weft/v1/vlans/eth1/0');
    bad.push('/weft/v1/default/foo/x', '/weft/v1/cluster/x', '/weft/v1/quarantine/vnis/x');
    for (const text of bad) expect(parseKey(text), text).toBe(null);
  });
});

describe('values', () => {
  const network = Network.fromPartial({
    id: 'n1',
    project: 'default',
    name: 'blue',
    space: 'default',
    vni: 4096,
    subnets: ['10.128.0.0/20'],
    gateways: ['10.128.0.1'],
    encap: 'vxlan',
    mtu: 1450,
    labels: { a: 'b' },
    state: 'bound',
    revision: 3n,
  });
  const key = { kind: 'network', project: 'default', id: 'n1' } as const;

  test('come back as they were, with the revision of the key', () => {
    expect(encode.network(network)).not.toContain('revision');
    expect(decode(key, raw(encode.network(network)))).toEqual({ kind: 'network', value: { ...network, revision: 7n } });
    const endpoint = Endpoint.fromPartial({
      id: 'e',
      networkId: 'n1',
      hostId: 'h',
      container: { id: 'c', name: 'web' },
    });
    const at = { kind: 'endpoint', project: 'default', networkId: 'n1', id: 'e' } as const;
    expect(decode(at, raw(encode.endpoint(endpoint)))).toEqual({
      kind: 'endpoint',
      value: { ...endpoint, revision: 7n },
    });
    const peer = ExternalPeer.fromPartial({
      id: 'x',
      name: 'r',
      networkId: 'n1',
      vtep: '192.0.2.9',
      macs: [{ mac: 'm' }],
    });
    const ofPeer = { kind: 'external', project: 'default', networkId: 'n1', id: 'x' } as const;
    expect(decode(ofPeer, raw(encode.external(peer)))).toEqual({ kind: 'external', value: { ...peer, revision: 7n } });
    const groups = Memberships.fromPartial({ networkId: 'n1', hostId: 'h', groups: ['239.0.0.1'] });
    const ofHost = { kind: 'memberships', project: 'default', networkId: 'n1', hostId: 'h' } as const;
    const memberships = { kind: 'memberships', value: { ...groups, revision: 7n } };
    expect(decode(ofHost, raw(encode.memberships(groups)))).toEqual(memberships);
    expect(decode({ ...ofHost, hostId: 'h2' }, raw(encode.memberships(groups)))).toBe(null);
    const settings = EndpointSettings.fromPartial({ networkId: 'n1', endpointId: 'e', allowed: [{ ip: '10.0.0.9' }] });
    const ofEndpoint = { kind: 'settings', project: 'default', networkId: 'n1', endpointId: 'e' } as const;
    expect(decode(ofEndpoint, raw(encode.settings(settings)))).toEqual({
      kind: 'settings',
      value: { ...settings, revision: 7n },
    });
    const service = Service.fromPartial({
      networkId: 'n1',
      name: 'shop',
      ips: ['10.0.0.9'],
      selector: { app: 'shop' },
    });
    const ofService = { kind: 'service', project: 'default', networkId: 'n1', name: 'shop' } as const;
    expect(decode(ofService, raw(encode.service(service)))).toEqual({
      kind: 'service',
      value: { ...service, revision: 7n },
    });
    for (const wrong of [{ name: 'x' }, { ips: ['x'] }, { ips: [] }, { headless: true }])
      expect(decode(ofService, raw(encode.service({ ...service, ...wrong })))).toBe(null);
    const cidr = (text: string, except: string[] = []) =>
      Policy.fromPartial({
        id: '1',
        networkId: 'n1',
        name: 'web',
        ingress: [{ action: 'drop', peers: [{ who: { $case: 'addresses', value: { cidr: text, except } } }] }],
      });
    const ofPolicy = { kind: 'policy', project: 'default', networkId: 'n1', name: 'web' } as const;
    const policy = cidr('10.0.0.0/8', ['10.1.0.0/16']);
    expect(decode(ofPolicy, raw(encode.policy(policy)))).toEqual({
      kind: 'policy',
      value: { ...policy, revision: 7n },
    });
    for (const wrong of [{ ...policy, name: 'x' }, { ...policy, id: '' }, cidr('x'), cidr('10.0.0.0/8', ['10.1.0.0'])])
      expect(decode(ofPolicy, raw(encode.policy(wrong)))).toBe(null);
    const cluster = { id: 'c', epoch: 2n };
    expect(decode({ kind: 'cluster' }, raw(encode.cluster(cluster)))).toEqual({ kind: 'cluster', value: cluster });
  });

  test('that are not what the key says cannot be read', () => {
    const wrong = (change: Partial<Network>) => decode(key, raw(encode.network({ ...network, ...change })));
    for (const text of ['', 'null', '[]', '{', '{}', '7']) expect(decode(key, raw(text)), text).toBe(null);
    expect(wrong({ id: 'n2' })).toBe(null);
    expect(wrong({ vni: 0 })).toBe(null);
    const vlan = { encap: 'vlan', vni: 0, uplink: 'eth1', vlanTag: 7 };
    expect(wrong(vlan)).not.toBe(null);
    for (const change of [{ vni: 7 }, { uplink: '' }, { vlanTag: 0 }, { vlanTag: 4095 }])
      expect(wrong({ ...vlan, ...change })).toBe(null);
    expect(wrong({ vni: 2 ** 24 })).toBe(null);
    expect(wrong({ subnets: ['10.128.0.1/20'] })).toBe(null);
    expect(wrong({ subnets: [] })).toBe(null);
    expect(wrong({ gateways: ['x'] })).toBe(null);
    expect(wrong({ state: 'reserved' })).toBe(null);
    expect(wrong({ name: '' })).toBe(null);
  });
});
