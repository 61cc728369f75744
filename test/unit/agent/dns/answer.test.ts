import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Answer, type Asker, answer } from '../../../../agent/dns/answer.ts';
import type { NameIndex } from '../../../../agent/dns/names.ts';
import { addressOf, reverseName } from '../../../../agent/dns/reverse.ts';
import { parseIp } from '../../../../lib/addr.ts';
import { indexOf, local, network, remote } from './names-fixture.ts';

const order = (random = 0) => ({ random: () => random });
const ask = (index: NameIndex, name: string, type = 'A', asker: Asker = { networks: ['web'] }, o = order()): Answer =>
  answer({ name, type }, asker, index, o);
const reverse = (ip: string): string => reverseName(ip, parseIp(ip));
const EMPTY = { kind: 'empty', zone: null };
const FORWARD = { kind: 'forward' };

const WEB = network('web');
const DB = network('db', { subnets: ['10.128.16.0/20'] });
const NEAR = network('web', { dnsOrder: 'nearest' });
const indexOn = (web: typeof WEB): NameIndex =>
  indexOf(
    [web, DB],
    [
      local({ network: 'web', name: 'one', ips: ['10.128.0.2', 'fd00:1::2'], aliases: ['app'] }),
      local({ network: 'db', name: 'one', ips: ['10.128.16.2'], aliases: ['app'] }),
    ],
    [
      remote({ network: 'web', name: 'two', ips: ['10.128.0.32'], aliases: ['app', 'x.y_z'] }),
      remote({ network: 'web', name: 'six', ips: ['fd00:1::6'] }),
      remote({ network: 'db', name: 'secret', ips: ['10.128.16.3'] }),
    ],
  );
const INDEX = indexOn(WEB);

