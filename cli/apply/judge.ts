/**
 * What of the files cannot be, held against each other and against the mesh: found before anything is changed. What only hosts know
 * (whether an address is free, whether one can carry an encapsulation) the coordinator judges when it is done. Pure.
 */
import type { Network } from '../../gen/weft/v1/types.ts';
import {
  type Cidr,
  containsIp,
  familyOf,
  familyOfText,
  formatCidr,
  isUsable,
  overlaps,
  parseCidr,
  parseIp,
} from '../../lib/addr.ts';
import { endpointName } from '../../lib/endpoint-name.ts';
import { type Code, middleCut, WeftError } from '../../lib/errors.ts';
import type { Actual, Desired, Kind, PolicyWish, ServiceWish, Where } from './model.ts';
import { keyOf, namer, type Pruned } from './scope.ts';

interface Named {
  readonly name: string;
  readonly where: Where;
}

type Fail = (wish: Named, kind: Kind, path: readonly string[], message: string, hint: string, code?: Code) => void;

export function judge(desired: Desired, actual: Actual, pruned: Pruned): WeftError[] {
  const problems: WeftError[] = [];
  const fail: Fail = (wish, kind, path, message, hint, code = 'INVALID_ARGUMENT') => {
    const name = middleCut(wish.name);
    problems.push(new WeftError(code, `${wish.where(...path)}: ${kind} ${name}: ${message}.`, { hint }));
  };
  refuseTwice(desired, fail);
  const world = worldOf(desired, actual, pruned);
  judgeNetworks(desired, world, actual, fail);
  judgeReferences(desired, world, fail);
  judgeAddresses(desired, world, actual, pruned, fail);
  judgePublished(desired, actual, pruned, fail);
  judgePruned(desired, actual, pruned, problems);
  return problems;
}

function refuseTwice(desired: Desired, fail: Fail): void {
  const once = <T extends Named>(kind: Kind, wishes: readonly T[], keyOf: (wish: T) => string): void => {
    const seen = new Map<string, T>();
    for (const wish of wishes) {
      const first = seen.get(keyOf(wish));
      if (first === undefined) seen.set(keyOf(wish), wish);
      else fail(wish, kind, [], `it is there twice, the first time in ${first.where()}`, 'leave one of them out');
    }
  };
  // To DNS names that differ by case are one (RFC 4343).
  once('network', desired.networks, ({ name }) => name.toLowerCase());
  const ofNetwork = ({ network, name }: { network: string; name: string }): string => keyOf(network, name);
  once('reservation', desired.reservations, ofNetwork);
  once('router', desired.routers, ({ name }) => name);
  once('service', desired.services, ofNetwork);
  once('policy', desired.policies, ofNetwork);
  once('endpoint', desired.endpoints, ofNetwork);
}

/** What is known of a network as it will be. */
interface Prospect {
  readonly name: string;
  readonly space: string;
  readonly subnets: readonly string[];
  /** The same. */
  readonly cidrs: readonly Cidr[];
  readonly vni: number;
  readonly encap: string;
  readonly uplink: string;
  readonly vlanTag: number;
  /** In the files. */
  readonly wish: Named | null;
  readonly going: boolean;
}

interface World {
  readonly networks: ReadonlyMap<string, Prospect>;
  /** Names of networks that something in the files has, whatever is wrong with it. */
  readonly hasNetwork: (name: string) => boolean;
  readonly hasService: (network: string, name: string) => boolean;
}

function worldOf(desired: Desired, actual: Actual, pruned: Pruned): World {
  const nameOf = namer(actual);
  const networks = new Map<string, Prospect>();
  const going = new Set(pruned.networks.map(({ id }) => id));
  for (const n of actual.networks)
    networks.set(n.name, { ...n, cidrs: n.subnets.map(parseCidr), wish: null, going: going.has(n.id) });
  for (const wish of desired.networks) {
    const { request: r } = wish;
    // What is there stays as it was made; a difference is refused elsewhere.
    const present = networks.get(wish.name);
    const made = { name: wish.name, space: r.space || 'default', subnets: r.subnets, vni: r.vni };
    const cidrs = r.subnets.map(parseCidr);
    const fresh = { ...made, cidrs, encap: r.encap || 'vxlan', uplink: r.uplink, vlanTag: r.vlanTag, going: false };
    networks.set(wish.name, present === undefined ? { ...fresh, wish } : { ...present, wish, going: false });
  }
  const leaving = new Set(pruned.services.map((s) => keyOf(nameOf(s.networkId), s.name)));
  const services = new Set(
    actual.services.map((s) => keyOf(nameOf(s.networkId), s.name)).filter((k) => !leaving.has(k)),
  );
  return {
    networks,
    hasNetwork: (name) => desired.named.has(`network ${name}`) || networks.get(name)?.going === false,
    hasService: (network, name) =>
      desired.named.has(`service ${keyOf(network, name)}`) || services.has(keyOf(network, name)),
  };
}

