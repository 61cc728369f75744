/**
 * Control: what sizes get through between hosts. By frames through their tunnels, each way for itself; where that cannot be, each host
 * asks the others' VTEPs by echoes. All of it comes together here.
 */
import type { ControlServer, PathMtu } from '../../gen/weft/v1/control.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Host, Network } from '../../lib/model.ts';
import { isEncap, overheadOf, USUAL_MTU } from '../alloc/encap.ts';
import type { State } from '../contract.ts';
import type { Parts } from '../parts.ts';
import { holdersOf } from '../reach.ts';
import type { Method } from './method.ts';
import { networkOf } from './resolve.ts';
import { probeTunnels } from './tunnels.ts';

/** The agent gives up after 20 s. */
const PROBE_MS = 25_000;

export function mtuMethods(parts: Parts, method: Method): Pick<ControlServer, 'probeMtu'> {
  const { state, fanout, sessions } = parts;

  /** By echoes. */
  const probe = async (
    from: Host,
    to: readonly { readonly target: Target; readonly why: string }[],
    members: Members,
    signal: AbortSignal,
  ): Promise<PathMtu[]> => {
    const vteps = to.map(({ target }) => target.vtep);
    // No path has to carry more than both its ends say.
    const largest = Math.max(0, ...to.map(({ target }) => expected(from, target)));
    const query = { $case: 'probeMtu', value: { vteps, largest } } as const;
    const answer = await fanout.ask(from.id, query, PROBE_MS, signal);
    const probes = answer.body?.$case === 'probeMtu' ? answer.body.value.probes : [];
    return to.map(({ target, why }) => {
      const found = probes.find((one) => one.vtep === target.vtep);
      return {
        ...pathOf(from, target),
        largest: found?.largest ?? 0,
        problem: found === undefined ? 'the host did not try it' : pathProblem(state, members, from, target, found),
        probedBy: 'icmp',
        probedWhy: why,
      };
    });
  };

  return {
    probeMtu: method(async ({ request, signal }) => {
      const network = request.network === '' ? null : networkOf(state, request.project, request.network);
      const errors: Record<string, string> = {};
      const members = membersOf(state);
      const hosts = concerned(state, network, members, errors);
      const asking = request.localOnly ? hosts.filter((host) => sessions.live(host.id) !== undefined) : hosts;
      const all = asking.flatMap((from) => targetsOf(state, from, hosts, network).map((target) => ({ from, target })));
      const tunnels = all.flatMap(({ from, target }) =>
        target.host === null
          ? []
          : [{ from, target, to: target.host, vtep: target.vtep, largest: expected(from, target) || USUAL_MTU }],
      );
      const found = await probeTunnels(tunnels, (id, body, ms) => fanout.ask(id, body, ms, signal));
      const paths: PathMtu[] = [];
      const rest = all.filter(({ target }) => target.host === null).map((one) => ({ ...one, why: 'it is no host' }));
      for (const [i, { from, target }] of tunnels.entries()) {
        const one = found[i]!;
        if ('why' in one) rest.push({ from, target, why: one.why });
        else {
          const problem = pathProblem(state, members, from, target, one);
          paths.push({ ...pathOf(from, target), largest: one.largest, problem, probedBy: 'vxlan', probedWhy: '' });
        }
      }
      await Promise.all(
        [...Map.groupBy(rest, ({ from }) => from)].map(async ([from, to]) => {
          try {
            paths.push(...(await probe(from, to, members, signal)));
          } catch (error) {
            errors[from.name] = WeftError.from(error).message;
          }
        }),
      );
      return { paths, errors };
    }),
  };
}

const pathOf = (
  from: Host,
  { name, vtep }: Target,
): Pick<PathMtu, 'from' | 'to' | 'fromVtep' | 'toVtep' | 'underlayMtu'> => ({
  from: from.name,
  to: name,
  fromVtep: from.vteps.find((own) => sameFamily(own.address, vtep))?.address ?? '',
  toVtep: vtep,
  underlayMtu: from.underlayMtu,
});

