/** Networks: create or reserve, bind, delete. */
import { type Cidr, formatCidr, formatIp } from '../../lib/addr.ts';
import { rfc3339 } from '../../lib/clock.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Endpoint, Network, Revision } from '../../lib/model.ts';
import { networkOptions } from '../../lib/network-options.ts';
import { checkCarried, chooseMtu } from '../alloc/encap.ts';
import { type CheckedFamily, checkRoom } from '../alloc/families.ts';
import { type CheckedSpec, checkBind, checkMtu, checkSpec, checkWayOut, checkWire } from '../alloc/spec.ts';
import { pickVni } from '../alloc/vnis.ts';
import type { NetworkBind, NetworkSpec } from '../contract.ts';
import { encode } from './codec.ts';
import { type Deps, fresh, grantLease, modOf, revisionOf, revokeLease } from './deps.ts';
import { gatewaysWith, release, withIpv6 } from './joins.ts';
import { keys } from './keys.ts';
import { pickFreeSubnet, refuseOverlap, refuseVteps } from './subnets.ts';
import { connectedHosts, identityKey, indexKeys, ownerName, refuseTakenTag, restingVnis, takenVnis } from './taken.ts';
import type { Compare, Op, Planned } from './txn.ts';

/** The guards of an address space: whatever changes a network's record compares and rewrites it. */
const guardOf = (network: Network): string => keys.pool(network.project, network.space);

export async function createNetwork(deps: Deps, spec: NetworkSpec): Promise<Network> {
  const checked = checkSpec(spec);
  const id = deps.newId();
  const lease = spec.name === '' ? await grantLease(deps, deps.limits.reserveSeconds) : '0';
  const guard = keys.pool(spec.project, checked.space);
  try {
    return await deps.committer.run(guard, () => planCreate(deps, spec, checked, id, lease));
  } catch (error) {
    await revokeLease(deps, lease);
    throw error;
  }
}

function planCreate(deps: Deps, spec: NetworkSpec, checked: CheckedSpec, id: string, lease: string): Planned<Network> {
  const { cache } = deps;
  const existing = cache.networks.get(id);
  if (existing !== undefined) return { done: existing };
  if (spec.name !== '') refuseTakenName(deps, spec.project, spec.name);
  const network = composeNetwork(deps, spec, checked, id);
  const guard = guardOf(network);
  const wire = identityKey(network);
  const name = keys.name(network.project, network.name);
  const compares: Compare[] = [
    { key: guard, mod: modOf(cache, guard) },
    { key: keys.network(network.project, id), mod: 0n },
    { key: wire, mod: 0n },
    ...(spec.name === '' ? [] : [{ key: name, mod: 0n }]),
  ];
  const put = (key: string, value: string): Op => ({ put: key, value, lease });
  const ops: Op[] = [
    put(keys.network(network.project, id), encode.network(network)),
    ...indexKeys(network).map((key) => put(key, id)),
    { put: guard, value: id },
    ...endRest(deps, network),
  ];
  return { txn: { compares, ops }, result: (revision) => cache.networks.get(id) ?? { ...network, revision } };
}

/** A VNI or subnet that is taken into use again rests no more. */
function endRest(deps: Deps, network: Network): Op[] {
  const { project, space, vni, subnets } = network;
  const all = [
    ...(vni === 0 ? [] : [keys.restingVni(vni)]),
    ...subnets.map((cidr) => keys.restingSubnet(project, space, cidr)),
  ];
  return all.filter((key) => deps.cache.raw.has(key)).map((key) => ({ del: key }));
}

function refuseTakenName(deps: Deps, project: string, name: string): void {
  const taken = deps.cache.raw.has(keys.name(project, name)) || deps.cache.networkByName(project, name) !== undefined;
  if (taken) throw nameTaken(name, '');
  refuseSimilarName(deps, project, name);
}

/** To DNS names that differ by case are one (RFC 4343). Within an address space the guard makes this hold against a race. */
function refuseSimilarName(deps: Deps, project: string, name: string): void {
  const lower = name.toLowerCase();
  const similar = deps.cache.networks
    .values()
    .find((n) => n.state === 'bound' && n.project === project && n.name.toLowerCase() === lower);
  if (similar !== undefined) throw nameTaken(similar.name, ', and names must differ by more than case');
}

const nameTaken = (name: string, more: string): WeftError =>
  new WeftError('ALREADY_EXISTS', `a network named "${name}" exists${more}`, {
    hint: 'choose another name, or remove that network first',
  });

