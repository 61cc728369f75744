import { describe, expect, it } from 'vitest';
import { type Answer, type Asker, answer, type ServiceTarget } from '../../../../agent/dns/answer.ts';
import { indexNames, type NameIndex, NO_NAMES } from '../../../../agent/dns/names.ts';
import { reverseName } from '../../../../agent/dns/reverse.ts';
import type { Service } from '../../../../gen/weft/v1/types.ts';
import { parseIp } from '../../../../lib/addr.ts';
import {
  containerId,
  draining,
  indexWith,
  interest,
  local,
  network,
  OWN,
  remote,
  service,
  view,
} from './names-fixture.ts';

const WEB = network('web');
const DB = network('db', { subnets: ['10.128.16.0/20'] });
const FORWARD = { kind: 'forward' };
const EMPTY = { kind: 'empty', zone: null };

const ask = (index: NameIndex, name: string, type = 'A', random = 0, asker: Asker = { networks: ['web'] }): Answer =>
  answer({ name, type }, asker, index, { random: () => random });
const ips = (told: Answer): readonly string[] => (told.kind === 'addresses' ? told.ips : []);
const targets = (told: Answer): readonly ServiceTarget[] => (told.kind === 'targets' ? told.targets : []);
const reverse = (ip: string): string => reverseName(ip, parseIp(ip));

const app = { labels: { app: 'api', tier: 'b' } };
const OWN_ONE = local({ network: 'web', name: 'one', ips: ['10.128.0.2', 'fd00:1::2'] }, app);
const TWO = remote({ network: 'web', name: 'two', ips: ['10.128.0.32', 'fd00:1::20'] }, app);
const THREE = remote({ network: 'web', name: 'three', ips: ['10.128.0.33'] }, app);
const CROWD = { networks: [WEB, DB], own: [OWN_ONE], others: [TWO, THREE] };
const withServices = (...services: Service[]): NameIndex => indexWith({ ...CROWD, services });
const VIRTUAL = service('web', 'Api', { ips: ['10.128.15.200', 'fd00:1::f0'] });

describe('a service with virtual addresses', () => {
  it('is found by every form of its name', () => {
    const index = withServices(VIRTUAL);
    for (const name of ['api', 'API.', 'api.web', 'Api.Web.Weft.'])
      expect(ask(index, name), name).toEqual({ kind: 'addresses', type: 'A', ips: ['10.128.15.200'] });
    expect(ips(ask(index, 'api', 'AAAA'))).toEqual(['fd00:1::f0']);
    expect(ask(index, 'api', 'TXT')).toEqual(EMPTY);
    expect(ask(withServices({ ...VIRTUAL, ips: ['10.128.15.200'] }), 'api', 'AAAA')).toEqual(EMPTY);
    expect(ask(index, 'api', 'A', 0, { networks: ['db'] })).toEqual(FORWARD);
    expect(ask(index, 'api.db')).toEqual(FORWARD);
  });

  it('hides containers and aliases of that name, which are then called by their ids', () => {
    const named = remote({ network: 'web', name: 'api', ips: ['10.128.0.40'] });
    const aliased = local({ network: 'web', name: 'four', ips: ['10.128.0.4'], aliases: ['API'] });
    const elsewhere = remote({ network: 'db', name: 'api', ips: ['10.128.16.4'] });
    const crowd = { networks: [WEB, DB], own: [aliased], others: [named, elsewhere] };
    const index = indexWith({ ...crowd, services: [VIRTUAL] });
    expect(ips(ask(index, 'api'))).toEqual(['10.128.15.200']);
    expect(ips(ask(index, 'api', 'A', 0, { networks: ['db', 'web'] }))).toEqual(['10.128.15.200']);
    expect(ips(ask(index, 'api.db', 'A', 0, { networks: ['web', 'db'] }))).toEqual(['10.128.16.4']);
    const short = containerId('api/r').slice(0, 12);
    const back = [`${short}.web`, `${short}.web.weft`];
    expect(ask(index, reverse('10.128.0.40'), 'PTR')).toEqual({ kind: 'pointers', names: back });
    expect(ips(ask(index, `${short}.web`))).toEqual(['10.128.0.40']);
    expect(ask(index, reverse('10.128.0.4'), 'PTR')).toMatchObject({ names: ['four.web', 'four.web.weft'] });
    const gone = indexWith({ ...crowd, services: [], before: index });
    expect(ips(ask(gone, 'api')).toSorted()).toEqual(['10.128.0.4', '10.128.0.40']);
  });

  it('of two networks is that of the first', () => {
    const index = withServices(VIRTUAL, service('db', 'api', { ips: ['10.128.31.1'] }));
    expect(ips(ask(index, 'api', 'A', 0, { networks: ['web', 'db'] }))).toEqual(['10.128.15.200']);
    expect(ips(ask(index, 'api', 'A', 0, { networks: ['db', 'web'] }))).toEqual(['10.128.31.1']);
    expect(ips(ask(index, 'api.web', 'A', 0, { networks: ['db', 'web'] }))).toEqual(['10.128.15.200']);
  });

  it('is the name of its addresses', () => {
    const index = withServices(VIRTUAL);
    for (const ip of VIRTUAL.ips)
      expect(ask(index, reverse(ip), 'PTR')).toEqual({ kind: 'pointers', names: ['Api.web', 'Api.web.weft'] });
  });
});

