/** weft doctor: looks for what is wrong with the network below. Exit 1 = something is. */
import type { Command } from 'commander';
import { flagsOf, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { clean, table } from './output.ts';
import { type PathJson, pathJson } from './shapes.ts';
import { nonEmpty } from './values.ts';

export function register(program: Command, io: Io): void {
  const noun = program.command('doctor').description('find what is wrong with the network below');
  remote(noun, 'mtu', 'try real packet sizes between the hosts, both ways; find black holes and say what to set')
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

/** What to set: one sentence for each size that hosts should announce instead of what they do. */
export function advise(paths: readonly PathJson[]): string[] {
  const bySize = new Map<number, { hosts: Set<string>; inside: number }>();
  for (const path of paths) {
    if (path.problem === null || path.largest === null || path.underlayMtu === null) continue;
    if (path.largest >= path.underlayMtu) continue;
    const inside = path.largest - overhead(path);
    const known = bySize.get(path.largest) ?? { hosts: new Set<string>(), inside };
    bySize.set(path.largest, {
      hosts: known.hosts.add(path.from).add(path.to),
      inside: Math.min(known.inside, inside),
    });
  }
  const lines = [...bySize]
    .sort(([a], [b]) => a - b)
    .map(([size, { hosts, inside }]) => {
      const names = [...hosts].sort().join(' and ');
      return `set underlay.mtu: ${size} in agent.yaml of ${names}, or let the underlay carry more; networks made then have MTU ${inside}`;
    });
  const dead = paths
    .filter((p) => p.problem !== null && p.largest === null)
    .map((p) => `${p.from}→${p.to} (${p.toVtep})`);
  if (dead.length > 0)
    lines.push(
      `nothing gets through ${dead.join(', ')}: is the VTEP right (underlay in agent.yaml), and do the hosts route to it?`,
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
    p.problem === null ? 'ok' : p.problem,
  ]);
  const parts = [table(['FROM', 'TO', 'VTEP', 'CARRIES', 'ANNOUNCED', 'STATE'], rows)];
  if (paths.length === 0) parts[0] = 'There are no paths: fewer than two hosts are connected.\n';
  for (const { host, error } of errors) parts.push(`${clean(host)}: could not be asked: ${clean(error)}\n`);
  if (advice.length > 0) parts.push(`\nTo do:\n${advice.map((line) => `  ${clean(line)}\n`).join('')}`);
  return parts.join('');
}
