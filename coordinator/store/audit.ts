/**
 * What is wrong with the keys in etcd, and the transaction that rights it. Pure. Two ways to see it: by the state alone (records
 * against index keys), and by a change that no coordinator made: each of our transactions also writes the stamp key, so a revision
 * without it was made by hand, unless it is the end of a lease.
 */
import type { Block, Drift, Network } from '../../lib/model.ts';
import type { RawChange, RawChangeSet } from '../cache.ts';
import { decode, type RawKey } from './codec.ts';
import { type Key, keys, parseKey } from './keys.ts';
import { identityKey, indexKeys } from './taken.ts';
import type { Compare, Op, Txn } from './txn.ts';

export interface Finding {
  readonly drift: Drift;
  /** Null: nobody can tell what it should be. */
  readonly heal: Txn | null;
}

type RawKeys = ReadonlyMap<string, RawKey>;

const CLIP = 200;
const clip = (text: string): string => (text.length > CLIP ? `${text.slice(0, CLIP)}…` : text);

function finding(
  change: 'missing' | 'extra' | 'differs',
  object: string,
  want: string,
  have: string,
  heal: Txn | null,
) {
  return { drift: { kind: 'etcdKey', object, change, want: clip(want), have: clip(have) }, heal } satisfies Finding;
}

type Read = typeof decode;

/**
 * Every key, judged by the others. Keys of a kind that is not known are drift too: a new kind needs a new cluster format.
 * @param read decode, or one that remembers
 */
export function auditKeys(raw: RawKeys, read: Read = decode): Finding[] {
  const findings: Finding[] = [];
  const expected = expectedIndex(raw, read, findings);
  for (const [text, { id, lease, record }] of expected) {
    const have = raw.get(text);
    if (have?.value === id) continue;
    const compares: Compare[] = [
      { key: text, mod: have?.mod ?? 0n },
      { key: record, exists: true },
    ];
    const heal: Txn = { compares, ops: [{ put: text, value: id, lease }] };
    findings.push(finding(have === undefined ? 'missing' : 'differs', text, id, have?.value ?? '', heal));
  }
  for (const [text, value] of raw) {
    const key = parseKey(text);
    const wrong = key === null ? 'no key of Weft' : misplaced(text, key, value, raw, read, expected);
    if (wrong !== null) findings.push(finding('extra', text, '', value.value, remove(text, value, key, raw, wrong)));
  }
  return findings;
}

interface Expected {
  readonly id: string;
  readonly lease: string;
  /** Key of the record that it is the index of. */
  readonly record: string;
}

/** Index keys that the records ask for. The record that was first keeps what two of them claim. */
function expectedIndex(raw: RawKeys, read: Read, findings: Finding[]): Map<string, Expected> {
  const expected = new Map<string, Expected>();
  const records: { text: string; value: RawKey; id: string; index: readonly string[] }[] = [];
  for (const [text, value] of raw) {
    const key = parseKey(text);
    const index = key === null ? null : recordIndex(key, value, read);
    if (index !== null) records.push({ text, value, id: index.id, index: index.keys });
  }
  records.sort((a, b) => (a.value.create < b.value.create ? -1 : Number(a.value.create > b.value.create)));
  for (const { text, value, id, index } of records) {
    for (const one of index) {
      const first = expected.get(one);
      if (first === undefined) expected.set(one, { id, lease: value.lease, record: text });
      else findings.push(finding('differs', text, '', `${one} belongs to ${first.id} too`, null));
    }
  }
  return expected;
}

function recordIndex(key: Key, value: RawKey, read: Read): { id: string; keys: readonly string[] } | null {
  if (key.kind !== 'network' && key.kind !== 'host') return null;
  const decoded = read(key, value);
  if (decoded?.kind === 'network') return { id: decoded.value.id, keys: indexKeys(decoded.value) };
  if (decoded?.kind === 'host') return { id: decoded.value.id, keys: [keys.hostname(decoded.value.name)] };
  return null;
}

const INDEX: readonly Key['kind'][] = ['name', 'vni', 'vlan', 'subnet', 'hostname'];

/** Keys that only repeat what a record says. */
export const isIndexKey = (text: string): boolean => INDEX.includes(parseKey(text)?.kind ?? 'stamp');

/** The keys as they will be once the findings are healed. */
export function applied(raw: RawKeys, findings: readonly Finding[]): RawKeys {
  const after = new Map(raw);
  for (const { heal } of findings)
    for (const op of heal?.ops ?? []) {
      if ('del' in op) after.delete(op.del);
      if ('put' in op) after.set(op.put, { create: 0n, mod: 0n, ...raw.get(op.put), value: op.value, lease: '0' });
    }
  return after;
}

