/** weft doctor: looks for what is wrong with the network below. Exit 1 = something is. */
import type { Command } from 'commander';
import { flagsOf, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { clean, table } from './output.ts';
import { type PathJson, pathJson } from './shapes.ts';
import { nonEmpty } from './values.ts';

export function register(program: Command, io: Io): void {
  const noun = program.command('doctor').description('find what is wrong with the network below');
  remote(
    noun,
    'mtu',
    'try real sizes between the hosts, by frames through the tunnels, each way; find black holes and say what to set',
  )
    .optionsGroup('What:')
    .option('--network <network>', 'only between the hosts and peers of this network')
    .action(async (_options: unknown, command: Command) => {
      const { network } = flagsOf<{ network?: string }>(command);
      const request = {
        project: '',
        network: network === undefined ? '' : nonEmpty('--network', network),
        localOnly: false,
      };
      const answer = await withMesh(io, command, (mesh) => mesh.call('probeMtu', request, { timeoutMs: 60_000 }));
      const order = (p: PathJson): string => `${p.from}\0${p.to}\0${p.toVtep}`;
      const paths = answer.paths.map(pathJson).sort((a, b) => (order(a) < order(b) ? -1 : 1));
      const errors = Object.entries(answer.errors)
        .map(([host, error]) => ({ host, error }))
        .sort((a, b) => (a.host < b.host ? -1 : 1));
      const advice = advise(paths);
      const ok = errors.length === 0 && paths.every((p) => p.problem === null);
      print(io, command, { ok, paths, errors, advice }, () => explain(paths, errors, advice));
      if (!ok) io.setExit(1);
    });
}

/** Headers of the encapsulation that takes most, VXLAN and Geneve, over the address family of the path. */
const overhead = (path: PathJson): number => (path.toVtep?.includes(':') === true ? 70 : 50);

interface Narrow {
  readonly hosts: readonly [string, string];
  /** Hosts whose packets are too long on the way to the other. */
  readonly senders: readonly string[];
  readonly size: number;
  readonly inside: number;
}

/** Pairs of hosts whose paths carry less than is announced: the smaller of both ways. */
function narrowPairs(paths: readonly PathJson[]): Narrow[] {
  const pairs = new Map<string, Narrow>();
  for (const path of paths) {
    if (path.problem === null || path.largest === null || path.underlayMtu === null) continue;
    if (path.largest >= path.underlayMtu) continue;
    const hosts: [string, string] = path.from < path.to ? [path.from, path.to] : [path.to, path.from];
    const known = pairs.get(hosts.join('\0'));
    const senders = [...(known?.senders ?? []), path.from];
    const found = { hosts, senders, size: path.largest, inside: path.largest - overhead(path) };
    pairs.set(hosts.join('\0'), known === undefined || known.size > found.size ? found : { ...known, senders });
  }
  return [...pairs.values()];
}

/** What to set: a sentence for each size, with the host that all its paths have in common, else with all that send into one. */
export function advise(paths: readonly PathJson[]): string[] {
  const bySize = Map.groupBy(narrowPairs(paths), (pair) => pair.size);
  const lines = [...bySize]
    .sort(([a], [b]) => a - b)
    .map(([size, pairs]) => {
      const all = [...new Set(pairs.flatMap((pair) => pair.hosts))].sort();
      const common = pairs.length < 2 ? [] : all.filter((host) => pairs.every((pair) => pair.hosts.includes(host)));
      const senders = [...new Set(pairs.flatMap((pair) => pair.senders))].sort();
      const names = (common.length === 1 ? common : senders).join(' and ');
      const inside = Math.min(...pairs.map((pair) => pair.inside));
      return `set underlay.mtu: ${size} in agent.yaml of ${names}, or let the underlay carry more; networks made after that have MTU ${inside}, those with a larger one must be made again`;
    });
  const dead = paths.filter((p) => p.problem !== null && p.largest === null);
  const named = (by: string): string =>
    dead
      .filter((p) => p.probedBy === by)
      .map((p) => `${p.from}→${p.to} (${p.toVtep})`)
      .join(', ');
  const [vxlan, icmp] = [named('vxlan'), named('icmp')];
  if (vxlan !== '')
    lines.push(
      `no VXLAN frame gets through ${vxlan}: do firewalls let UDP to the tunnel's port (4789) pass that way, is the VTEP right (underlay in agent.yaml), and do the hosts route to it?`,
    );
  if (icmp !== '')
    lines.push(
      `nothing gets through ${icmp}: is the VTEP right (underlay in agent.yaml), do the hosts route to it, and is ICMP echo let through?`,
    );
  return lines;
}

function explain(
  paths: readonly PathJson[],
  errors: readonly { host: string; error: string }[],
  advice: readonly string[],
): string {
  const rows = paths.map((p) => [
    p.from,
    p.to,
    p.toVtep ?? '-',
    p.largest === null ? '-' : String(p.largest),
    p.underlayMtu === null ? '-' : String(p.underlayMtu),
    p.probedBy,
    p.problem === null ? 'ok' : p.problem,
  ]);
  const parts = [table(['FROM', 'TO', 'VTEP', 'CARRIES', 'ANNOUNCED', 'BY', 'STATE'], rows)];
  if (paths.length === 0) parts[0] = 'There are no paths: fewer than two hosts are connected.\n';
  for (const [why, all] of Map.groupBy(
    paths.filter((p) => p.probedWhy !== null),
    (p) => p.probedWhy ?? '',
  )) {
    const some = all.map((p) => `${clean(p.from)}→${clean(p.to)}`).join(', ');
    parts.push(`Asked by ICMP echo, which firewalls may judge otherwise than VXLAN: ${some} (${clean(why)}).\n`);
  }
  for (const { host, error } of errors) parts.push(`${clean(host)}: could not be asked: ${clean(error)}\n`);
  if (advice.length > 0) parts.push(`\nTo do:\n${advice.map((line) => `  ${clean(line)}\n`).join('')}`);
  return parts.join('');
}
