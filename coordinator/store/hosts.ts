/** Hosts, and which coordinator has a host's session. */
import { WeftError } from '../../lib/errors.ts';
import type { Host, Revision } from '../../lib/model.ts';
import { encode } from './codec.ts';
import { type Deps, fresh, modOf, revisionOf } from './deps.ts';
import { keys } from './keys.ts';
import { dropMemberships, membershipKeys } from './memberships.ts';
import { type Compare, chunks, MAX_OPS, type Op, type Planned } from './txn.ts';

/** Writes the record; a name belongs to one host. @throws INVALID_ARGUMENT, ALREADY_EXISTS */
export function putHost(deps: Deps, host: Host): Promise<Revision> {
  if (host.id === '' || host.name === '')
    throw new WeftError('INVALID_ARGUMENT', 'a host needs an id and a name', { hint: 'set its name in agent.yaml' });
  if (!/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/.test(host.name) || host.id.includes('/'))
    throw new WeftError('INVALID_ARGUMENT', `"${host.name}" is not a host name`, {
      hint: 'use 1 to 63 letters, digits, "_", "." or "-", beginning with a letter or digit',
    });
  return deps.committer.run(`host ${host.id}`, () => planPutHost(deps, host));
}

function planPutHost(deps: Deps, host: Host): Planned<Revision> {
  const { cache } = deps;
  const key = keys.host(host.id);
  const name = keys.hostname(host.name);
  const value = encode.host(host);
  const owner = cache.raw.get(name)?.value;
  if (owner !== undefined && owner !== host.id && cache.hosts.get(owner)?.name === host.name)
    throw new WeftError('ALREADY_EXISTS', `another host is named "${host.name}"`, {
      hint: 'give this one another name in agent.yaml, or remove the other: weft host rm',
    });
  if (owner === host.id && cache.raw.get(key)?.value === value) return { done: revisionOf(deps, cache.revision) };
  const old = cache.hosts.get(host.id)?.name;
  const stale = old !== undefined && old !== host.name && cache.raw.get(keys.hostname(old))?.value === host.id;
  const compares: Compare[] = [
    { key, mod: modOf(cache, key) },
    { key: name, mod: modOf(cache, name) },
  ];
  const ops: Op[] = [
    { put: key, value },
    { put: name, value: host.id },
    ...(stale ? [{ del: keys.hostname(old) }] : []),
  ];
  return { txn: { compares, ops }, result: (revision) => revisionOf(deps, revision) };
}

/** The keys that a host holds in networks, as the cache has them. */
export function heldKeys(deps: Deps, hostId: string): string[] {
  const { cache } = deps;
  const found: string[] = [];
  const project = (networkId: string): string => cache.networks.get(networkId)?.project ?? 'default';
  for (const [id, blocks] of cache.blocks)
    for (const block of blocks.values())
      if (block.hostId === hostId) found.push(keys.block(project(id), id, block.cidr));
  for (const [id, claims] of cache.addresses)
    for (const claim of claims.values())
      if (claim.hostId === hostId) found.push(keys.address(project(id), id, claim.address));
  for (const [id, endpoints] of cache.endpoints)
    for (const endpoint of endpoints.values())
      if (endpoint.hostId === hostId) found.push(keys.endpoint(project(id), id, endpoint.id));
  return found;
}

/** Settings of the host's endpoints. */
function settingsKeys(deps: Deps, hostId: string): string[] {
  const { cache } = deps;
  const found: string[] = [];
  for (const [id, byEndpoint] of cache.settings)
    for (const endpointId of byEndpoint.keys())
      if (cache.endpoints.get(id)?.get(endpointId)?.hostId === hostId)
        found.push(keys.settings(cache.networks.get(id)?.project ?? 'default', id, endpointId));
  return found;
}

/** @throws NOT_FOUND; FAILED_PRECONDITION while a coordinator has its session */
export async function deleteHost(deps: Deps, id: string): Promise<Revision> {
  if ((await fresh(deps, () => deps.cache.hosts.get(id))) === undefined)
    throw new WeftError('NOT_FOUND', `there is no host ${id}`, { hint: 'list them: weft host ls' });
  // Until only the record is left: what is too much for one transaction goes first.
  for (;;) {
    const result = await deps.committer.run(`host ${id}`, () => planDeleteHost(deps, id));
    if (result !== null) return result;
  }
}

function planDeleteHost(deps: Deps, id: string): Planned<Revision | null> {
  const { cache } = deps;
  const host = cache.hosts.get(id);
  if (host === undefined) return { done: revisionOf(deps, cache.revision) };
  if (cache.presences.has(id))
    throw new WeftError('FAILED_PRECONDITION', `host ${host.name} is connected`, {
      hint: 'stop its agent first (systemctl stop weft-agent)',
    });
  const held = [...heldKeys(deps, id), ...settingsKeys(deps, id), ...membershipKeys(deps, id)];
  const absent: Compare = { key: keys.presence(id), mod: 0n };
  const unchanged = (key: string): Compare => ({ key, mod: modOf(cache, key) });
  const [part] = chunks(held, MAX_OPS - 10);
  const last = held.length <= MAX_OPS - 10;
  const record = keys.host(id);
  const compares = [absent, ...(part ?? []).map(unchanged), unchanged(record)];
  const deletions = (part ?? []).map((key): Op => ({ del: key }));
  const name = cache.raw.get(keys.hostname(host.name))?.value === id ? [{ del: keys.hostname(host.name) }] : [];
  const ops = last ? [...deletions, { del: record }, ...name] : deletions;
  return { txn: { compares, ops }, result: (revision) => (last ? revisionOf(deps, revision) : null) };
}

/** Under this coordinator's lease; the newest session of a host wins. */
export async function putPresence(deps: Deps, hostId: string, sessionId: string): Promise<void> {
  const key = keys.presence(hostId);
  const presence = { hostId, coordinatorId: deps.coordinatorId, sessionId };
  const value = encode.presence(presence);
  await deps.committer.run(`presence ${hostId}`, () => {
    const raw = deps.cache.raw.get(key);
    const lease = deps.lease.id;
    deps.lease.keep(key, value);
    if (raw?.value === value && raw.lease === lease) return { done: undefined };
    const txn = { compares: [{ key, mod: raw?.mod ?? 0n }], ops: [{ put: key, value, lease }] };
    return { txn, result: () => undefined };
  });
  await dropMemberships(deps, hostId);
}

/** Only when it is still this session's. */
export async function deletePresence(deps: Deps, hostId: string, sessionId: string): Promise<void> {
  const key = keys.presence(hostId);
  const value = encode.presence({ hostId, coordinatorId: deps.coordinatorId, sessionId });
  if (deps.lease.kept(key) === value) deps.lease.forget(key);
  // Before the presence: afterwards another coordinator may have the host.
  if (deps.cache.raw.get(key)?.value === value) await dropMemberships(deps, hostId);
  await deps.committer.run(`presence ${hostId}`, () => {
    const raw = deps.cache.raw.get(key);
    if (raw === undefined || raw.value !== value) return { done: undefined };
    return { txn: { compares: [{ key, mod: raw.mod }], ops: [{ del: key }] }, result: () => undefined };
  });
}
