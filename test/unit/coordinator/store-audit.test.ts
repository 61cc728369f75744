import { describe, expect, test } from 'vitest';
import type { RawChange } from '../../../coordinator/cache.ts';
import { applied, auditKeys, changedAgain, foreignChanges } from '../../../coordinator/store/audit.ts';
import { encode, type RawKey } from '../../../coordinator/store/codec.ts';
import { keys } from '../../../coordinator/store/keys.ts';
import {
  Block,
  Endpoint,
  EndpointSettings,
  ExternalPeer,
  Host,
  Memberships,
  Network,
} from '../../../gen/weft/v1/types.ts';

const network = (id: string, name: string, vni: number, subnet: string): Network =>
  Network.fromPartial({ id, project: 'default', name, space: 'default', vni, subnets: [subnet], state: 'bound' });

let clock = 0n;
const raw = (value: string, lease = '0'): RawKey => ({ value, create: ++clock, mod: clock, lease });

/** A state in order: two networks, a host with a block and an endpoint. */
function sound(): Map<string, RawKey> {
  const all = new Map<string, RawKey>();
  const put = (key: string, value: string): unknown => all.set(key, raw(value));
  put(keys.cluster(), encode.cluster({ id: 'c', epoch: 1n }));
  put(keys.stamp(), 'one');
  for (const one of [network('n1', 'blue', 4096, '10.128.0.0/20'), network('n2', 'red', 4097, '10.128.16.0/20')]) {
    put(keys.network('default', one.id), encode.network(one));
    put(keys.name('default', one.name), one.id);
    put(keys.vni(one.vni), one.id);
    put(keys.subnet('default', 'default', one.subnets[0]!), one.id);
  }
  put(keys.host('h'), encode.host(Host.fromPartial({ id: 'h', name: 'h1' })));
  put(keys.hostname('h1'), 'h');
  put(keys.block('default', 'n1', '10.128.0.0/27'), encode.block(block('n1')));
  put(keys.endpoint('default', 'n1', 'e'), encode.endpoint(endpoint('n1')));
  return all;
}
const block = (networkId: string): Block => Block.fromPartial({ networkId, cidr: '10.128.0.0/27', hostId: 'h' });
const endpoint = (networkId: string): Endpoint => Endpoint.fromPartial({ id: 'e', networkId, hostId: 'h' });

/** Applies what the audit would do. */
function healed(all: Map<string, RawKey>): Map<string, RawKey> {
  const result = new Map(all);
  for (const { heal } of auditKeys(all))
    for (const op of heal?.ops ?? []) {
      if ('put' in op) result.set(op.put, raw(op.value));
      else if ('del' in op) result.delete(op.del);
    }
  return result;
}
const brief = (all: Map<string, RawKey>): string[] =>
  auditKeys(all).map(({ drift }) => `${drift.change} ${drift.object}`);

describe('records that belong to a network', () => {
  const peer = ExternalPeer.fromPartial({ id: 'x', name: 'r', networkId: 'n1', vtep: '192.0.2.9' });
  const settings = EndpointSettings.fromPartial({ endpointId: 'e', networkId: 'n1' });
  const groups = Memberships.fromPartial({ hostId: 'h', networkId: 'n1' });
  const withAll = (networkId: string): Map<string, RawKey> => {
    const all = sound();
    all.set(keys.external('default', networkId, 'x'), raw(encode.external({ ...peer, networkId })));
    all.set(keys.settings('default', networkId, 'e'), raw(encode.settings({ ...settings, networkId })));
    all.set(keys.memberships('default', networkId, 'h'), raw(encode.memberships({ ...groups, networkId }), '7'));
    return all;
  };

  test('are sound with it, and orphans without', () => {
    expect(auditKeys(withAll('n1'))).toEqual([]);
    expect(brief(withAll('n9')).sort()).toEqual([
      'extra /weft/v1/default/externals/n9/x',
      'extra /weft/v1/default/memberships/n9/h',
      'extra /weft/v1/default/settings/n9/e',
    ]);
    expect(auditKeys(healed(withAll('n9')))).toEqual([]);
  });

  test('settings of an endpoint that was deleted by hand stay until it is back', () => {
    const all = withAll('n1');
    all.delete(keys.endpoint('default', 'n1', 'e'));
    expect(brief(all)).toEqual([]);
  });

  test('a vlan network has uplink and tag as its index, and no VNI', () => {
    const all = sound();
    const vlan = { ...network('n3', 'v', 0, '10.128.32.0/20'), encap: 'vlan', uplink: 'eth1', vlanTag: 7 };
    all.set(keys.network('default', 'n3'), raw(encode.network(vlan)));
    expect(brief(all).sort()).toEqual([
      'missing /weft/v1/default/names/v',
      'missing /weft/v1/default/subnets/default/10.128.32.0_20',
      'missing /weft/v1/vlans/eth1/7',
    ]);
    const good = healed(all);
    expect(auditKeys(good)).toEqual([]);
    good.delete(keys.network('default', 'n3'));
    expect(brief(good)).toContain('extra /weft/v1/vlans/eth1/7');
    expect(auditKeys(healed(good))).toEqual([]);
  });
});