describe('a headless service', () => {
  const HEADLESS = service('web', 'api');
  const all = ['10.128.0.2', '10.128.0.32', '10.128.0.33'];

  it('is its endpoints, one turn after the other', () => {
    const index = withServices(HEADLESS);
    expect(ips(ask(index, 'api.web.weft'))).toEqual(all);
    expect(ips(ask(index, 'api', 'A', 0.4))).toEqual([all[1], all[2], all[0]]);
    expect(ips(ask(index, 'api', 'AAAA'))).toEqual(['fd00:1::2', 'fd00:1::20']);
  });

  it('has its own host’s first where the network, or the service, says so', () => {
    const near = { ...CROWD, networks: [network('web', { dnsOrder: 'nearest' })], services: [HEADLESS] };
    for (const index of [indexWith(near), withServices({ ...HEADLESS, localFirst: true })])
      expect(ips(ask(index, 'api', 'A', 0.6))).toEqual([all[0], all[2], all[1]]);
  });

  it('is who has all labels, is known, not draining, and healthy', () => {
    const of = (more: Partial<Parameters<typeof indexWith>[0]>): readonly string[] =>
      ips(ask(indexWith({ ...CROWD, services: [HEADLESS], ...more }), 'api'));
    expect(of({ services: [service('web', 'api', { selector: { app: 'api', tier: 'a' } })] })).toEqual([]);
    expect(of({ services: [service('web', 'api', { selector: { tier: 'b', app: 'api' } })] })).toEqual(all);
    expect(of({ others: [TWO, { ...THREE, state: 'pending' }] })).toEqual(all.slice(0, 2));
    expect(of({ others: [TWO, { ...THREE, labels: { app: 'API' } }] })).toEqual(all.slice(0, 2));
    expect(of({ others: [TWO, { ...THREE, unhealthy: ['id-other', 'id-api'] }] })).toEqual(all.slice(0, 2));
    expect(of({ others: [TWO, { ...THREE, unhealthy: ['id-other'] }] })).toEqual(all);
    expect(of({ unhealthy: (e) => (e === OWN_ONE ? ['id-api'] : []) })).toEqual(all.slice(1));
    expect(of({ settings: [draining('web', TWO.id), draining('web', OWN_ONE.id)] })).toEqual(all.slice(2));
  });

  it('of which nobody is healthy is known all the same', () => {
    const index = indexWith({ networks: [WEB], services: [HEADLESS] });
    expect(ask(index, 'api')).toEqual(EMPTY);
    expect(ask(index, 'api.web.weft')).toEqual({ kind: 'empty', zone: 'weft' });
    expect(ask(index, '_80._tcp.api', 'SRV')).toEqual(EMPTY);
  });
});

