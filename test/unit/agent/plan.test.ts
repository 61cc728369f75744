import { describe, expect, it } from 'vitest';
import type { LocalEndpoint, LocalNetwork } from '../../../agent/contract.ts';
import { desire } from '../../../agent/desired.ts';
import type { ServiceModel } from '../../../agent/flows/model.ts';
import { renderNetwork } from '../../../agent/flows/render.ts';
import { entryMac } from '../../../agent/gateway/addresses.ts';
import { containerLink, hostLink } from '../../../agent/link/names.ts';
import {
  hostCommands,
  type Link,
  type LinkStep,
  moveCommand,
  parseLinks,
  sandboxCommands,
} from '../../../agent/link/steps.ts';
import { batchLine } from '../../../agent/link/words.ts';
import type { OvsPort, OvsState } from '../../../agent/ovs/steps.ts';
import { networkModels } from '../../../agent/plan/bridge.ts';
import { planLinks } from '../../../agent/plan/links.ts';
import { planPorts } from '../../../agent/plan/ports.ts';
import { Settled } from '../../../agent/plan/settled.ts';
import type { ServiceIndex } from '../../../agent/services/members.ts';
import { NOTHING_PUBLISHED } from '../../../agent/services/published.ts';
import { EMPTY_VIEW } from '../../../agent/view.ts';
import type { Wiring } from '../../../agent/wiring.ts';
import { Peer } from '../../../gen/weft/v1/session.ts';
import { Block, Endpoint, Network, Service } from '../../../gen/weft/v1/types.ts';
import { parseIp } from '../../../lib/ip.ts';
import { parseIp6 } from '../../../lib/ip6.ts';
import { macOfIp } from '../../../lib/mac.ts';
import type { View } from '../../../lib/model.ts';

const ID = 'abcdef0123456789'.repeat(4);
const endpoint = (over: Partial<LocalEndpoint> = {}): LocalEndpoint => ({
  id: ID,
  networkId: 'n1',
  dockerNetworkId: 'd1',
  ip: '10.0.0.2',
  prefix: 24,
  ip6: '',
  prefix6: 0,
  mac: macOfIp('10.0.0.2'),
  givenMac: false,
  mtu: 1450,
  createdAt: '2026-01-01T00:00:00Z',
  sandbox: null,
  container: null,
  labels: {},
  aliases: [],
  interfaceName: null,
  ...over,
});
const NETWORKS = new Map<string, LocalNetwork>([
  [
    'n1',
    {
      networkId: 'n1',
      dockerNetworkId: 'd1',
      name: 'net',
      index: 7,
      network: Network.fromPartial({ id: 'n1', vni: 5000 }),
    },
  ],
]);
const WIRING: Wiring = {
  datapathType: 'netdev',
  backend: 'ovs-tunnel',
  express: false,
  vtep: '192.0.2.1',
  encaps: ['vxlan'],
  udpPorts: { vxlan: 4789, geneve: 6081 },
  underlayMtu: 1500,
  complete: { at: 'container', tcp: false, rewritten: true },
  outer: { ttl: 64, dscp: 'inherit', checksum: false },
};
const OPTIONS = { bridge: 'br-weft', hostId: 'h1', wiring: WIRING };
const journalOf = (...list: LocalEndpoint[]) => ({
  endpoints: new Map(list.map((e) => [e.id, e])),
  networks: NETWORKS,
});
const links = (...list: Link[]) => new Map(list.map((l) => [l.name, l]));

