import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isDnsName, normalName } from '../../../../agent/dns/holders.ts';
import { indexNames, type NameIndex, NO_NAMES } from '../../../../agent/dns/names.ts';
import type { View } from '../../../../lib/model.ts';
import { containerId, type Has, indexOf, interest, local, network, OWN, remote, view } from './names-fixture.ts';

const ipsOf = (index: NameIndex, networkId: string, name: string): string[] =>
  (index.get(networkId)?.byName.get(name) ?? []).flatMap((holder) => holder.ips);

describe('the index of names', () => {
  it('has names, aliases and short ids, whatever their case', () => {
    const index = indexOf(
      [network('web')],
      [local({ network: 'web', name: 'Db-1', ips: ['10.128.0.2', 'fd00:1::2'], aliases: ['a.b_c', 'DB'] })],
      [remote({ network: 'web', name: 'two', ips: ['10.128.0.32'], aliases: ['db'] })],
    );
    expect(ipsOf(index, 'web', 'db-1')).toEqual(['10.128.0.2', 'fd00:1::2']);
    expect(ipsOf(index, 'web', 'a.b_c')).toEqual(['10.128.0.2', 'fd00:1::2']);
    expect(ipsOf(index, 'web', containerId('Db-1').slice(0, 12))).toEqual(['10.128.0.2', 'fd00:1::2']);
    expect(ipsOf(index, 'web', 'db')).toEqual(['10.128.0.2', 'fd00:1::2', '10.128.0.32']);
    expect(index.get('web')?.byIp.get('10.128.0.2')?.name).toBe('Db-1');
    expect(index.get('web')?.suffixes).toEqual(['.web', '.web.weft']);
  });

  it('says a network of another project by both its names', () => {
    const index = indexOf([network('n1', { name: 'Web', project: 'team' })], [], []);
    expect(index.get('n1')?.suffixes).toEqual(['.web', '.web.weft', '.team.web', '.team.web.weft']);
    expect(index.get('n1')?.title).toBe('team.Web');
  });

  it('believes the journal about this host and the view about others', () => {
    const has: Has = { network: 'web', name: 'one', ips: ['10.128.0.2'] };
    const stale = remote({ network: 'web', name: 'old', ips: ['10.128.0.3'] }, { hostId: OWN });
    const index = indexOf([network('web')], [local(has)], [stale, remote({ ...has, name: 'thief' })]);
    expect(ipsOf(index, 'web', 'old')).toEqual([]);
    expect(index.get('web')?.byIp.get('10.128.0.2')?.name).toBe('one');
  });

  it('takes the later of two records of one address', () => {
    const before = remote({ network: 'web', name: 'before', ips: ['10.128.0.9'], revision: 4 });
    const after = remote({ network: 'web', name: 'after', ips: ['10.128.0.9'], revision: 5 });
    for (const both of [
      [before, after],
      [after, before],
    ])
      expect(
        indexOf([network('web')], [], both)
          .get('web')
          ?.byIp.get('10.128.0.9')?.name,
      ).toBe('after');
  });

  it('has no name of who is pending or has left, and the names of what is attached', () => {
    const has: Has = { network: 'web', name: 'one', ips: ['10.128.0.2'] };
    const gone = [local(has, { container: null }), local({ ...has, name: 'two' }, { sandbox: null })];
    const pending = remote({ ...has, name: 'three' }, { state: 'pending' });
    const { from: _, ...none } = indexOf([network('web')], gone, [pending]).get('web')!;
    expect(none.byName.size).toBe(0);
    expect(none.byIp.size).toBe(0);
    const attached = { kind: 'tap', name: 'vm1', link: 'tap0', mtu: 1500, up: true } as const;
    const index = indexOf(
      [network('web')],
      [local({ ...has, name: 'vm1' }, { container: null, sandbox: null, attached })],
      [remote({ ...has, name: 'vm2', ips: ['10.128.0.5'] }, { container: undefined, kind: 'tap' })],
    );
    expect(ipsOf(index, 'web', 'vm1')).toEqual(['10.128.0.2']);
    expect(index.get('web')?.byIp.get('10.128.0.5')?.name).toBe('vm2');
  });

  it('knows a network from the journal when the view has none', () => {
    const row = { networkId: 'web', dockerNetworkId: 'd', name: 'web', index: 1, network: network('web') };
    const own = [local({ network: 'web', name: 'one', ips: ['10.128.0.2'] })];
    const index = indexOf([], own, [], NO_NAMES, new Map([['web', row]]));
    expect(index.get('web')?.suffixes).toEqual(['.web', '.web.weft']);
  });

  it('leaves out what DNS cannot say, and calls such a container by its id', () => {
    const name = 'x'.repeat(64);
    const index = indexOf(
      [network('web')],
      [local({ network: 'web', name, ips: ['10.128.0.2'], aliases: ['a..b', ''] })],
      [],
    );
    expect([...index.get('web')!.byName.keys()]).toEqual([containerId(name).slice(0, 12)]);
    expect(index.get('web')?.byIp.get('10.128.0.2')?.name).toBe(containerId(name).slice(0, 12));
    fc.assert(fc.property(fc.string(), (text) => typeof isDnsName(normalName(text)) === 'boolean'));
  });

  it('makes anew only the networks that have changed', () => {
    const networks = [network('a'), network('b')];
    const own = [local({ network: 'a', name: 'one', ips: ['10.128.0.2'] })];
    const old: View = view(networks, [remote({ network: 'b', name: 'two', ips: ['10.128.0.3'] })]);
    const sources = { hostId: OWN, view: old, endpoints: own, networks: new Map() };
    const before = indexNames(sources, NO_NAMES);
    // Other blocks, the same endpoints; a journal read anew, the same rows.
    const b = old.interests.get('b')!;
    const same = { ...old, interests: new Map(old.interests).set('b', { ...b, blocks: new Map() }) };
    expect(indexNames({ ...sources, view: same, endpoints: [...own] }, before)).toBe(before);
    const more = { ...old, interests: new Map(old.interests).set('b', interest('b', [])) };
    const after = indexNames({ ...sources, view: more }, before);
    expect(after.get('a')).toBe(before.get('a'));
    expect(after.get('b')?.byName.size).toBe(0);
    const less = { ...old, interests: new Map([['a', old.interests.get('a')!]]) };
    expect([...indexNames({ ...sources, view: less }, before).keys()]).toEqual(['a']);
  });

  it('ends equal in whatever steps it was made', () => {
    const names = fc.constantFrom('a', 'b', 'c.d', 'E');
    const one = fc.record({ network: fc.constantFrom('n1', 'n2'), name: names, own: fc.boolean(), at: fc.nat(20) });
    fc.assert(
      fc.property(fc.array(fc.array(one, { maxLength: 6 }), { minLength: 1, maxLength: 8 }), (states) => {
        const networks = [network('n1'), network('n2')];
        const rows = new Map<string, ReturnType<typeof local> | ReturnType<typeof remote>>();
        const made = <T extends ReturnType<typeof local> | ReturnType<typeof remote>>(
          key: string,
          make: () => T,
        ): T => {
          const row = (rows.get(key) as T | undefined) ?? make();
          rows.set(key, row);
          return row;
        };
        const build = (state: (typeof states)[number], before: NameIndex): NameIndex => {
          const has = state.map((s) => ({ ...s, ips: [`10.128.0.${s.at + 2}`] }));
          const key = (h: (typeof has)[number]): string => `${h.network} ${h.name} ${h.own} ${h.at}`;
          const own = new Map(has.filter((h) => h.own).map((h) => [key(h), made(key(h), () => local(h))]));
          const others = has.filter((h) => !h.own).map((h) => made(key(h), () => remote(h)));
          return indexOf(networks, [...own.values()], others, before);
        };
        let index = NO_NAMES;
        for (const state of states) index = build(state, index);
        const names = (i: NameIndex): unknown => [...i].map(([id, n]) => [id, n.byName, n.byIp]);
        expect(names(index)).toEqual(names(build(states.at(-1)!, NO_NAMES)));
      }),
    );
  });
});