function composeNetwork(deps: Deps, spec: NetworkSpec, checked: CheckedSpec, id: string): Network {
  const { project } = spec;
  const { space, wire } = checked;
  const hosts = connectedHosts(deps);
  checkCarried(hosts, wire);
  const vni = wire.encap === 'vlan' ? 0 : chooseVni(deps, checked);
  if (wire.encap === 'vlan') refuseTakenTag(deps, wire, id);
  const families = [checked.four, checked.six].map((asked, i) => {
    if (asked === null) return null;
    const subnet = asked.subnet ?? pickFreeSubnet(deps, project, space, i === 0 ? 4 : 6);
    if (asked.subnet !== null) refuseOverlap(deps, project, space, asked.subnet);
    // A vlan is the underlay's own, and so may its subnet be.
    if (asked.subnet !== null && wire.encap !== 'vlan') refuseVteps(deps, asked.subnet);
    return { subnet, gateways: gatewaysOf(asked, wire.encap, subnet), ipRange: asked.ipRange };
  });
  const [four, six] = families;
  const there = families.filter((family) => family !== null);
  const ipRange = four?.ipRange ?? six?.ipRange ?? null;
  const network: Network = {
    id,
    project,
    name: spec.name,
    space,
    vni,
    subnets: there.map((family) => formatCidr(family.subnet)),
    ipRange: ipRange === null ? '' : formatCidr(ipRange),
    gateways: there.flatMap((family) => family.gateways),
    encap: wire.encap,
    mtu: chooseMtu(hosts, wire, checked.mtu, checked.six !== null),
    internal: spec.internal,
    encrypted: false,
    labels: { ...spec.labels },
    // What came with the pool (--ipam-opt) is no driver option of the copies.
    options: spec.name === '' ? {} : { ...spec.options },
    auxAddresses: {},
    state: spec.name === '' ? 'reserved' : 'bound',
    originHost: spec.originHost,
    createdAt: rfc3339(deps.clock),
    revision: 0n,
    ipv6: checked.six !== null,
    attachable: false,
    uplink: wire.uplink,
    vlanTag: wire.vlanTag,
    allowTrust: wire.allowTrust,
    publishBy: wire.publishBy,
    egressIps: [],
    dnsOrder: wire.dnsOrder,
    policyDefault: wire.policyDefault,
    published: false,
  };
  checkRoom(network);
  return network;
}

/** On a vlan the gateway is somebody else's machine: there is none unless it is named. */
function gatewaysOf({ gateway }: CheckedFamily, encap: string, subnet: Cidr): string[] {
  if (gateway === null && encap === 'vlan') return [];
  return [formatIp(gateway ?? subnet.base + 1n)];
}

function chooseVni(deps: Deps, checked: Pick<CheckedSpec, 'vni'>): number {
  const taken = takenVnis(deps.cache);
  const resting = restingVnis(deps.cache);
  if (checked.vni === null) {
    const picked = pickVni(deps.limits.vnis, taken, resting);
    if (picked !== null) return picked;
    const { first, last } = deps.limits.vnis;
    throw new WeftError('RESOURCE_EXHAUSTED', `every VNI from ${first} to ${last} is in use`, {
      hint: 'remove networks that are not used',
    });
  }
  if (taken.has(checked.vni)) {
    const owner = [...deps.cache.networks.values()].find((n) => n.vni === checked.vni);
    const of = owner === undefined ? 'another network' : ownerName(owner);
    throw new WeftError('ALREADY_EXISTS', `the VNI ${checked.vni} belongs to ${of}`, {
      hint: 'choose another VNI, or leave --vni out',
    });
  }
  const since = resting.get(checked.vni);
  if (since !== undefined)
    throw new WeftError('FAILED_PRECONDITION', `the VNI ${checked.vni} was freed at ${since} and rests`, {
      hint: `it can be used ${deps.limits.restSeconds} s after that; choose another VNI, or leave --vni out`,
    });
  return checked.vni;
}

export async function bindNetwork(
  deps: Deps,
  id: string,
  bind: NetworkBind,
): Promise<{ network: Network; won: boolean }> {
  const present = await fresh(deps, () => deps.cache.networks.get(id));
  if (present === undefined) throw reservationGone(id);
  const six = bind.joins === '' ? undefined : await fresh(deps, () => deps.cache.networks.get(bind.joins));
  checkBind(bind, { subnets: [...present.subnets, ...(six?.subnets ?? [])] });
  let lease = '0';
  const outcome = await deps.committer.run(guardOf(present), () => {
    lease = deps.cache.raw.get(keys.network(present.project, id))?.lease ?? '0';
    return planBind(deps, id, bind);
  });
  // Its keys are deleted, or no longer hang on it.
  if (bind.name !== '') await revokeLease(deps, lease);
  return outcome;
}