describe('links', () => {
  const want = desire(EMPTY_VIEW, journalOf(endpoint()), OPTIONS).links;

  it('makes a pair that is missing, and nothing that is there', () => {
    expect(planLinks(want, links()).map((p) => p.step.kind)).toEqual(['addVeth']);
    expect(planLinks(want, links({ name: hostLink(ID), mtu: 1450, up: true, ifindex: null }))).toEqual([]);
  });

  it('mends MTU and state', () => {
    const [p] = planLinks(want, links({ name: hostLink(ID), mtu: 1500, up: false, ifindex: null }));
    expect(p).toMatchObject({ change: 'differs', want: 'mtu 1450 up', have: 'mtu 1500 down' });
  });

  it('restores the interface of a running container inside its sandbox', () => {
    const joined = endpoint({ sandbox: '/var/run/docker/netns/x', interfaceName: 'eth0' });
    const [p] = planLinks(desire(EMPTY_VIEW, journalOf(joined), OPTIONS).links, links());
    const step = p?.step as LinkStep & { kind: 'restoreVeth' };
    expect(batchLine(moveCommand(step))).toBe(`link set dev ${containerLink(ID)} netns /var/run/docker/netns/x`);
    expect(sandboxCommands(step).map(batchLine)).toEqual([
      `addr add 10.0.0.2/24 broadcast + dev ${containerLink(ID)}`,
      `link set dev ${containerLink(ID)} name eth0`,
      'link set dev eth0 up',
    ]);
  });

  it('names devices so that none is taken for a word of ip', () => {
    const step: LinkStep = { kind: 'setLink', name: 'help', peer: null, mtu: 1450 };
    expect(hostCommands(step).map(batchLine)).toEqual(['link set dev help mtu 1450 up']);
    const pair: LinkStep = { kind: 'addPair', name: 'weft-tk', peer: 'weft-to', mtu: 1450 };
    expect(hostCommands(pair).map(batchLine)[0]).toBe(
      'link add name weft-tk mtu 1450 type veth peer name weft-to mtu 1450',
    );
    expect(hostCommands({ kind: 'delLink', name: 'weft-tk' }).map(batchLine)).toEqual(['link del dev weft-tk']);
  });

  it('names an orphan pair once', () => {
    const orphans = links(
      { name: 'wft000000000000', mtu: 1450, up: true, ifindex: null },
      { name: 'wfc000000000000', mtu: 1450, up: false, ifindex: null },
    );
    expect(planLinks([], orphans).map((p) => p.step)).toEqual([{ kind: 'delLink', name: 'wft000000000000' }]);
  });

  it('reads what ip prints, ours only', () => {
    const json = JSON.stringify([
      { ifname: 'lo', mtu: 65536, flags: ['UP'] },
      { ifname: hostLink(ID), mtu: 1450, flags: ['BROADCAST', 'UP'] },
      { ifname: 'wftnothex', mtu: 1450, flags: [] },
    ]);
    expect([...parseLinks(json).values()]).toEqual([{ name: hostLink(ID), mtu: 1450, up: true, ifindex: null }]);
    expect(parseLinks('').size).toBe(0);
  });
});

describe('ports', () => {
  const { bridge } = desire(EMPTY_VIEW, journalOf(endpoint()), OPTIONS);
  const state = (ports: Record<string, Partial<OvsPort>>): OvsState => ({
    bridges: new Map([
      [
        'br-weft',
        {
          name: 'br-weft',
          datapathType: 'netdev',
          failMode: 'secure',
          protocols: [],
          externalIds: { weft: 'bridge' },
          otherConfig: { mine: 'kept' },
          ports: new Map(Object.entries(ports)) as ReadonlyMap<string, OvsPort>,
        },
      ],
    ]),
    ovsVersion: null,
    datapathTypes: [],
    ifaceTypes: [],
    otherConfig: {},
    externalIds: {},
  });
  const untouched = { ofport: 1, ingress: { rate: 0, burst: 0 }, mtuRequest: null };
  const asWanted = Object.fromEntries(bridge.ports.map((p) => [p.name, { ...p, ...untouched }]));

  it('has nothing to do when all is as wanted', () => {
    expect(planPorts(bridge, state({ 'br-weft': { type: 'internal' }, ...asWanted }))).toEqual([]);
  });

  it('sees what somebody set and nobody wants: policing, an MTU, protocols', () => {
    const port = hostLink(ID);
    const limited = { ...asWanted[port], ingress: { rate: 1, burst: 0 }, mtuRequest: 900 } as Partial<OvsPort>;
    const [p] = planPorts(bridge, state({ 'br-weft': { type: 'internal' }, ...asWanted, [port]: limited }));
    expect(p).toMatchObject({ kind: 'port', object: port, change: 'differs' });
    expect(p?.have).toContain('ingress=1/0 mtu_request=900');
    const there = state({ 'br-weft': { type: 'internal' }, ...asWanted });
    const old = { ...there.bridges.get('br-weft')!, protocols: ['OpenFlow10'] };
    const [b] = planPorts(bridge, { ...there, bridges: new Map([['br-weft', old]]) });
    expect(b).toMatchObject({ kind: 'bridge', change: 'differs', step: { kind: 'ensureBridge' } });
    expect(b?.have).toContain('protocols=OpenFlow10');
  });

  it('makes bridge, tunnel and port from nothing, and removes what nobody wants', () => {
    const nothing = { ...state({}), bridges: new Map() };
    expect(planPorts(bridge, nothing).map((p) => [p.kind, p.change])).toEqual([
      ['bridge', 'missing'],
      ['port', 'missing'],
      ['port', 'missing'],
    ]);
    const extra = state({ ...asWanted, stray: { ...asWanted['weft-vxlan'], name: 'stray', type: '' } });
    expect(planPorts(bridge, extra)).toMatchObject([{ object: 'stray', change: 'extra', step: { kind: 'delPort' } }]);
  });

  it('sees changed options and ids', () => {
    const port = asWanted['weft-vxlan']!;
    const changed = state({ ...asWanted, 'weft-vxlan': { ...port, options: { ...port.options, dst_port: '8472' } } });
    expect(planPorts(bridge, changed)).toMatchObject([{ object: 'weft-vxlan', change: 'differs' }]);
  });
});

