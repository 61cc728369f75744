import { describe, expect, it } from 'vitest';
import type { LocalEndpoint } from '../../../agent/contract.ts';
import {
  DNS_ADDRESS,
  HOST_ADDRESS,
  isTransit,
  pickServiceTransit,
  pickTransit,
} from '../../../agent/gateway/addresses.ts';
import { Askers } from '../../../agent/gateway/asker.ts';
import { transitOf } from '../../../agent/gateway/assign.ts';
import { resolverRoute } from '../../../agent/gateway/route.ts';
import { formatIp, parseIp } from '../../../lib/ip.ts';

const idOf = (n: number): string => n.toString(16).padStart(8, '0').padEnd(64, '0');
type Row = Pick<LocalEndpoint, 'id'> & Partial<LocalEndpoint>;
const held = (...rows: Row[]) => ({ endpoints: new Map(rows.map((e) => [e.id, e as LocalEndpoint])) });

describe('transit addresses', () => {
  it('are given to as many endpoints as there are, each once, and never the host’s own or the resolver’s', () => {
    const used = new Set<string>();
    for (let i = 0; ; i++) {
      const ip = pickTransit(idOf(i * 7), used);
      if (ip === null) break;
      expect(isTransit(parseIp(ip))).toBe(true);
      expect(used.has(ip)).toBe(false);
      used.add(ip);
    }
    // Without its first address, those of the host and the resolver, and what is for services.
    expect(used.size).toBe(2 ** 14 - 3 - 2048);
    expect(used.has(formatIp(HOST_ADDRESS))).toBe(false);
    expect(used.has(formatIp(DNS_ADDRESS))).toBe(false);
  });

  it('are given to published services apart from those, by their ids alone', () => {
    const used = new Set<string>();
    const first = pickServiceTransit('0123456789abcdef', used);
    for (let i = 0; ; i++) {
      const ip = pickServiceTransit(idOf(i * 7), used);
      if (ip === null) break;
      used.add(ip);
      expect(parseIp(ip)).toBeGreaterThanOrEqual(parseIp('169.254.120.0'));
    }
    expect(used.size).toBe(2047);
    expect(pickServiceTransit('0123456789abcdef', new Set(['169.254.64.9']))).toBe(first);
  });

  it('stay with an endpoint', () => {
    const [first, second] = [idOf(5), idOf(5).replace(/0$/, '1')];
    const { transit } = transitOf(held(), { id: first });
    const rows = held({ id: first, ...(transit === undefined ? {} : { transit }) });
    expect(transitOf(rows, { id: first })).toEqual({ transit });
    expect(transitOf(rows, { id: second }).transit).not.toBe(transit);
  });
});

describe('the route to the resolver', () => {
  const endpoint = (n: number, more: Partial<LocalEndpoint> = {}) => ({
    id: idOf(n),
    ip: '10.0.0.2',
    transit: '169.254.70.1',
    ...more,
  });

  it('is another one in each network of a container, the longest first', () => {
    const rows: Row[] = [];
    const routes: (string | null)[] = [];
    for (let n = 0; n < 16; n++) {
      const route = resolverRoute(held(...rows), endpoint(n), '/sandbox');
      routes.push(route);
      rows.push({ id: idOf(n), sandbox: '/sandbox', ...(route === null ? {} : { resolverRoute: route }) });
    }
    expect(routes.slice(0, 3)).toEqual(['169.254.100.53/32', '169.254.100.52/31', '169.254.100.52/30']);
    expect(routes.slice(14)).toEqual(['169.254.64.0/18', null]);
    expect(new Set(routes).size).toBe(16);
  });

  it('is the same in every container, and its own when asked again', () => {
    const other: Row = { id: idOf(1), sandbox: '/other', resolverRoute: '169.254.100.53/32' };
    expect(resolverRoute(held(other), endpoint(2), '/sandbox')).toBe('169.254.100.53/32');
    const again = endpoint(1, { sandbox: '/sandbox', resolverRoute: '169.254.100.53/32' });
    expect(resolverRoute(held(again), again, '/sandbox')).toBe('169.254.100.53/32');
  });

  it('is not there for what the host does not reach', () => {
    expect(resolverRoute(held(), { id: idOf(1), ip: '10.0.0.2' }, '/sandbox')).toBeNull();
    expect(resolverRoute(held(), endpoint(1, { ip: '' }), '/sandbox')).toBeNull();
  });
});

describe('who asks', () => {
  const row = (n: number, networkId: string, transit: string, sandbox: string | null): LocalEndpoint =>
    ({ id: idOf(n), networkId, transit, sandbox }) as LocalEndpoint;
  const interfaces = [
    { name: 'lo', cidr: '127.0.0.1/8' },
    { name: 'eth0', cidr: '192.0.2.1/24' },
    { name: 'eth0', cidr: '198.51.100.1/24' },
    { name: 'docker0', cidr: '172.17.0.1/16' },
    { name: 'weft-gw', cidr: '169.254.64.1/18' },
  ];
  const endpoints = new Map(
    [
      row(1, 'blue', '169.254.70.1', '/a'),
      row(2, 'red', '169.254.70.2', '/a'),
      row(3, 'red', '169.254.70.3', '/b'),
      row(4, 'blue', '169.254.70.4', null),
    ].map((e) => [e.id, e]),
  );
  const askers = new Askers({
    journal: { endpoints },
    underlay: () => '192.0.2.1',
    now: () => 0,
    interfaces: () => interfaces,
  });

  it('is an endpoint’s container, with all its networks, the one that it asks by first', () => {
    expect(askers.find('169.254.70.1')).toEqual({ networks: ['blue', 'red'] });
    expect(askers.find('169.254.70.2')).toEqual({ networks: ['red', 'blue'] });
    expect(askers.find('169.254.70.3')).toEqual({ networks: ['red'] });
    expect(askers.find('169.254.70.4')).toEqual({ networks: ['blue'] });
  });

  it('is, without a network, the host itself and what is on its other networks', () => {
    for (const ip of ['127.0.0.1', '192.0.2.1', '172.17.0.1', '172.17.3.4', '169.254.64.1'])
      expect(askers.find(ip)).toEqual({ networks: [] });
  });

  it('is nobody on the underlay, beyond a router, or with a transit address that nobody has', () => {
    for (const ip of ['192.0.2.7', '198.51.100.9', '203.0.113.1', '169.254.70.9', 'fe80::1', ''])
      expect(askers.find(ip)).toBeNull();
  });
});