describe('SRV', () => {
  const ports = [
    { name: 'Http', protocol: 'tcp', port: 80, targetPort: 8080, hostPort: 0 },
    { name: 'dns', protocol: 'udp', port: 53, targetPort: 5353, hostPort: 0 },
  ];

  it('of a service with virtual addresses: its port, at its own name', () => {
    const index = withServices({ ...VIRTUAL, ports });
    for (const name of ['_http._tcp.api', '_HTTP._TCP.Api.Web.', '_http._tcp.api.web.weft'])
      expect(targets(ask(index, name, 'SRV')), name).toEqual([
        { priority: 0, weight: 1, port: 80, name: 'Api.web', ips: ['10.128.15.200', 'fd00:1::f0'] },
      ]);
    expect(targets(ask(index, '_dns._udp.api', 'SRV'))).toMatchObject([{ port: 53 }]);
  });

  it('of a port without a name: its number', () => {
    expect(targets(ask(withServices(VIRTUAL), '_80._tcp.api', 'SRV'))).toMatchObject([{ port: 80 }]);
    expect(ask(withServices({ ...VIRTUAL, ports }), '_80._tcp.api', 'SRV')).toEqual({ kind: 'nxdomain', zone: 'api' });
  });

  it('of a headless service: the endpoints’ port, at their names', () => {
    const index = withServices(service('web', 'api', { ports }));
    expect(targets(ask(index, '_http._tcp.api', 'SRV', 0.4))).toEqual([
      { priority: 0, weight: 1, port: 8080, name: 'two.web', ips: ['10.128.0.32', 'fd00:1::20'] },
      { priority: 0, weight: 1, port: 8080, name: 'three.web', ips: ['10.128.0.33'] },
      { priority: 0, weight: 1, port: 8080, name: 'one.web', ips: ['10.128.0.2', 'fd00:1::2'] },
    ]);
    const near = withServices(service('web', 'api', { ports, localFirst: true }));
    expect(targets(ask(near, '_http._tcp.api', 'SRV')).map((t) => [t.name, t.priority])).toEqual([
      ['one.web', 0],
      ['two.web', 1],
      ['three.web', 1],
    ]);
  });

  it('a container that a service hides is named by its id', () => {
    const others = [remote({ network: 'web', name: 'api', ips: ['10.128.0.40'] }, app)];
    const index = indexWith({ networks: [WEB], others, services: [service('web', 'api')] });
    const name = `${containerId('api/r').slice(0, 12)}.web`;
    expect(targets(ask(index, '_80._tcp.api', 'SRV'))).toMatchObject([{ name, ips: ['10.128.0.40'] }]);
    expect(ips(ask(index, name))).toEqual(['10.128.0.40']);
  });

  it('says what is known, and what is not', () => {
    const index = withServices({ ...VIRTUAL, ports });
    for (const name of ['_http._tcp.api', '_tcp.api', '_udp.api.web']) expect(ask(index, name), name).toEqual(EMPTY);
    expect(ask(index, '_http._tcp.api.web.weft')).toEqual({ kind: 'empty', zone: 'weft' });
    expect(ask(index, 'api', 'SRV')).toEqual(EMPTY);
    for (const name of ['_no._tcp.api', '_http._udp.api', '_sctp.api', '_http.api', '_._tcp.api'])
      expect(ask(index, name, 'SRV'), name).toEqual({ kind: 'nxdomain', zone: 'api' });
    expect(ask(index, '_no._tcp.api.web.weft', 'SRV')).toEqual({ kind: 'nxdomain', zone: 'weft' });
    for (const name of ['_http._tcp.example.com', '_http._tcp.one', '_http', '_._'])
      expect(ask(index, name, 'SRV'), name).toEqual(FORWARD);
    const aliased = remote({ network: 'web', name: 'five', ips: ['10.128.0.50'], aliases: ['_no._tcp.api'] });
    const both = indexWith({ networks: [WEB], others: [aliased], services: [VIRTUAL] });
    expect(ips(ask(both, '_no._tcp.api'))).toEqual(['10.128.0.50']);
  });
});

describe('the index of services', () => {
  it('is made anew with its network only, and when health at home changes', () => {
    const failing = new Set<string>();
    const interests = new Map([
      ['web', { ...interest('web', [TWO]), services: new Map([['api', service('web', 'api')]]) }],
      ['db', interest('db', [])],
    ]);
    const sources = {
      hostId: OWN,
      view: { ...view([WEB, DB], []), interests },
      endpoints: [OWN_ONE],
      networks: new Map(),
      unhealthy: ({ id }: { id: string }) => (failing.has(id) ? ['id-api'] : []),
    };
    const before = indexNames(sources, NO_NAMES);
    expect(indexNames(sources, before)).toBe(before);
    failing.add(OWN_ONE.id);
    const sick = indexNames(sources, before);
    expect(ips(ask(sick, 'api'))).toEqual(['10.128.0.32']);
    expect(sick.get('db')).toBe(before.get('db'));
    failing.clear();
    const settings = new Map([[TWO.id, draining('web', TWO.id)]]);
    const next = { ...sources.view, interests: new Map(interests).set('web', { ...interests.get('web')!, settings }) };
    expect(ips(ask(indexNames({ ...sources, view: next }, sick), 'api'))).toEqual(['10.128.0.2']);
    const unreached = new Set([TWO.hostId]);
    const cut = indexNames({ ...sources, unreached }, before);
    expect(ips(ask(cut, 'api'))).toEqual(['10.128.0.2']);
    expect(cut.get('db')).toBe(before.get('db'));
    // Who reaches nobody may be wrong.
    expect(ips(ask(indexNames({ ...sources, endpoints: [], unreached }, before), 'api'))).toEqual(['10.128.0.32']);
    // Settings mean nothing where there is no service.
    const other = { ...sources.view, interests: new Map(interests).set('db', { ...interests.get('db')!, settings }) };
    expect(indexNames({ ...sources, view: other }, before)).toBe(before);
  });
});
