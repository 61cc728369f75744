import { describe, expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import type { BridgeModel, LocalPort, NetworkModel, Remote } from '../../../agent/flows/model.ts';
import { renderMeters } from '../../../agent/flows/punt.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { formatMeter } from '../../../agent/openflow/meter.ts';
import { multicastModel } from '../../../agent/plan/multicast.ts';
import { parseIp } from '../../../lib/ip.ts';
import { macOfIp, parseMac } from '../../../lib/mac.ts';

const local = (ofport: number, ip: string): LocalPort => ({
  id: `e${ofport}`,
  ofport,
  ip: parseIp(ip),
  ip6: null,
  alias: null,
  mac: parseMac(macOfIp(ip)),
  express: false,
  allowed: [],
  trusted: false,
});
const remote = (host: string, vtep: string, external = false): Remote => ({
  hostId: external ? '' : host,
  vtep,
  encap: 'vxlan',
  key: 4096,
  blocks: [],
  blocks6: [],
  entries: [],
  withheld: [],
  learn: false,
  external,
});
const LOCALS = [local(2, '10.128.0.2'), local(3, '10.128.0.3')];
const REMOTES = [
  remote('h2', '192.0.2.2'),
  remote('h3', '192.0.2.3'),
  remote('h4', '192.0.2.4'),
  remote('', '192.0.2.9', true),
];
const told = (hostId: string, ...groups: string[]) =>
  [hostId, { networkId: 'n', hostId, groups, revision: 1n }] as const;
/** h2 wants a group, h3 none; h4 has not said. */
const TOLD = new Map([told('h2', '239.1.2.3', 'ff15::1'), told('h3')]);
const KNOWN = {
  groups: new Map([
    ['239.1.2.3', new Set(['e3'])],
    ['239.9.9.9', new Set(['e2', 'e3'])],
  ]),
  everything: new Set<string>(),
};

const model = (multicast: NetworkModel['multicast'], more: Partial<NetworkModel> = {}): BridgeModel => ({
  tunnels: { kind: 'ovs', ports: { vxlan: 1 } },
  maxMeters: 65_536,
  networks: [
    {
      index: 1,
      vni: 4096,
      encap: 'vxlan',
      asked: [],
      macs: [],
      uplink: null,
      mtu: 1450,
      ipv4: true,
      ipv6: true,
      locals: LOCALS,
      remotes: REMOTES,
      multicast,
      ...more,
    },
  ],
});
/** Flows for frames to groups: those of the L2 stage that go there, and the two stages behind. */
const text = (m: BridgeModel): string[] =>
  [...render(m, new Map()).values()]
    .filter(
      (f) => [29, 30, 52].includes(f.table) || f.actions.some((a) => a.type === 'goto' && [30, 52].includes(a.table)),
    )
    .map(formatFlow)
    .sort();

describe('multicast', () => {
  it('goes to receivers, and to whoever may be one', async () => {
    const known = multicastModel(KNOWN, LOCALS, REMOTES, TOLD);
    await expect(`${text(model(known)).join('\n')}\n`).toMatchFileSnapshot('multicast.flows');
  });

  it('goes to everybody while nothing is known', () => {
    const lines = text(model(null));
    expect(lines.filter((line) => line.includes('reg6'))).toEqual([]);
    expect(lines.filter((line) => line.includes('table=30') && line.includes('reg1=0x1'))).toEqual([
      expect.stringMatching(
        /actions=output:2,output:3,.*192.0.2.2.*192.0.2.3.*192.0.2.4.*192.0.2.9->tun_dst,output:1$/,
      ),
    ]);
  });

  it('goes to every endpoint of this host while its own memberships are not known', () => {
    const starting = multicastModel(null, LOCALS, REMOTES, TOLD);
    expect(starting?.groups.map((g) => [g.locals, g.remotes.length])).toEqual([
      [[2, 3], 3],
      [[2, 3], 3],
    ]);
    expect(starting?.rest.locals).toEqual([2, 3]);
    expect(multicastModel(undefined, LOCALS, REMOTES, TOLD)).toBeNull();
    const router = LOCALS.map((p) => ({ ...p, trusted: p.ofport === 2 }));
    expect(multicastModel(KNOWN, router, REMOTES, TOLD)?.rest.locals).toEqual([2]);
  });

  it('goes always to an endpoint that wants too much, and is one list for groups of one MAC', () => {
    const local = {
      groups: new Map([
        ['239.1.2.3', new Set(['e2'])],
        ['224.129.2.3', new Set(['e3', 'gone'])],
        ['not an address', new Set(['e3'])],
      ]),
      everything: new Set(['e3']),
    };
    const m = multicastModel(local, LOCALS, [], new Map());
    expect(m).toEqual({
      groups: [{ mac: 0x01005e010203n, locals: [2, 3], remotes: [] }],
      rest: { locals: [3], remotes: [] },
    });
  });

  it('marks for the kernel what goes to receivers only', () => {
    const known = multicastModel(KNOWN, LOCALS, REMOTES, TOLD);
    const lines = text({ ...model(known), tunnels: { kind: 'kernel', port: 1 } }).filter((l) =>
      l.includes('push_vlan'),
    );
    expect(lines.filter((l) => l.includes('reg6=0x1')).every((l) => l.includes('set_field:1->vlan_pcp'))).toBe(true);
    expect(lines.filter((l) => !l.includes('reg6=0x1')).every((l) => !l.includes('vlan_pcp'))).toBe(true);
    expect(lines).toHaveLength(5);
  });

  it('is counted against a meter of its endpoint, where the datapath has meters', () => {
    const meters = [...renderMeters(model(null)).values()].map(formatMeter);
    expect(meters).toEqual([
      'meter=1 pktps burst bands=type=drop rate=100 burst_size=200',
      'meter=18 pktps burst bands=type=drop rate=1000 burst_size=1000',
      'meter=19 pktps burst bands=type=drop rate=1000 burst_size=1000',
    ]);
    const none = { ...model(null), maxMeters: 0 };
    expect(renderMeters(none).size).toBe(0);
    expect([...render(none, new Map()).values()].map(formatFlow).filter((line) => line.includes('meter'))).toEqual([]);
  });
});