describe('the state judged by itself', () => {
  test('a sound state has no drift', () => {
    expect(auditKeys(sound())).toEqual([]);
  });

  test.each([
    keys.name('default', 'blue'),
    keys.vni(4096),
    keys.subnet('default', 'default', '10.128.0.0/20'),
    keys.hostname('h1'),
  ])('index key %s: missing and different are written anew', (key) => {
    const all = sound();
    const good = all.get(key)!.value;
    all.delete(key);
    expect(brief(all)).toEqual([`missing ${key}`]);
    expect(healed(all).get(key)?.value).toBe(good);
    all.set(key, raw('other'));
    expect(brief(all)).toEqual([`differs ${key}`]);
    expect(healed(all).get(key)?.value).toBe(good);
  });

  test('what belongs to nothing is extra', () => {
    const all = sound();
    const extra = [
      keys.name('default', 'ghost'),
      keys.vni(9),
      keys.subnet('default', 'default', '10.1.0.0/16'),
      keys.hostname('ghost'),
      keys.block('default', 'gone', '10.128.0.0/27'),
      keys.endpoint('default', 'gone', 'e'),
      '/weft/v1/default/unknown/x',
      '/weft/v1/x',
    ];
    for (const key of extra) all.set(key, raw('gone'));
    all.set(extra[4]!, raw(encode.block(block('gone'))));
    all.set(extra[5]!, raw(encode.endpoint(endpoint('gone'))));
    expect(brief(all).sort()).toEqual(extra.map((key) => `extra ${key}`).sort());
    expect(brief(healed(all))).toEqual([]);
  });

  test('an unreadable value: host-owned ones go, a network is for people to look at', () => {
    const all = sound();
    all.set(keys.block('default', 'n1', '10.128.0.0/27'), raw('garbage'));
    expect(brief(all)).toEqual([`extra ${keys.block('default', 'n1', '10.128.0.0/27')}`]);
    const damaged = sound();
    damaged.set(keys.network('default', 'n2'), raw('garbage'));
    const found = auditKeys(damaged).find(({ drift }) => drift.object === keys.network('default', 'n2'));
    expect(found).toMatchObject({ drift: { have: 'garbage' }, heal: null });
  });

  test('two records that claim one name: the first keeps it', () => {
    const all = sound();
    all.set(keys.network('default', 'n3'), raw(encode.network(network('n3', 'blue', 4098, '10.128.32.0/20'))));
    expect(healed(all).get(keys.name('default', 'blue'))?.value).toBe('n1');
    expect(auditKeys(all)).toContainEqual(expect.objectContaining({ heal: null }));
  });
});

describe('changes that no coordinator made', () => {
  const set = (...changes: RawChange[]) => ({ revision: ++clock, changes, reset: false, restored: false });
  const nobody = (): boolean => false;
  const key = keys.network('default', 'n1');

  test('are undone: a deletion, a new key, another value', () => {
    const before = raw('old');
    const after = raw('new');
    const ops = (change: RawChange) => foreignChanges(set(change), new Map(), nobody).map((f) => f.heal?.ops);
    expect(ops({ key, before, after: null })).toEqual([[{ put: key, value: 'old' }]]);
    expect(ops({ key, before: null, after })).toEqual([[{ del: key }]]);
    expect(ops({ key, before, after })).toEqual([[{ put: key, value: 'old', lease: '0' }]]);
  });

  test('a revision with the stamp is ours, and the end of a lease nobody has to undo', () => {
    const stamp = { key: keys.stamp(), before: raw('one'), after: raw('one') };
    const deletion = { key, before: raw('old'), after: null };
    expect(foreignChanges(set(stamp, deletion), new Map(), nobody)).toEqual([]);
    expect(foreignChanges(set({ key, before: raw('old', '77'), after: null }), new Map(), nobody)).toEqual([]);
  });

  test('what a connected host registered is put back by its session', () => {
    const change = {
      key: keys.block('default', 'n1', '10.128.0.0/27'),
      before: raw(encode.block(block('n1'))),
      after: null,
    };
    expect(foreignChanges(set(change), new Map(), (id) => id === 'h')).toEqual([]);
    expect(foreignChanges(set(change), new Map(), nobody)).toHaveLength(1);
  });

  test('a network lost between two lists comes back, unless its VNI rests or etcd was restored', () => {
    const all = sound();
    const before = all.get(key)!;
    all.delete(key);
    const reset = { ...set({ key, before, after: null }), reset: true };
    expect(foreignChanges(reset, all, nobody)[0]?.heal?.ops).toContainEqual({ put: key, value: before.value });
    expect(foreignChanges({ ...reset, restored: true }, all, nobody)).toEqual([]);
    all.set(keys.restingVni(4096), raw(encode.resting({ networkId: 'n1', since: '' })));
    expect(foreignChanges(reset, all, nobody)).toEqual([]);
  });

  test('one key changed twice: undone is what was before the first change', () => {
    const before = raw('old');
    const after = raw('new');
    const [deleted] = foreignChanges(set({ key, before, after: null }), new Map(), nobody);
    const [written] = foreignChanges(set({ key, before: null, after }), new Map(), nobody);
    const both = changedAgain(deleted, written!);
    expect(both.drift).toMatchObject({ change: 'differs', want: 'old', have: 'new' });
    expect(both.heal).toEqual({ compares: [{ key, mod: after.mod }], ops: [{ put: key, value: 'old' }] });
    expect(changedAgain(undefined, written!)).toBe(written);
  });

  test('a record deleted by hand does not make its index keys extra', () => {
    const all = sound();
    const before = all.get(key)!;
    all.delete(key);
    const findings = foreignChanges(set({ key, before, after: null }), all, nobody);
    expect(auditKeys(all).length).toBeGreaterThan(1);
    expect(auditKeys(applied(all, findings))).toEqual([]);
  });
});