/** Network id to the hosts that have part in it. */
export type Members = ReadonlyMap<string, ReadonlySet<string>>;

export const membersOf = (state: State): Members =>
  new Map([...state.networks.keys()].map((id) => [id, new Set(holdersOf(state, id).keys())]));

export interface Target {
  readonly name: string;
  readonly vtep: string;
  /** Null for an external peer, which announces nothing. */
  readonly host: Host | null;
}

/** What the path should carry: the least that its ends announce; 0 = nothing is known. */
function expected(from: Host, { host }: Target): number {
  const known = [from.underlayMtu, host?.underlayMtu ?? 0].filter((mtu) => mtu > 0);
  return known.length === 0 ? 0 : Math.min(...known);
}

/** What networks that both ends have part in need of the path: the largest underlay packet, and whose. */
function needed(
  state: State,
  members: Members,
  from: Host,
  { host, vtep }: Target,
): { readonly size: number; readonly name: string } {
  let most = { size: 0, name: '' };
  for (const network of state.networks.values()) {
    if (network.state !== 'bound' || !isEncap(network.encap) || network.encap === 'vlan') continue;
    const size = network.mtu + overheadOf(network.encap, vtep.includes(':') ? 'ipv6' : 'ipv4');
    const hosts = members.get(network.id);
    if (size <= most.size || hosts?.has(from.id) !== true) continue;
    if (host === null || hosts.has(host.id)) most = { size, name: network.name };
  }
  return most;
}

/** Empty, or the sentence about a path. */
export function pathProblem(
  state: State,
  members: Members,
  from: Host,
  target: Target,
  found: { readonly largest: number; readonly problem: string },
): string {
  const path = `underlay ${from.name}→${target.name}`;
  const { largest, problem } = found;
  if (largest === 0) return `${path}: ${problem || 'unreachable'}`;
  const should = expected(from, target);
  const need = needed(state, members, from, target);
  if (target.host !== null && largest < should) {
    const announcer = from.underlayMtu === should ? from.name : target.name;
    const how = problem.startsWith('black hole') ? ', what is larger is lost without a word' : '';
    return problem.startsWith('not finished')
      ? `${path}: ${problem}`
      : `${path} carries ${largest}, ${announcer} announces ${should}${how}`;
  }
  if (need.size <= largest) return '';
  return `${path} carries ${largest}, network ${need.name} needs ${need.size} of it`;
}

/**
 * Connected hosts, or those that hold something of the network (all, while fewer than two do); the ones that are not connected are
 * named in `errors`.
 */
function concerned(state: State, network: Network | null, members: Members, errors: Record<string, string>): Host[] {
  const all = [...state.hosts.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  const holders = network === null ? [] : all.filter((host) => members.get(network.id)?.has(host.id));
  const few = holders.length < 2;
  return (few ? all : holders).filter((host) => {
    if (state.presences.has(host.id)) return true;
    if (!few) errors[host.name] = 'it is not connected';
    return false;
  });
}

/** VTEPs of the others that the host has a way to, and of the network's external peers. */
function targetsOf(state: State, from: Host, hosts: readonly Host[], network: Network | null): Target[] {
  const reachable = (vtep: string): boolean => from.vteps.some((own) => sameFamily(own.address, vtep));
  const others = hosts
    .filter((host) => host.id !== from.id)
    .flatMap((host) => host.vteps.map((vtep) => ({ name: host.name, vtep: vtep.address, host })));
  const peers = network === null ? [] : [...(state.externals.get(network.id)?.values() ?? [])];
  const all = [...others, ...peers.map((peer) => ({ name: peer.name, vtep: peer.vtep, host: null }))];
  return all.filter(({ vtep }) => reachable(vtep));
}

const sameFamily = (a: string, b: string): boolean => a.includes(':') === b.includes(':');