describe('what the bridge must know', () => {
  const SELF = { hostId: 'h1', ipv6: false };
  const peer = (hostId: string, address: string) =>
    Peer.fromPartial({ hostId, name: hostId, vteps: [{ address, encaps: ['vxlan'] }] });
  const view: View = {
    ...EMPTY_VIEW,
    interests: new Map([
      [
        'n1',
        {
          networkId: 'n1',
          blocks: new Map([
            ['10.0.0.0/28', Block.fromPartial({ cidr: '10.0.0.0/28', hostId: 'h1' })],
            ['10.0.0.16/28', Block.fromPartial({ cidr: '10.0.0.16/28', hostId: 'h2' })],
          ]),
          peers: new Map([
            ['h1', peer('h1', '192.0.2.1')],
            ['h2', peer('h2', '192.0.2.2')],
            ['h3', peer('h3', '192.0.2.3')],
          ]),
          endpoints: new Map(
            [
              { id: 'plain', hostId: 'h2', ips: ['10.0.0.17'], mac: macOfIp('10.0.0.17') },
              { id: 'mac', hostId: 'h2', ips: ['10.0.0.18'], mac: '02:42:00:00:00:01', givenMac: true },
              { id: 'lent', hostId: 'h3', ips: ['10.0.0.5'], mac: macOfIp('10.0.0.5') },
            ].map((e) => [e.id, Endpoint.fromPartial(e)]),
          ),
          addresses: new Map(),
          externals: new Map(),
          memberships: new Map(),
          settings: new Map(),
          reservations: new Map(),
          services: new Map(),
          policies: new Map(),
        },
      ],
    ]),
  };

  it('describes other hosts by blocks, and by entries only what blocks do not say', () => {
    const [model] = networkModels(view, SELF, NETWORKS, [endpoint()], { endpoint: () => 3, uplink: () => null });
    expect(model).toMatchObject({ index: 7, vni: 5000, locals: [{ ofport: 3 }] });
    expect(model?.remotes.map((r) => [r.blocks.length, r.entries.length])).toEqual([
      [1, 1],
      [0, 1],
    ]);
  });

  it('has the virtual addresses that it is told, and asks endpoints from the gateway where a service has a check', () => {
    const ports = { endpoint: () => 3, uplink: () => null };
    const gateways = ['10.0.0.1', 'fd00::1'];
    const networks = new Map([...NETWORKS].map(([id, n]) => [id, { ...n, network: { ...n.network, gateways } }]));
    const interest = view.interests.get('n1')!;
    const checked = Service.fromPartial({ id: 's', name: 's', health: { type: 'tcp' } });
    const served = { ...view, interests: new Map([['n1', { ...interest, services: new Map([['s', checked]]) }]]) };
    const models: ServiceModel[] = [];
    const index = new Map([['n1', { models }]]) as unknown as ServiceIndex;
    const services = { index, published: NOTHING_PUBLISHED };
    const [model] = networkModels(served, SELF, networks, [endpoint()], ports, null, services);
    expect(model?.services).toBe(models);
    expect(model?.checks).toEqual({ ip: parseIp('10.0.0.1'), ip6: parseIp6('fd00::1') });
    const [plain] = networkModels(view, SELF, networks, [endpoint()], ports);
    expect([plain?.services, plain?.checks, plain?.published]).toEqual([undefined, undefined, undefined]);
    const out = { ...checked, publish: 'all' };
    const published = { ...view, interests: new Map([['n1', { ...interest, services: new Map([['s', out]]) }]]) };
    const [led] = networkModels(published, SELF, networks, [endpoint()], ports, null, services);
    expect(led?.published).toEqual({ entry: entryMac(SELF.hostId), services: [], hosts: [] });
    // Who only leads ports there is no remote.
    const far = { ...peer('h9', '192.0.2.9'), entry: true };
    const entered = { ...published.interests.get('n1')!, peers: new Map([...interest.peers, ['h9', far]]) };
    const withFar = { ...published, interests: new Map([['n1', entered]]) };
    const [more] = networkModels(withFar, SELF, networks, [endpoint()], ports, null, services);
    expect(more?.remotes).toEqual(led?.remotes);
    expect(more?.published?.hosts).toEqual([{ hostId: 'h9', vtep: '192.0.2.9' }]);
    // Nor does this host hear of it where it does nothing else itself; clients there are none.
    const transit = [{ id: 1 }] as unknown as ServiceModel[];
    const out2 = { index, published: { publications: [], models: new Map([['n1', transit]]) } };
    const [alone] = networkModels(withFar, SELF, networks, [], ports, null, out2);
    expect(alone).toMatchObject({ index: 7, locals: [], remotes: led!.remotes });
    expect(alone?.published).toEqual({ entry: entryMac(SELF.hostId), services: transit, hosts: [] });
    expect(alone?.services).toBeUndefined();
    expect(renderNetwork(alone!, { tunnels: { kind: 'kernel', port: 2 }, maxMeters: 0, gateway: 3 })).toEqual([]);
  });

  it('has a way to the host that carries what the networks behind it do', () => {
    const network = Network.fromPartial({ id: 'n1', mtu: 1300, published: true });
    const seen = (published: boolean): View => ({ ...view, networks: new Map([['n1', { ...network, published }]]) });
    const mtuOf = (v: View, express: boolean) => {
      const wiring = { ...OPTIONS.wiring, express };
      const { links } = desire(v, journalOf(), { ...OPTIONS, wiring, gateway: true });
      return links.find((l) => l.name === 'weft-gw');
    };
    expect(mtuOf(seen(true), true)).toMatchObject({ mtu: 1300 });
    expect(mtuOf(seen(true), false)).toMatchObject({ mtu: 1500 });
    expect(mtuOf(seen(false), true)).toMatchObject({ mtu: 1500 });
    expect(mtuOf({ ...seen(true), interests: new Map() }, true)).toMatchObject({ mtu: 1500 });
  });

  it('leaves out networks without a local endpoint that has a port', () => {
    expect(networkModels(view, SELF, NETWORKS, [endpoint()], { endpoint: () => null, uplink: () => null })).toEqual([]);
  });
});

describe('drift', () => {
  const missing = { kind: 'link', id: 'x', object: 'x', change: 'missing' as const, want: 'w', have: '' };
  const extra = { kind: 'port', id: 'stray', object: 'stray', change: 'extra' as const, want: '', have: 'h' };

  it('is what was there as wanted and no longer is; not what was never there', () => {
    const s = new Settled();
    expect(s.isDrift(missing)).toBe(false);
    s.settle(new Map(), new Map());
    expect(s.isDrift(missing)).toBe(false);
    expect(s.isDrift(extra)).toBe(true);
    s.settle(new Map([['link x', 'w']]), new Map());
    expect(s.isDrift(missing)).toBe(true);
    expect(s.isDrift({ ...missing, want: 'other' })).toBe(false);
  });

  it('is not what this process itself stopped wanting', () => {
    const s = new Settled();
    s.settle(new Map([['port stray', 'h']]), new Map());
    expect(s.isReleased(extra)).toBe(true);
    expect(s.isDrift(extra)).toBe(false);
  });
});