/** Of those that are to be made. */
function judgeNetworks(desired: Desired, { networks }: World, actual: Actual, fail: Fail): void {
  const there = new Set(actual.networks.map(({ name }) => name));
  for (const wish of desired.networks) {
    if (there.has(wish.name)) continue;
    const mine = networks.get(wish.name)!;
    for (const other of networks.values()) {
      if (other.name === wish.name) continue;
      const who = other.wish === null ? `network ${other.name}` : `network ${other.name} of ${other.wish.where()}`;
      const hint = other.going ? `--prune removes ${other.name} only afterwards: remove it first` : 'choose another';
      const clash = (key: string, what: string): void =>
        fail(wish, 'network', [key], `${what} ${who}`, hint, 'ALREADY_EXISTS');
      if (other.name.toLowerCase() === wish.name.toLowerCase()) clash('name', 'the name differs by case alone from');
      if (mine.vni !== 0 && mine.vni === other.vni) clash('vni', `the VNI ${mine.vni} is that of`);
      if (mine.encap === 'vlan' && mine.uplink === other.uplink && mine.vlanTag === other.vlanTag)
        clash('tag', `${mine.uplink}.${mine.vlanTag} is that of`);
      if (mine.space !== other.space) continue;
      const [pair] = mine.cidrs.flatMap((a) =>
        other.cidrs.filter((b) => meet(a, b)).map((b) => [a, b].map(formatCidr)),
      );
      if (pair !== undefined) clash('subnet', `the subnet ${pair[0]} overlaps ${pair[1]} of`);
    }
  }
}

const meet = (a: Cidr, b: Cidr): boolean => familyOf(a.base) === familyOf(b.base) && overlaps(a, b);

function judgeReferences(desired: Desired, world: World, fail: Fail): void {
  const known = (wish: Named, kind: Kind, path: readonly string[], network: string): boolean => {
    if (world.hasNetwork(network)) return true;
    const going = world.networks.get(network)?.going === true;
    fail(
      wish,
      kind,
      path,
      going
        ? `network ${network} is not in the files, and goes with --prune`
        : `there is no network ${middleCut(network)}`,
      `put it under "networks", or make it: weft network create`,
      'NOT_FOUND',
    );
    return false;
  };
  const notVlan = (wish: Named, kind: Kind, network: string): void => {
    if (world.networks.get(network)?.encap === 'vlan')
      fail(
        wish,
        kind,
        ['network'],
        `network ${network} is a vlan, which has none`,
        'take a network of another encapsulation',
        'FAILED_PRECONDITION',
      );
  };
  for (const wish of desired.reservations) known(wish, 'reservation', ['network'], wish.network);
  for (const wish of desired.routers)
    for (const network of wish.router.networkIds)
      if (known(wish, 'router', ['network'], network)) notVlan(wish, 'router', network);
  judgeRouted(desired, world, fail);
  for (const wish of desired.services)
    if (known(wish, 'service', ['network'], wish.network)) notVlan(wish, 'service', wish.network);
  for (const wish of desired.policies) {
    if (known(wish, 'policy', ['network'], wish.network)) notVlan(wish, 'policy', wish.network);
    judgePeers(wish, world, (network) => known(wish, 'policy', [], network), fail);
  }
  for (const wish of desired.endpoints) if (wish.network !== '') known(wish, 'endpoint', ['network'], wish.network);
}

/** A router's networks are of one address space, in which none overlap. */
function judgeRouted(desired: Desired, { networks }: World, fail: Fail): void {
  for (const wish of desired.routers) {
    const spaces = new Map(
      wish.router.networkIds.flatMap((name) => {
        const space = networks.get(name)?.space;
        return space === undefined ? [] : [[space, name] as const];
      }),
    );
    const [a, b] = spaces;
    if (a === undefined || b === undefined) continue;
    const message = `network ${a[1]} is in address space ${a[0]}, and network ${b[1]} in ${b[0]}`;
    fail(wish, 'router', ['network'], message, 'a router lives in one address space', 'FAILED_PRECONDITION');
  }
}

function judgePeers(wish: PolicyWish, world: World, known: (network: string) => boolean, fail: Fail): void {
  const { policy, network } = wish;
  for (const { peers } of [...policy.ingress, ...policy.egress])
    for (const { who } of peers) {
      if (who?.$case === 'endpoints' && who.value.networkId !== '') known(who.value.networkId);
      if (who?.$case === 'service' && !world.hasService(network, who.value))
        fail(
          wish,
          'policy',
          [],
          `network ${network} has no service ${middleCut(who.value)}`,
          'put it under "services"',
          'NOT_FOUND',
        );
    }
}