describe('what a container is told', () => {
  it('addresses, by every form of a name', () => {
    for (const name of ['two', 'TWO', 'two.', 'two.web', 'Two.Web.Weft.', 'x.y_z', 'x.y_z.web.weft'])
      expect(ask(INDEX, name), name).toEqual({ kind: 'addresses', type: 'A', ips: ['10.128.0.32'] });
    expect(ask(INDEX, 'one', 'AAAA')).toEqual({ kind: 'addresses', type: 'AAAA', ips: ['fd00:1::2'] });
  });

  it('that a name is there, for a family or type that it has not', () => {
    expect(ask(INDEX, 'two', 'AAAA')).toEqual(EMPTY);
    expect(ask(INDEX, 'six', 'A')).toEqual(EMPTY);
    for (const type of ['SRV', 'MX', 'TXT', 'ANY', 'UNKNOWN_65']) expect(ask(INDEX, 'two', type)).toEqual(EMPTY);
    expect(ask(INDEX, 'two.web.weft', 'AAAA')).toEqual({ kind: 'empty', zone: 'weft' });
  });

  it('that below .weft there is nothing else, and elsewhere to ask elsewhere', () => {
    for (const name of ['three.web.weft', 'one.db.weft', 'db.weft', 'x.weft'])
      expect(ask(INDEX, name), name).toEqual({ kind: 'nxdomain', zone: 'weft' });
    for (const name of ['weft', 'web.weft']) expect(ask(INDEX, name), name).toEqual({ kind: 'empty', zone: 'weft' });
    for (const name of ['three', 'three.web', 'one.db', 'secret', 'example.com', 'aweft', '.', ''])
      expect(ask(INDEX, name), name).toEqual(FORWARD);
  });

  it('nothing of networks that it is not in', () => {
    expect(ask(INDEX, 'secret.db', 'A', { networks: ['web', 'db'] })).toMatchObject({ ips: ['10.128.16.3'] });
    expect(ask(INDEX, 'one', 'A', { networks: [] })).toEqual(FORWARD);
    expect(ask(INDEX, 'one', 'A', { networks: ['gone'] })).toEqual(FORWARD);
    expect(ask(INDEX, reverse('10.128.16.3'), 'PTR')).toEqual(FORWARD);
  });

  it('one address of a container that it shares two networks with, the first one', () => {
    expect(ask(INDEX, 'one', 'A', { networks: ['web', 'db'] })).toMatchObject({ ips: ['10.128.0.2'] });
    expect(ask(INDEX, 'one', 'A', { networks: ['db', 'web'] })).toMatchObject({ ips: ['10.128.16.2'] });
    expect(ask(INDEX, 'one', 'AAAA', { networks: ['db', 'web'] })).toMatchObject({ ips: ['fd00:1::2'] });
    expect(ask(INDEX, 'app', 'A', { networks: ['db', 'web'] })).toMatchObject({ ips: ['10.128.16.2', '10.128.0.32'] });
  });

  it('names of addresses: the container, not its alias; first as Docker does', () => {
    expect(ask(INDEX, reverse('10.128.0.32'), 'PTR')).toEqual({ kind: 'pointers', names: ['two.web', 'two.web.weft'] });
    expect(ask(INDEX, reverse('fd00:1::6').toUpperCase(), 'PTR')).toMatchObject({ names: ['six.web', 'six.web.weft'] });
    expect(ask(INDEX, reverse('10.128.0.32'), 'A')).toMatchObject({ kind: 'empty' });
    expect(ask(INDEX, reverse('10.128.0.9'), 'PTR')).toEqual({ kind: 'nxdomain', zone: '0.128.10.in-addr.arpa' });
    expect(ask(INDEX, reverse('fd00:1::9'), 'PTR')).toMatchObject({ kind: 'nxdomain' });
    for (const name of [
      reverse('192.0.2.1'),
      '0.128.10.in-addr.arpa',
      '1.2.3.4.5.in-addr.arpa',
      '01.0.128.10.in-addr.arpa',
    ])
      expect(ask(INDEX, name, 'PTR'), name).toEqual(FORWARD);
  });

  it('turns the order, and puts its own host first where the network says so', () => {
    const both = { networks: ['web'] };
    expect(ask(INDEX, 'app', 'A', both, order(0))).toMatchObject({ ips: ['10.128.0.2', '10.128.0.32'] });
    expect(ask(INDEX, 'app', 'A', both, order(0.5))).toMatchObject({ ips: ['10.128.0.32', '10.128.0.2'] });
    for (const random of [0, 0.3, 0.5, 0.999999])
      expect(ask(indexOn(NEAR), 'app', 'A', both, order(random))).toMatchObject({ ips: ['10.128.0.2', '10.128.0.32'] });
  });
});

const NAMES = fc.constantFrom('a', 'b', 'a.b', 'C_1', 'web', 'x.web', 'weft');
const CROWD = fc
  .uniqueArray(
    fc.record({
      at: fc.integer({ min: 2, max: 250 }),
      name: NAMES,
      aliases: fc.array(NAMES, { maxLength: 2 }),
      network: fc.constantFrom('web', 'db'),
      own: fc.boolean(),
      v6: fc.constantFrom('both', 'v4', 'v6'),
    }),
    { selector: (e) => e.at, maxLength: 12 },
  )
  .map((list) =>
    list.map(({ at, v6, ...e }) => {
      const v4 = e.network === 'web' ? `10.128.0.${at}` : `10.128.16.${at}`;
      const ip6 = `fd00:${e.network === 'web' ? 1 : 2}::${at.toString(16)}`;
      const ips = v6 === 'both' ? [v4, ip6] : v6 === 'v4' ? [v4] : [ip6];
      return { ...e, ips, container: `${at.toString(16).padStart(12, '0')}${'0'.repeat(52)}` };
    }),
  );
