/** The host's packet filter, from a listing that nft has printed (data/nft.json), against packets. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type NftPacket, NftTable, type NftVerdict } from '../../../../agent/trace/nft.ts';
import { TracePacket } from '../../../../gen/weft/v1/types.ts';

const listing = readFileSync(new URL('data/nft.json', import.meta.url), 'utf8');
/** In it: port 8080 leads to this transit address, port 80; its network is 10.128.0.0/20. */
const WEB = '169.254.67.72';
const GW = 'weft-gw';

const packet = (from: string, to: string, more: Partial<TracePacket> = {}): TracePacket =>
  TracePacket.fromPartial({
    sourceIp: from,
    destinationIp: to,
    protocol: 6,
    sourcePort: 40_000,
    destinationPort: 80,
    ttl: 64,
    ...more,
  });
const decide = (
  hook: string,
  p: TracePacket,
  at: Partial<NftPacket> = {},
  table = new NftTable(listing),
): NftVerdict[] =>
  table.run(hook, { packet: p, iif: '', oif: '', toLocal: false, dnat: false, ...at }).map(({ verdict }) => verdict);

describe('the table that nft lists', () => {
  it.each([
    ['192.0.2.9', '198.18.0.1', WEB],
    ['2001:db8::9', '2001:db8::1', 'fd57:6566:7400::a9fe:4348'],
  ])('a published port of %s leads to the container', (from, to, ip) => {
    expect(decide('prerouting', packet(from, to, { destinationPort: 8080 }), { iif: 'eth0', toLocal: true })).toEqual([
      { kind: 'dnat', ip, port: 80 },
    ]);
  });

  it('and no other port, protocol, or address does', () => {
    const to = (more: Partial<TracePacket>, local = true): NftVerdict[] =>
      decide('prerouting', packet('192.0.2.9', '198.18.0.1', more), { iif: 'eth0', toLocal: local });
    expect(to({ destinationPort: 8081 })).toEqual([]);
    expect(to({ destinationPort: 8080, protocol: 17 })).toEqual([]);
    expect(to({ destinationPort: 8080 }, false)).toEqual([]);
  });

  it('only transit addresses come from the bridge', () => {
    expect(decide('prerouting', packet('10.128.0.2', '192.0.2.9'), { iif: GW })).toEqual([{ kind: 'drop' }]);
    expect(decide('prerouting', packet(WEB, '192.0.2.9'), { iif: GW })).toEqual([]);
    expect(decide('prerouting', packet(WEB, '127.0.0.1'), { iif: GW, toLocal: true })).toEqual([{ kind: 'drop' }]);
    expect(decide('prerouting', packet('2001:db8::1', '2001:db8::2'), { iif: GW })).toEqual([{ kind: 'drop' }]);
  });

  it('frames of containers’ links are the host’s own stack’s no business', () => {
    expect(decide('prerouting', packet('10.128.0.2', '10.128.0.3'), { iif: 'wft0123456789ab' })).toEqual([
      { kind: 'drop' },
    ]);
  });

  it('who leaves gets the interface’s address', () => {
    expect(decide('postrouting', packet(WEB, '192.0.2.9'), { iif: GW, oif: 'eth0' })).toEqual([
      { kind: 'snat', ip: null },
    ]);
    expect(decide('postrouting', packet('192.0.2.9', WEB), { iif: 'eth0', oif: GW, dnat: true })).toEqual([]);
    expect(decide('postrouting', packet('169.254.94.95', WEB), { iif: GW, oif: GW, dnat: true })).toEqual([
      { kind: 'snat', ip: null },
    ]);
  });

  it('to containers only what was led there, or answers', () => {
    const come = (at: Partial<NftPacket>, more: Partial<TracePacket> = {}, from = '192.0.2.9'): NftVerdict[] =>
      decide('forward', packet(from, WEB, more), { iif: 'eth0', oif: GW, ...at });
    expect(come({})).toEqual([{ kind: 'drop' }]);
    expect(come({ dnat: true })).toEqual([{ kind: 'accept' }]);
    expect(come({}, { established: true })).toEqual([{ kind: 'accept' }]);
    // Nobody comes from outside with an address of the network inside.
    expect(come({ dnat: true }, {}, '10.128.0.77')).toEqual([{ kind: 'drop' }]);
    expect(come({ iif: GW })).toEqual([{ kind: 'drop' }]);
  });

  it('to Docker’s own bridges nothing goes', () => {
    const go = (oif: string, oifKind: string): NftVerdict[] =>
      decide('forward', packet(WEB, '172.18.0.2'), { iif: GW, oif, oifKind });
    expect(go('br-0123456789ab', 'bridge')).toEqual([{ kind: 'drop' }]);
    expect(go('br-0123456789ab', '')).toEqual([]);
    expect(go('eth0', '')).toEqual([]);
  });

  it('a fixed source address is found in its map', () => {
    const data = JSON.parse(listing) as { nftables: Record<string, Record<string, unknown>>[] };
    for (const item of data.nftables)
      if (item['map']?.['name'] === 'from4') item['map']['elem'] = [[WEB, '192.0.2.77']];
    const table = new NftTable(JSON.stringify(data));
    expect(decide('postrouting', packet(WEB, '192.0.2.9'), { iif: GW, oif: 'eth0' }, table)).toEqual([
      { kind: 'snat', ip: '192.0.2.77' },
    ]);
  });

  it('a rule planted by hand is seen, with its words', () => {
    const data = JSON.parse(listing) as { nftables: unknown[] };
    const at = data.nftables.findIndex((item) => (item as { rule?: { chain: string } }).rule?.chain === 'postrouting');
    const match = {
      match: { op: '==', left: { payload: { protocol: 'tcp', field: 'dport' } }, right: { range: [1, 99] } },
    };
    data.nftables.splice(at, 0, { rule: { chain: 'postrouting', expr: [match, { counter: {} }, { drop: null }] } });
    const table = new NftTable(JSON.stringify(data));
    const [found] = table.run('postrouting', {
      packet: packet(WEB, '192.0.2.9'),
      iif: GW,
      oif: 'eth0',
      toLocal: false,
      dnat: false,
    });
    expect(found).toMatchObject({ chain: 'postrouting', verdict: { kind: 'drop' } });
    expect(found?.rule).toContain('tcp dport');
    expect(table.unread).toEqual([]);
  });

  it('what it cannot read is passed over and named', () => {
    const data = JSON.parse(listing) as { nftables: unknown[] };
    data.nftables.push({
      rule: {
        chain: 'forward',
        expr: [{ match: { op: '==', left: { osf: { key: 'name' } }, right: 'Linux' } }, { drop: null }],
      },
    });
    const table = new NftTable(JSON.stringify(data));
    expect(decide('forward', packet(WEB, '192.0.2.9'), { iif: GW, oif: 'eth0' }, table)).toEqual([]);
    expect(table.unread).toEqual(['forward: osf name']);
  });

  it('nothing is in an empty listing', () => {
    expect(decide('forward', packet(WEB, '192.0.2.9'), {}, new NftTable('{"nftables": []}'))).toEqual([]);
    expect(() => new NftTable('')).toThrow(SyntaxError);
  });
});