/** Reservations and services have addresses of their network's, each its own. */
function judgeAddresses(desired: Desired, world: World, actual: Actual, pruned: Pruned, fail: Fail): void {
  const nameOf = namer(actual);
  const holders = new Map<string, string>();
  const wished = new Set([
    ...desired.reservations.map((w) => `reservation ${keyOf(w.network, w.name)}`),
    ...desired.services.map((w) => `service ${keyOf(w.network, w.name)}`),
  ]);
  const gone = new Set<unknown>([...pruned.reservations, ...pruned.services]);
  const present = (kind: Kind, list: readonly { networkId: string; name: string; ips: readonly string[] }[]): void => {
    for (const thing of list) {
      const key = keyOf(nameOf(thing.networkId), thing.name);
      if (gone.has(thing) || wished.has(`${kind} ${key}`)) continue;
      for (const ip of thing.ips) holders.set(keyOf(nameOf(thing.networkId), ip), `${kind} ${thing.name}`);
    }
  };
  present('reservation', actual.reservations);
  present('service', actual.services);
  const check = (kind: Kind, wish: Named & { network: string }, ips: readonly string[]): void => {
    const { subnets = [], cidrs = [] } = world.networks.get(wish.network) ?? {};
    for (const ip of ips) {
      const subnet = cidrs.find((one) => familyOf(one.base) === familyOfText(ip));
      if (subnets.length > 0 && (subnet === undefined || !containsIp(subnet, parseIp(ip))))
        fail(
          wish,
          kind,
          ['ip'],
          `${ip} is not in ${subnets.join(' or ')}`,
          `choose an address of network ${wish.network}`,
        );
      else if (subnet !== undefined && !isUsable(subnet, parseIp(ip)))
        fail(wish, kind, ['ip'], `${ip} is the network's own of ${formatCidr(subnet)}`, 'choose another address');
      const key = keyOf(wish.network, ip);
      const holder = holders.get(key);
      if (holder !== undefined)
        fail(wish, kind, ['ip'], `${ip} is the address of ${holder}`, 'choose another address', 'ALREADY_EXISTS');
      else holders.set(key, `${kind} ${wish.name}`);
    }
  };
  for (const wish of desired.reservations) check('reservation', wish, wish.reservation.ips);
  for (const wish of desired.services) check('service', wish, wish.service.ips);
}

/** A port of the hosts leads to one service of the mesh. */
function judgePublished(desired: Desired, actual: Actual, pruned: Pruned, fail: Fail): void {
  const nameOf = namer(actual);
  const wished = new Set(desired.services.map((w) => keyOf(w.network, w.name)));
  const going = new Set(pruned.networks.map(({ id }) => id));
  const holders = new Map<string, string>();
  const portsOf = (service: ServiceWish['service']): string[] =>
    service.ports.filter((p) => p.hostPort !== 0).map((p) => `${p.hostPort}/${p.protocol}`);
  for (const service of actual.services) {
    const key = keyOf(nameOf(service.networkId), service.name);
    if (wished.has(key) || pruned.services.includes(service) || going.has(service.networkId)) continue;
    for (const port of portsOf(service)) holders.set(port, key);
  }
  for (const wish of desired.services)
    for (const port of portsOf(wish.service)) {
      const holder = holders.get(port);
      const key = wish.service.publish === 'all' ? 'publish' : 'publish-local';
      if (holder !== undefined)
        fail(
          wish,
          'service',
          [key],
          `the port ${port} of the hosts leads to service ${holder}`,
          'choose another port',
          'ALREADY_EXISTS',
        );
      else holders.set(port, keyOf(wish.network, wish.name));
    }
}

/** What a network that goes would take with it, and no file could bring back. */
function judgePruned(desired: Desired, actual: Actual, pruned: Pruned, problems: WeftError[]): void {
  const refuse = (network: Network, what: string, hint: string): void => {
    problems.push(
      new WeftError('FAILED_PRECONDITION', `--prune would remove network ${network.name}, and ${what}.`, { hint }),
    );
  };
  const some = (texts: readonly string[]): string =>
    texts.length > 5 ? `${texts.slice(0, 5).join(', ')} and ${texts.length - 5} more` : texts.join(', ');
  for (const network of pruned.networks) {
    const users = actual.endpoints.filter((e) => e.networkId === network.id);
    const names = users.map(
      (e) => `${endpointName(e) || e.id.slice(0, 12)} on ${actual.hostNames[e.hostId] ?? e.hostId}`,
    );
    if (users.length > 0)
      refuse(
        network,
        `it has endpoints: ${some(names)}`,
        'put it into the files, or end them first: weft network disconnect',
      );
    const peers = actual.peers.filter((p) => p.networkId === network.id).map(({ name }) => name);
    if (peers.length > 0)
      refuse(
        network,
        `with it external peers, of which files say nothing: ${some(peers)}`,
        'put it into the files, or remove them first: weft peer rm',
      );
    // One that is in the files is changed before.
    const said = new Set(desired.routers.map(({ name }) => name));
    const staying = actual.routers.find(
      (r) => r.networkIds.includes(network.id) && !pruned.routers.includes(r) && !said.has(r.name),
    );
    if (staying !== undefined)
      refuse(
        network,
        `it is in router ${staying.name}`,
        'put the network into the files, or the routers without it: "routers: […]"',
      );
  }
}