/** Two changes of one key by hand, one after the other: undone is what was before the first. */
export function changedAgain(first: Finding | undefined, second: Finding): Finding {
  if (first === undefined || first.heal === null || second.heal === null) return second;
  const { want } = first.drift;
  const { object, have } = second.drift;
  const change = want === '' ? 'extra' : have === '' ? 'missing' : 'differs';
  return finding(change, object, want, have, { compares: second.heal.compares, ops: first.heal.ops });
}

/** Why a key should not be there, or null. */
function misplaced(
  keyText: string,
  key: Key,
  value: RawKey,
  raw: RawKeys,
  read: Read,
  expected: ReadonlyMap<string, Expected>,
): string | null {
  if (read(key, value) === null) return 'unreadable';
  if (INDEX.includes(key.kind)) return expected.has(keyText) ? null : 'orphan';
  if ('networkId' in key) return raw.has(keys.network(key.project, key.networkId)) ? null : 'orphan';
  return null;
}

function remove(text: string, value: RawKey, key: Key | null, raw: RawKeys, wrong: string): Txn | null {
  // What it was is not to be guessed: people must look at it.
  if (wrong === 'unreadable' && (key?.kind === 'network' || key?.kind === 'cluster')) return null;
  const compares: Compare[] = [{ key: text, mod: value.mod }];
  const record = key === null ? null : recordOf(key, value);
  // The record may come back at this moment.
  if (wrong === 'orphan' && record !== null) compares.push({ key: record, mod: raw.get(record)?.mod ?? 0n });
  return { compares, ops: [{ del: text }] };
}

function recordOf(key: Key, value: RawKey): string | null {
  if ('networkId' in key) return keys.network(key.project, key.networkId);
  if (key.kind === 'hostname') return keys.host(value.value);
  if (key.kind === 'name' || key.kind === 'subnet') return keys.network(key.project, value.value);
  return key.kind === 'vni' || key.kind === 'vlan' ? keys.network('default', value.value) : null;
}

/**
 * What a set of changes has in it that no coordinator did, and how to undo it.
 * @param connected of hosts that have a session: that puts back what the host registered, and tells
 */
export function foreignChanges(set: RawChangeSet, raw: RawKeys, connected: (hostId: string) => boolean): Finding[] {
  if (set.restored) return [];
  if (set.reset) return set.changes.flatMap((change) => lostNetwork(change, raw));
  if (set.changes.length === 0 || set.changes.some((change) => change.key === keys.stamp())) return [];
  return set.changes.filter((change) => !hasKeeper(change, connected)).flatMap((change) => undo(change));
}

function hasKeeper({ key: text, before, after }: RawChange, connected: (hostId: string) => boolean): boolean {
  const key = parseKey(text);
  if (key?.kind !== 'endpoint' && key?.kind !== 'block' && key?.kind !== 'address') return false;
  const decoded = decode(key, (before ?? after)!);
  return decoded !== null && 'hostId' in (decoded.value as object) && connected((decoded.value as Block).hostId);
}

function undo({ key, before, after }: RawChange): Finding[] {
  if (after === null) {
    // Also what a lease's end looks like; keys under our own lease are looked after by it.
    if (before === null || before.lease !== '0') return [];
    const put: Op = { put: key, value: before.value };
    return [finding('missing', key, before.value, '', { compares: [{ key, mod: 0n }], ops: [put] })];
  }
  const compares: Compare[] = [{ key, mod: after.mod }];
  if (before === null) return [finding('extra', key, '', after.value, { compares, ops: [{ del: key }] })];
  const put: Op = { put: key, value: before.value, lease: before.lease };
  return [finding('differs', key, before.value, after.value, { compares, ops: [put] })];
}

/** Between two lists there are no revisions to look at; but whoever deletes a network leaves its VNI in quarantine. */
function lostNetwork({ key: text, before, after }: RawChange, raw: RawKeys): Finding[] {
  const key = parseKey(text);
  if (key?.kind !== 'network' || before === null || after !== null || before.lease !== '0') return [];
  const decoded = decode(key, before);
  if (decoded?.kind !== 'network' || rests(decoded.value, raw)) return [];
  const put = [text, ...indexKeys(decoded.value)].map(
    (one): Op => ({
      put: one,
      value: one === text ? before.value : decoded.value.id,
    }),
  );
  const guard = keys.pool(key.project, decoded.value.space);
  const compares: Compare[] = [
    { key: text, mod: 0n },
    { key: guard, mod: raw.get(guard)?.mod ?? 0n },
  ];
  return [finding('missing', text, before.value, '', { compares, ops: [...put, { put: guard, value: key.id }] })];
}

function rests(network: Network, raw: RawKeys): boolean {
  const all = [
    ...(network.vni === 0 ? [] : [keys.restingVni(network.vni)]),
    ...network.subnets.map((c) => keys.restingSubnet(network.project, network.space, c)),
  ];
  // Taken into use again is as good a sign that it was deleted in order.
  const again = raw.get(identityKey(network))?.value;
  return (again !== undefined && again !== network.id) || all.some((key) => raw.get(key)?.value.includes(network.id));
}
