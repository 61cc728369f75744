/** Endpoints, as their hosts register them; and the reconciliation of all that a host holds. */
import { allowedMac } from '../../lib/allowed.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Address, Block, Endpoint, Network, Revision } from '../../lib/model.ts';
import { whoIs } from '../alloc/externals.ts';
import { reservationOfMac } from '../alloc/reserved.ts';
import { notTrusted } from '../owners.ts';
import { releaseAddresses, restoreAddress, restoreBlock } from './blocks.ts';
import { encode } from './codec.ts';
import { type Deps, fresh, modOf, revisionOf } from './deps.ts';
import { heldKeys } from './hosts.ts';
import { keys, parseKey } from './keys.ts';
import { type Compare, chunks, type Op, type Planned } from './txn.ts';

/** Each endpoint is one or two operations and up to three compares. */
const BATCH = 50;
const MAX_ATTEMPTS = 10;

export interface Holdings {
  readonly endpoints: readonly Endpoint[];
  readonly blocks: readonly Block[];
  readonly addresses: readonly Address[];
}

/**
 * Writes what came and changed, deletes what went; all that can be written is, before anything is refused.
 * @throws PERMISSION_DENIED endpoints of another host; NOT_FOUND networks that are gone
 */
export async function registerEndpoints(
  deps: Deps,
  hostId: string,
  upserts: readonly Endpoint[],
  removed: readonly string[],
): Promise<Revision> {
  for (const endpoint of upserts) {
    const owner = endpoint.hostId === hostId ? (ownerOf(deps, endpoint) ?? hostId) : endpoint.hostId;
    if (owner !== hostId) throw new WeftError('PERMISSION_DENIED', `endpoint ${endpoint.id} belongs to host ${owner}`);
    if (endpoint.id === '' || endpoint.id.includes('/'))
      throw new WeftError('INVALID_ARGUMENT', `"${endpoint.id}" is not an endpoint id`);
  }
  await catchUp(deps, upserts);
  const stale = removed.flatMap((id) => endpointKeys(deps, hostId, id));
  return writeEndpoints(deps, hostId, upserts, stale);
}

/** Networks that are not known here may have been made through another coordinator just now. */
async function catchUp(deps: Deps, things: readonly { readonly networkId: string }[]): Promise<void> {
  const unknown = things.find(({ networkId }) => !deps.cache.networks.has(networkId));
  if (unknown !== undefined) await fresh(deps, () => deps.cache.networks.get(unknown.networkId));
}

async function writeEndpoints(
  deps: Deps,
  hostId: string,
  upserts: readonly Endpoint[],
  stale: readonly string[],
): Promise<Revision> {
  const gone = new Set<string>();
  const kept = new Set(upserts.map((e) => keyOf(deps, e)));
  const deletions = [...new Set(stale)].filter((key) => !kept.has(key)).map((del) => ({ del }));
  let revision = revisionOf(deps, deps.cache.revision);
  // What goes first may leave its MAC to what comes.
  for (const part of chunks<Work>([...deletions, ...upserts.map((put) => ({ put }))], BATCH))
    revision = await deps.committer.run(`endpoints ${hostId}`, () => planRegister(deps, hostId, part, gone));
  if (gone.size === 0) return revision;
  const ids = [...gone].join(', ');
  throw new WeftError('NOT_FOUND', `there is no network ${ids}`, { hint: 'it has been removed: remove the endpoints' });
}

const keyOf = (deps: Deps, endpoint: Endpoint): string =>
  keys.endpoint(deps.cache.networks.get(endpoint.networkId)?.project ?? 'default', endpoint.networkId, endpoint.id);

const ownerOf = (deps: Deps, endpoint: Endpoint): string | undefined =>
  deps.cache.endpoints.get(endpoint.networkId)?.get(endpoint.id)?.hostId;

/** `del` is a key. */
type Work = { readonly put: Endpoint } | { readonly del: string };

