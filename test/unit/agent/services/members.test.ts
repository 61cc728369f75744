/** Who is behind a service, as a host sees it. */
import { describe, expect, it } from 'vitest';
import type { LocalEndpoint } from '../../../../agent/contract.ts';
import type { ServiceModel } from '../../../../agent/flows/model.ts';
import { indexServices, NO_SERVICES, type ServiceSources } from '../../../../agent/services/members.ts';
import { formatIp } from '../../../../lib/ip.ts';
import { formatIp6 } from '../../../../lib/ip6.ts';
import { formatMac } from '../../../../lib/mac.ts';
import { draining, mine, N, row, service, sourcesOf, tcpCheck, theirs, viewOf } from './support.ts';

const modelsOf = (sources: ServiceSources): readonly ServiceModel[] =>
  indexServices(sources, NO_SERVICES).get(N)?.models ?? [];
const text = (a: ServiceModel['address']): string => (a.family === 4 ? formatIp(a.address) : formatIp6(a.address));
const behind = (m: ServiceModel | undefined): string[] =>
  (m?.backends ?? []).map((b) => `${text(b.address)}:${b.port}`);

describe('who is behind a service', () => {
  it('has all of the labels, and is known, on whatever host', () => {
    const sources = sourcesOf(
      viewOf({
        services: [service('s', { selector: { role: 'web', tier: 'front' } })],
        theirs: [
          theirs('b', '10.1.0.20', { labels: { role: 'web', tier: 'front', more: 'x' } }),
          theirs('c', '10.1.0.21'),
          theirs('g', '10.1.0.23', { labels: { role: 'web', tier: 'back' } }),
          theirs('h', '10.1.0.24', { labels: { role: 'db', tier: 'front' } }),
          theirs('d', '10.1.0.22', { labels: { role: 'web', tier: 'front' }, state: 'pending' }),
        ],
      }),
      [
        mine('a', '10.1.0.2', { labels: { role: 'web', tier: 'front' } }),
        mine('e', '10.1.0.3', { labels: { role: 'web', tier: 'front' }, container: null }),
        mine('f', '10.1.0.4', { labels: { tier: 'front' } }),
      ],
    );
    expect(modelsOf(sources).map(behind)).toEqual([['10.1.0.2:8080', '10.1.0.20:8080']]);
  });

  it('is believed of this host by its journal alone', () => {
    const told = [theirs('a', '10.1.0.2', { hostId: 'h1' }), theirs('gone', '10.1.0.9', { hostId: 'h1' })];
    const sources = sourcesOf(viewOf({ services: [service('s')], theirs: told }), [mine('a', '10.1.0.3')]);
    expect(modelsOf(sources).map(behind)).toEqual([['10.1.0.3:8080']]);
  });

  it('answers its check, as its own host finds, and is not draining', () => {
    const sources = sourcesOf(
      viewOf({
        services: [service('s', { health: tcpCheck() }), service('t')],
        theirs: [theirs('b', '10.1.0.20', { unhealthy: ['s'] }), theirs('c', '10.1.0.21')],
        settings: [draining('d'), draining('c')],
      }),
      [mine('a', '10.1.0.2'), mine('d', '10.1.0.3'), mine('e', '10.1.0.4')],
      (e) => (e.id === 'a' ? SICK : WELL),
    );
    expect(modelsOf(sources).map(behind)).toEqual([
      ['10.1.0.4:8080'],
      ['10.1.0.2:8080', '10.1.0.20:8080', '10.1.0.4:8080'],
    ]);
  });
  const SICK = ['s'];
  const WELL: string[] = [];

  it('is on a host that this one reaches, while there is one', () => {
    const world = { services: [service('s')], theirs: [theirs('b', '10.1.0.20', { hostId: 'h2' })] };
    const of = (unreached: string[], ...own: LocalEndpoint[]) =>
      modelsOf(sourcesOf(viewOf(world), [mine('x', '10.1.0.9', { labels: {} }), ...own], () => [], new Set(unreached)));
    expect(of(['h2'], mine('a', '10.1.0.2')).map(behind)).toEqual([['10.1.0.2:8080']]);
    expect(of(['h3'], mine('a', '10.1.0.2')).map(behind)).toEqual([['10.1.0.2:8080', '10.1.0.20:8080']]);
    expect(of(['h2']).map(behind)).toEqual([['10.1.0.20:8080']]);
  });

  it('is on this host while one here is healthy, if the service says so', () => {
    const view = viewOf({ services: [service('s', { localFirst: true })], theirs: [theirs('b', '10.1.0.20')] });
    const endpoints = [mine('a', '10.1.0.2'), mine('client', '10.1.0.3', { labels: {} })];
    expect(modelsOf(sourcesOf(view, endpoints)).map(behind)).toEqual([['10.1.0.2:8080']]);
    const sick = ['s'];
    const without = sourcesOf(view, endpoints, (e) => (e.id === 'a' ? sick : WELL));
    expect(modelsOf(without).map(behind)).toEqual([['10.1.0.20:8080']]);
  });

  it('has an address of the family that is asked for', () => {
    const ports = [
      { name: 'a', protocol: 'tcp', port: 80, targetPort: 8080, hostPort: 0 },
      { name: 'b', protocol: 'udp', port: 53, targetPort: 53, hostPort: 0 },
      { name: 'c', protocol: 'sctp', port: 9, targetPort: 9, hostPort: 0 },
    ];
    const sources = sourcesOf(
      viewOf({
        services: [service('s', { ips: ['10.1.0.200', 'fd00::200'], ports, affinityS: 30 })],
        theirs: [theirs('b', 'fd00::20', { mac: '02:59:00:00:00:20' })],
      }),
      [mine('a', '10.1.0.2', { ip6: 'fd00::2' })],
    );
    const all = modelsOf(sources);
    expect(all.map((m) => [text(m.address), m.protocol, m.port, m.affinity])).toEqual([
      ['10.1.0.200', 6, 80, 30],
      ['10.1.0.200', 17, 53, 30],
      ['fd00::200', 6, 80, 30],
      ['fd00::200', 17, 53, 30],
    ]);
    expect(all.map(behind)).toEqual([
      ['10.1.0.2:8080'],
      ['10.1.0.2:53'],
      ['fd00::2:8080', 'fd00::20:8080'],
      ['fd00::2:53', 'fd00::20:53'],
    ]);
    expect(all[2]?.backends.map((b) => formatMac(b.mac))).toEqual(['02:58:0a:01:00:02', '02:59:00:00:00:20']);
  });

  it('is nobody for a headless service, in a vlan, and where this host has no endpoint', () => {
    expect(
      modelsOf(sourcesOf(viewOf({ services: [service('s', { ips: [], headless: true })] }), [mine('a', '10.1.0.2')])),
    ).toEqual([]);
    const view = viewOf({ services: [service('s')], theirs: [theirs('b', '10.1.0.20')] });
    expect(indexServices(sourcesOf(view, []), NO_SERVICES)).toBe(NO_SERVICES);
    const vlan = new Map([[N, { ...row, network: { ...row.network, encap: 'vlan' } }]]);
    expect(modelsOf({ ...sourcesOf(view, [mine('a', '10.1.0.2')]), networks: vlan })).toEqual([]);
  });

  it('may be nobody: what is sent there is dropped', () => {
    const sources = sourcesOf(viewOf({ services: [service('s')] }), [mine('a', '10.1.0.2', { labels: {} })]);
    expect(modelsOf(sources)).toMatchObject([{ port: 80, backends: [] }]);
  });
});

