/** The words that may follow, one a line, for the completion scripts. Quick, and silent about every failure. */
import { readdir } from 'node:fs/promises';
import type { Argument, Command } from 'commander';
import { endpointName } from '../lib/endpoint-name.ts';
import type { Mesh } from './client.ts';
import { withMesh } from './command.ts';
import type { Io } from './io.ts';
import { buildProgram } from './program.ts';

/** Names from the coordinator are worth this long a wait, milliseconds. */
const NAMES_MS = 1000;

/** @param words after `weft`; the last one is being typed, and may be empty. */
export async function complete(words: readonly string[], io: Io): Promise<void> {
  const typed = words.at(-1) ?? '';
  const before = words.slice(0, -1);
  const noun = before.find((word) => !word.startsWith('-')) ?? null;
  const program = await buildProgram(noun, io, () => {});
  const { command, positional, pending } = walk(program, before);
  const found = typed.startsWith('-') ? flags(command) : await candidates(command, positional, pending, typed, io);
  const matching = [...new Set(found)].filter((word) => word.startsWith(typed)).sort();
  io.out(matching.map((word) => `${word}\n`).join(''));
}

/** Where the words lead: the command, how many arguments it has got, and the option that waits for its value. */
function walk(program: Command, words: readonly string[]) {
  let command = program;
  let positional = 0;
  let pending: string | null = null;
  for (const word of words) {
    if (pending !== null) {
      pending = null;
      continue;
    }
    if (word.startsWith('-')) {
      const option = command.options.find((one) => one.long === word || one.short === word);
      pending = option?.required === true || option?.optional === true ? option.attributeName() : null;
      continue;
    }
    const sub = command.commands.find((one) => one.name() === word || one.aliases().includes(word));
    if (sub !== undefined && positional === 0) command = sub;
    else positional++;
  }
  return { command, positional, pending };
}

const flags = (command: Command): string[] => [
  ...command.options.filter((option) => !option.hidden).map((option) => option.long ?? option.short ?? ''),
  '--help',
];

async function candidates(
  command: Command,
  positional: number,
  pending: string | null,
  typed: string,
  io: Io,
): Promise<string[]> {
  if (pending === 'file') return files(typed);
  if (pending !== null) return [...(FIXED[pending] ?? (await names(pending, command, io)))];
  if (command.commands.length > 0) return command.commands.map((one) => one.name());
  const args: readonly Argument[] = command.registeredArguments;
  const last = args.at(-1);
  const argument = args[positional] ?? (last?.variadic === true ? last : undefined);
  if (argument === undefined) return [];
  if (argument.name() === 'shell') return ['bash', 'zsh', 'fish'];
  return names(argument.name(), command, io);
}

/** Files of YAML or JSON, and directories, where the typed word leads; the shells complete no files by themselves. */
async function files(typed: string): Promise<string[]> {
  const folder = typed.slice(0, typed.lastIndexOf('/') + 1);
  try {
    const found = await readdir(folder === '' ? '.' : folder, { withFileTypes: true });
    return found.flatMap((entry) => {
      if (entry.isDirectory()) return [`${folder}${entry.name}/`];
      return /\.(ya?ml|json)$/.test(entry.name) ? [`${folder}${entry.name}`] : [];
    });
  } catch {
    return [];
  }
}

/** What exists of that kind. */
async function names(kind: string, command: Command, io: Io): Promise<string[]> {
  const read = READERS[/[nN]etwork$/.test(kind) ? 'network' : kind];
  if (read === undefined || command.parent?.name() === 'ca') return [];
  const late = AbortSignal.timeout(NAMES_MS);
  const quick: Io = { ...io, signal: () => late };
  try {
    return await withMesh(quick, command, read);
  } catch {
    return [];
  }
}

/** Values of flags that are the same everywhere. */
const FIXED: Readonly<Record<string, readonly string[]>> = {
  encap: ['vxlan', 'geneve', 'gre', 'vlan'],
  policyDefault: ['allow', 'drop'],
  health: ['tcp', 'http:/', 'none'],
};

const READERS: Readonly<Record<string, (mesh: Mesh) => Promise<string[]>>> = {
  network: async (mesh) => (await mesh.call('listNetworks', { project: '' })).networks.map((n) => n.name),
  host: async (mesh) => (await mesh.call('listHosts', { localOnly: false })).hosts.map((h) => h.host?.name ?? ''),
  peer: async (mesh) => (await mesh.call('listPeers', { project: '', network: '' })).peers.map((p) => p.name),
  reservation: async (mesh) =>
    (await mesh.call('listReservations', { project: '', network: '' })).reservations.map(
      (r) => r.reservation?.name ?? '',
    ),
  service: async (mesh) =>
    (await mesh.call('listServices', { project: '', network: '' })).services.map((s) => s.service?.name ?? ''),
  policy: async (mesh) => (await mesh.call('listPolicies', { project: '', network: '' })).policies.map((p) => p.name),
  router: async (mesh) => (await mesh.call('listRouters', { project: '' })).routers.map((r) => r.name),
  container: containers,
  source: containers,
  destination: containers,
  endpoint: containers,
};

async function containers(mesh: Mesh): Promise<string[]> {
  const { endpoints } = await mesh.call('listEndpoints', { project: '', network: '', host: '' });
  return endpoints.map(endpointName).filter((name) => name !== '');
}