function planRegister(deps: Deps, hostId: string, part: readonly Work[], gone: Set<string>): Planned<Revision> {
  const { cache } = deps;
  const compares: Compare[] = [];
  const ops = new Map<string, Op>();
  const networks = new Set<string>();
  const goes = new Set(part.flatMap((work) => ('del' in work ? [work.del] : [])));
  for (const work of part) {
    if ('del' in work) {
      if (cache.raw.has(work.del)) ops.set(work.del, { del: work.del });
      const settings = settingsOf(work.del);
      if (settings !== null && cache.raw.has(settings)) ops.set(settings, { del: settings });
      continue;
    }
    const network = cache.networks.get(work.put.networkId);
    const owner = ownerOf(deps, work.put);
    if (owner !== undefined && owner !== hostId)
      throw new WeftError('PERMISSION_DENIED', `endpoint ${work.put.id} belongs to host ${owner}`);
    if (network === undefined) {
      gone.add(work.put.networkId);
      continue;
    }
    const untrusted = notTrusted(cache, work.put);
    if (untrusted !== null) throw new WeftError('PERMISSION_DENIED', untrusted);
    const key = keyOf(deps, work.put);
    const value = encode.endpoint(work.put);
    // etcd takes one operation for each key; the last one given is meant.
    if (cache.raw.get(key)?.value === value) ops.delete(key);
    else {
      ops.set(key, { put: key, value });
      if (work.put.givenMac) {
        refuseTakenMac(deps, network, work.put, goes);
        // Two hosts that take one MAC at the same moment meet at the guard.
        const guard = keys.blockguard(network.project, network.id);
        ops.set(guard, { put: guard, value: work.put.id });
      }
    }
    if (!networks.has(network.id)) compares.push({ key: keys.network(network.project, network.id), exists: true });
    networks.add(network.id);
  }
  for (const key of ops.keys()) compares.push({ key, mod: modOf(cache, key) });
  if (ops.size === 0) return { done: revisionOf(deps, cache.revision) };
  return { txn: { compares, ops: [...ops.values()] }, result: (revision) => revisionOf(deps, revision) };
}

/** What the mesh's side said of an endpoint goes with it. */
function settingsOf(endpointKey: string): string | null {
  const key = parseKey(endpointKey);
  return key?.kind === 'endpoint' ? keys.settings(key.project, key.networkId, key.id) : null;
}

/**
 * @param goes keys of endpoints that end in the same moment
 * @throws ALREADY_EXISTS: a MAC is held once in a network (default MACs are unique as their addresses are).
 */
function refuseTakenMac(deps: Deps, network: Network, endpoint: Endpoint, goes: ReadonlySet<string>): void {
  const reserved = reservationOfMac(deps.cache, network.id, endpoint.mac);
  if (reserved !== undefined && !reserved.ips.some((ip) => endpoint.ips.includes(ip)))
    throw new WeftError(
      'ALREADY_EXISTS',
      `MAC address ${endpoint.mac} of network ${network.name} is reserved as "${reserved.name}"`,
      { hint: `start the container with --ip ${reserved.ips[0]}, or choose another MAC` },
    );
  const peers = deps.cache.externals.get(network.id)?.values() ?? [];
  for (const { name, macs } of peers)
    if (macs.some(({ mac }) => mac === endpoint.mac))
      throw new WeftError(
        'ALREADY_EXISTS',
        `MAC address ${endpoint.mac} of network ${network.name} is behind the external peer ${name}`,
        { hint: 'choose another one; weft peer ls shows them' },
      );
  const sharer = allowedMac(deps.cache.settings.get(network.id)?.values() ?? [], endpoint.mac, endpoint.id);
  if (sharer !== null)
    throw new WeftError(
      'ALREADY_EXISTS',
      `MAC address ${endpoint.mac} of network ${network.name}, or its link-local address, is one that ${whoIs(deps.cache, network, sharer)} may send from`,
      { hint: 'choose another one, or leave --mac-address out' },
    );
  for (const other of deps.cache.endpoints.get(network.id)?.values() ?? []) {
    if (other.id === endpoint.id || other.mac !== endpoint.mac || goes.has(keyOf(deps, other))) continue;
    const host = deps.cache.hosts.get(other.hostId)?.name ?? other.hostId;
    const what =
      other.container === undefined
        ? `endpoint ${endpointName(other) || other.id.slice(0, 12)}`
        : `container ${other.container.name}`;
    throw new WeftError(
      'ALREADY_EXISTS',
      `MAC address ${endpoint.mac} of network ${network.name} is in use by ${what} on host ${host}`,
      {
        hint: 'choose another one, or leave --mac-address out',
      },
    );
  }
}

/** The keys of an endpoint of this host: the id alone does not tell the network. */
function endpointKeys(deps: Deps, hostId: string, id: string): string[] {
  const found: string[] = [];
  for (const [networkId, endpoints] of deps.cache.endpoints) {
    if (endpoints.get(id)?.hostId !== hostId) continue;
    const project = deps.cache.networks.get(networkId)?.project ?? 'default';
    found.push(keys.endpoint(project, networkId, id));
  }
  return found;
}