type Crowd = typeof CROWD extends fc.Arbitrary<infer T> ? T : never;
const crowdIndex = (crowd: Crowd, web = WEB): NameIndex =>
  indexOf(
    [web, DB],
    crowd.filter((e) => e.own).map((e) => local(e, { id: e.container })),
    crowd.filter((e) => !e.own).map((e) => remote(e, { id: e.container })),
  );
const ASKER = fc.shuffledSubarray(['web', 'db']).map((networks) => ({ networks }));

describe('of any crowd', () => {
  it('forward and reverse agree, on the host of the container as on any other', () => {
    fc.assert(
      fc.property(CROWD, fc.double({ min: 0, max: 0.99, noNaN: true }), (crowd, random) => {
        const here = crowdIndex(crowd);
        const there = crowdIndex(crowd.map((e) => ({ ...e, own: !e.own })));
        for (const { ips, network: id, name } of crowd)
          for (const ip of ips) {
            const asker = { networks: [id] };
            const told = ask(here, reverse(ip), 'PTR', asker, order(random));
            expect(told).toEqual({ kind: 'pointers', names: [`${name}.${id}`, `${name}.${id}.weft`] });
            expect(ask(there, reverse(ip), 'PTR', asker)).toEqual(told);
            for (const back of told.kind === 'pointers' ? told.names : []) {
              const found = ask(here, back, ip.includes(':') ? 'AAAA' : 'A', asker, order(random));
              expect(found.kind === 'addresses' ? found.ips : []).toContain(ip);
            }
          }
      }),
    );
  });

  it('tells exactly the addresses that the name has on the networks of who asks', () => {
    fc.assert(
      fc.property(
        CROWD,
        ASKER,
        NAMES,
        fc.constantFrom('A', 'AAAA'),
        fc.boolean(),
        (crowd, asker, name, type, nearest) => {
          const told = ask(crowdIndex(crowd, nearest ? NEAR : WEB), name, type, asker, order(0.4));
          const asked = name.toLowerCase();
          const forms = (e: Crowd[number]): string[] =>
            [e.name, ...e.aliases].flatMap((n) =>
              ['', `.${e.network}`, `.${e.network}.weft`].map((s) => n.toLowerCase() + s),
            );
          const known = crowd.filter((e) => asker.networks.includes(e.network) && forms(e).includes(asked));
          const ips = known.flatMap((e) => e.ips.filter((ip) => ip.includes(':') === (type === 'AAAA')));
          expect(told.kind === 'addresses' ? told.ips.toSorted() : []).toEqual([...new Set(ips)].toSorted());
          if (known.length > 0) expect(told.kind).not.toBe('forward');
        },
      ),
    );
  });

  it('every address is first equally often', () => {
    const crowd = Array.from({ length: 5 }, (_, i) =>
      remote({ network: 'web', name: `r${i}`, ips: [`10.128.0.${i + 2}`], aliases: ['all'] }),
    );
    const index = indexOf([WEB], [], crowd);
    const first = Array.from({ length: 10 }, (_, i) => ask(index, 'all', 'A', undefined, order((i + 0.5) / 10)));
    const counts = Map.groupBy(first, (a) => (a.kind === 'addresses' ? a.ips[0] : ''));
    expect([...counts.values()].map((list) => list.length)).toEqual([2, 2, 2, 2, 2]);
  });
});

it('reads reverse names, and nothing else', () => {
  fc.assert(
    fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (ip) => {
      const value = parseIpLoose(ip);
      if (value !== null) expect(addressOf(reverseName(ip.includes(':') ? '::' : ip, value))).toBe(value);
    }),
  );
  for (const name of [
    'in-addr.arpa',
    '1.in-addr.arpa',
    '256.0.0.1.in-addr.arpa',
    'a.ip6.arpa',
    `${'g.'.repeat(32)}ip6.arpa`,
  ])
    expect(addressOf(name), name).toBeNull();
});

function parseIpLoose(ip: string): bigint | null {
  try {
    return parseIp(ip);
  } catch {
    return null;
  }
}