const reservationGone = (id: string): WeftError =>
  new WeftError('NOT_FOUND', `there is no reservation ${id}`, {
    hint: 'it may have expired: create the network again',
  });

function planBind(deps: Deps, id: string, bind: NetworkBind): Planned<{ network: Network; won: boolean }> {
  const { cache } = deps;
  const reserved = cache.networks.get(id);
  const winner = bind.name === '' ? undefined : cache.networkByName('default', bind.name);
  if (reserved === undefined) {
    if (winner !== undefined && winner.id !== id) return { done: { network: winner, won: false } };
    throw reservationGone(id);
  }
  if (reserved.state === 'bound') {
    if (reserved.name === bind.name || bind.name === '') return { done: { network: reserved, won: true } };
    throw new WeftError('FAILED_PRECONDITION', `the network is already bound, as "${reserved.name}"`);
  }
  const { project } = reserved;
  const record = keys.network(project, id);
  if (bind.name === '') return planPrepare(deps, reserved, bind);
  const compares: Compare[] = [{ key: record, mod: modOf(cache, record) }];
  if (winner !== undefined) {
    const released = [
      ...[record, ...indexKeys(reserved)].map((key): Op => ({ del: key })),
      ...release(deps, bind.joins),
    ];
    return {
      txn: { compares, ops: [...released, { put: guardOf(reserved), value: id }] },
      result: () => ({ network: cache.networks.get(winner.id) ?? winner, won: false }),
    };
  }
  refuseSimilarName(deps, project, bind.name);
  const guard = guardOf(reserved);
  compares.push({ key: guard, mod: modOf(cache, guard) });
  const joined = withIpv6(deps, reserved, bind);
  const prepared = withOptions(deps, joined.network, bind);
  checkWayOut(bind.internal, prepared.publishBy);
  const network: Network = {
    ...prepared,
    name: bind.name,
    labels: { ...bind.labels },
    options: { ...reserved.options, ...bind.options },
    internal: bind.internal,
    attachable: bind.attachable,
    gateways: gatewaysWith(prepared.gateways, [bind.gateway, bind.gateway6]),
    auxAddresses: { ...bind.auxAddresses },
    state: 'bound',
  };
  checkRoom(network);
  const name = keys.name(project, bind.name);
  const ops: Op[] = [
    { put: record, value: encode.network(network) },
    ...indexKeys(network).map((key): Op => ({ put: key, value: id })),
    { put: guard, value: id },
  ];
  const swap = otherIdentity(deps, reserved, network);
  return {
    txn: {
      compares: [...compares, ...joined.compares, { key: name, mod: 0n }, ...swap.compares],
      ops: [...ops, ...joined.ops, ...swap.ops],
    },
    result: (revision) => ({ network: cache.networks.get(id) ?? { ...network, revision }, won: true }),
  };
}

/** docker network create -o comes after the pool: until the name is bound, nothing travels yet, and how it will can be chosen. */
function planPrepare(deps: Deps, reserved: Network, bind: NetworkBind): Planned<{ network: Network; won: boolean }> {
  const { cache } = deps;
  const { project, id } = reserved;
  const network = withOptions(deps, reserved, bind);
  checkWayOut(bind.internal, network.publishBy);
  const record = keys.network(project, id);
  const lease = cache.raw.get(record)?.lease ?? '0';
  const value = encode.network(network);
  if (cache.raw.get(record)?.value === value) return { done: { network: reserved, won: true } };
  const swap = otherIdentity(deps, reserved, network);
  const put = (key: string, text: string): Op => ({ put: key, value: text, lease });
  const ops = [put(record, value), put(identityKey(network), id), ...swap.ops, { put: guardOf(network), value: id }];
  return {
    txn: { compares: [{ key: record, mod: modOf(cache, record) }, ...swap.compares], ops },
    result: (revision) => ({ network: cache.networks.get(id) ?? { ...network, revision }, won: true }),
  };
}

/** The reservation as the options want it. @throws as createNetwork */
function withOptions(deps: Deps, reserved: Network, bind: NetworkBind): Network {
  const said = networkOptions(bind.options);
  if (Object.keys(said).length === 0) return reserved;
  const kept = said.encap === undefined || said.encap === reserved.encap;
  const { uplink, vlanTag, allowTrust, publishBy, dnsOrder, policyDefault } = reserved;
  const before = kept ? { uplink, vlanTag } : { uplink: '', vlanTag: 0 };
  const encap = said.encap ?? reserved.encap;
  const trust = allowTrust || said.allowTrust === true;
  const wire = checkWire({ ...before, publishBy, dnsOrder, policyDefault, ...said, encap, allowTrust: trust }, {});
  const hosts = connectedHosts(deps);
  checkCarried(hosts, wire);
  if (wire.encap === 'vlan') refuseTakenTag(deps, wire, reserved.id);
  const wanted = checkMtu(said.mtu ?? 0) ?? (kept ? reserved.mtu : null);
  // A gateway that nobody gave is the mesh's, and a vlan has none of the mesh.
  const gateways = wire.encap === 'vlan' && reserved.encap !== 'vlan' ? [] : reserved.gateways;
  const vni = wire.encap === 'vlan' ? 0 : reserved.vni || chooseVni(deps, { vni: null });
  return { ...reserved, ...wire, vni, gateways, mtu: chooseMtu(hosts, wire, wanted, reserved.ipv6) };
}