/**
 * The host's journal says what it uses, etcd who owns it. Endpoints become exactly those given. Blocks and held addresses that
 * nobody has in etcd are put back; those of another host are refused; those that the host forgot stay its own (its view tells
 * it). Claimed addresses that it knows nothing of are dropped, held or not: their grantor may give them again.
 */
export async function replaceHoldings(
  deps: Deps,
  hostId: string,
  holdings: Holdings,
): Promise<{ revision: Revision; refused: readonly string[] }> {
  const refused: string[] = [];
  const note = (sentence: string | null): void => {
    if (sentence !== null) refused.push(sentence);
  };
  await catchUp(deps, [...holdings.endpoints, ...holdings.blocks, ...holdings.addresses]);
  for (const block of holdings.blocks) note(await restoreBlock(deps, { ...block, hostId }));
  for (const address of holdings.addresses)
    if (address.state === 'held') note(await restoreAddress(deps, { ...address, hostId }));
  await dropUnknownClaims(deps, hostId, holdings);
  for (const sentence of await replaceEndpoints(deps, hostId, holdings.endpoints)) note(sentence);
  return { revision: revisionOf(deps, deps.cache.revision), refused };
}

/** @returns why some of them are not taken: the others are, so that one conflict does not keep a host away from the mesh */
async function replaceEndpoints(deps: Deps, hostId: string, endpoints: readonly Endpoint[]): Promise<string[]> {
  for (let attempt = 1; ; attempt++) {
    const said = new Set(endpoints.map((endpoint) => keyOf(deps, endpoint)));
    const held = heldKeys(deps, hostId).filter((key) => parseKey(key)?.kind === 'endpoint');
    const goes = new Set(held.filter((key) => !said.has(key)));
    const refusals = endpoints.map((endpoint) => refusal(deps, hostId, endpoint, goes));
    const refused = refusals.filter((sentence) => sentence !== null);
    const mine = endpoints.filter((_, i) => refusals[i] === null).map((endpoint) => ({ ...endpoint, hostId }));
    const listed = new Set(mine.map((endpoint) => keyOf(deps, endpoint)));
    const stale = held.filter((key) => !listed.has(key));
    try {
      await writeEndpoints(deps, hostId, mine, stale);
      return refused;
    } catch (error) {
      const { code, message } = WeftError.from(error);
      // A network that went meanwhile.
      if (code === 'NOT_FOUND') return [...refused, message];
      // A MAC that another host took meanwhile: now the cache shows it.
      if (code !== 'ALREADY_EXISTS' || attempt === MAX_ATTEMPTS) throw error;
    }
  }
}

function refusal(deps: Deps, hostId: string, endpoint: Endpoint, goes: ReadonlySet<string>): string | null {
  if (!deps.cache.networks.has(endpoint.networkId))
    return `endpoint ${endpoint.id.slice(0, 12)}: there is no network ${endpoint.networkId}`;
  const owner = ownerOf(deps, endpoint);
  if (owner === undefined || owner === hostId)
    return notTrusted(deps.cache, endpoint) ?? macRefusal(deps, { ...endpoint, hostId }, goes);
  const name = deps.cache.hosts.get(owner)?.name ?? owner;
  return `endpoint ${endpoint.id.slice(0, 12)} belongs to host ${name}`;
}

/** Two hosts may have started containers with one given MAC while they were apart. */
function macRefusal(deps: Deps, endpoint: Endpoint, goes: ReadonlySet<string>): string | null {
  const network = deps.cache.networks.get(endpoint.networkId);
  const written = deps.cache.raw.get(keyOf(deps, endpoint))?.value === encode.endpoint(endpoint);
  if (network === undefined || written || !endpoint.givenMac) return null;
  try {
    refuseTakenMac(deps, network, endpoint, goes);
    return null;
  } catch (error) {
    return `endpoint ${endpoint.id.slice(0, 12)}: ${WeftError.from(error).message}`;
  }
}

async function dropUnknownClaims(deps: Deps, hostId: string, known: Holdings): Promise<void> {
  const listed = new Set(known.addresses.map((address) => `${address.networkId}/${address.address}`));
  for (const { networkId, ips } of known.endpoints) for (const ip of ips) listed.add(`${networkId}/${ip}`);
  for (const [networkId, claims] of deps.cache.addresses) {
    const dropped = [...claims.values()].filter((c) => c.hostId === hostId && !listed.has(`${networkId}/${c.address}`));
    const addresses = dropped.map((c) => c.address);
    if (addresses.length > 0) await releaseAddresses(deps, networkId, hostId, addresses);
  }
}