describe('the index', () => {
  const view = viewOf({ services: [service('s'), service('t', { selector: { role: 'db' } })] });
  const [web, db] = [mine('a', '10.1.0.2'), mine('b', '10.1.0.3', { labels: { role: 'db' } })];

  it('is the same object until something changes, and so are services that nothing changed for', () => {
    const first = indexServices(sourcesOf(view, [web, db]), NO_SERVICES);
    expect(indexServices(sourcesOf({ ...view }, [web, db]), first)).toBe(first);
    const second = indexServices(sourcesOf(view, [web, db, mine('c', '10.1.0.4')]), first);
    expect(second).not.toBe(first);
    expect(second.get(N)?.models.map((m, i) => m === first.get(N)?.models[i])).toEqual([false, true]);
    const third = indexServices(sourcesOf(view, [web, db, mine('x', '10.1.0.5', { labels: {} })]), first);
    expect(third.get(N)?.models).toBe(first.get(N)?.models);
  });

  it('forgets what is no service any more', () => {
    const first = indexServices(sourcesOf(view, [web, db]), NO_SERVICES);
    expect(indexServices(sourcesOf(view, []), first).size).toBe(0);
    const less = viewOf({ services: [service('s')] });
    expect(indexServices(sourcesOf(less, [web, db]), first).get(N)?.models).toHaveLength(1);
  });

  it('has numbers that do not depend on what else there is', () => {
    const both = indexServices(sourcesOf(view, [web, db]), NO_SERVICES).get(N)?.models ?? [];
    const one = indexServices(sourcesOf(viewOf({ services: [service('t')] }), [web]), NO_SERVICES).get(N)?.models;
    expect(one?.[0]?.id).toBe(both[1]?.id);
    expect(new Set(both.map((m) => m.id)).size).toBe(2);
  });
});