/** What goes and must be free when a reservation gets another VNI or tag. */
function otherIdentity(deps: Deps, before: Network, after: Network): { compares: Compare[]; ops: Op[] } {
  const [old, fresh] = [identityKey(before), identityKey(after)];
  if (old === fresh) return { compares: [], ops: [] };
  return { compares: [{ key: fresh, mod: modOf(deps.cache, fresh) }], ops: [{ del: old }] };
}

export async function deleteNetwork(deps: Deps, id: string): Promise<Revision> {
  const present = await fresh(deps, () => deps.cache.networks.get(id));
  if (present === undefined)
    throw new WeftError('NOT_FOUND', `there is no network ${id}`, { hint: 'list them: weft network ls' });
  const lease = await grantLease(deps, deps.limits.restSeconds);
  let done = false;
  try {
    const revision = await deps.committer.run(guardOf(present), () => planDelete(deps, present, lease));
    done = true;
    return revision;
  } finally {
    if (!done) await revokeLease(deps, lease);
  }
}

function planDelete(deps: Deps, present: Network, lease: string): Planned<Revision> {
  const { cache } = deps;
  const { id, project, space } = present;
  const network = cache.networks.get(id);
  if (network === undefined) return { done: revisionOf(deps, cache.revision) };
  const endpoints = [...(cache.endpoints.get(id)?.values() ?? [])];
  if (endpoints.length > 0) throw inUse(deps, network, endpoints);
  const router = [...cache.routers.values()].find((r) => r.networkIds.includes(id));
  if (router !== undefined)
    throw new WeftError('FAILED_PRECONDITION', `${ownerName(network)} is in router ${router.name}`, {
      hint: `take it out first: weft router set ${router.name} --remove-network ${network.name}, or weft router rm ${router.name}`,
    });
  const record = keys.network(project, id);
  const compares: Compare[] = [
    { key: record, mod: modOf(cache, record) },
    { prefix: keys.endpoints(project, id), empty: true },
    // Whoever leads there now has changed it.
    { key: keys.blockguard(project, id), mod: modOf(cache, keys.blockguard(project, id)) },
  ];
  const value = encode.resting({ networkId: id, since: rfc3339(deps.clock) });
  const rest = [
    ...(network.vni === 0 ? [] : [keys.restingVni(network.vni)]),
    ...network.subnets.map((cidr) => keys.restingSubnet(project, space, cidr)),
  ];
  const ops: Op[] = [
    ...[record, ...indexKeys(network), keys.blockguard(project, id)].map((key): Op => ({ del: key })),
    { delPrefix: keys.blocks(project, id) },
    { delPrefix: keys.addresses(project, id) },
    { delPrefix: keys.externals(project, id) },
    { delPrefix: keys.allSettings(project, id) },
    { delPrefix: keys.allMemberships(project, id) },
    { delPrefix: keys.reservations(project, id) },
    { delPrefix: keys.services(project, id) },
    { delPrefix: keys.policies(project, id) },
    ...rest.map((key): Op => ({ put: key, value, lease })),
  ];
  return { txn: { compares, ops }, result: (revision) => revisionOf(deps, revision) };
}

/** CONTAINER on HOST, …: at most ten of them. */
function inUse(deps: Deps, network: Network, endpoints: readonly Endpoint[]): WeftError {
  const host = (id: string): string => deps.cache.hosts.get(id)?.name ?? id;
  const shown = endpoints.slice(0, 10).map((e) => `${endpointName(e) || e.id.slice(0, 12)} on ${host(e.hostId)}`);
  const more = endpoints.length > 10 ? ` and ${endpoints.length - 10} more` : '';
  return new WeftError('FAILED_PRECONDITION', `${ownerName(network)} has endpoints: ${shown.join(', ')}${more}`, {
    hint: endpoints.some((e) => e.container === undefined && e.aliases.length > 0)
      ? 'end them first: weft network disconnect NETWORK CONTAINER, or, on its host, weft detach NAME'
      : 'disconnect them first: weft network disconnect NETWORK CONTAINER',
  });
}
