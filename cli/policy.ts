/** weft policy: rules for what endpoints may send and receive. */
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';
import { flagsOf, networkFlag, print, remote, withMesh } from './command.ts';
import type { Io } from './io.ts';
import { table } from './output.ts';
import { registerExplain } from './policy-explain.ts';
import { parsePolicies, policyYaml } from './policy-yaml.ts';
import { removeEach } from './remove.ts';
import { settle } from './settle.ts';
import { type PolicyJson, policyJson } from './shapes.ts';
import { nonEmpty } from './values.ts';

/** Thousands of policies are tens of transactions. */
const APPLY_MS = 60_000;
const CHANGE_MS = 30_000;

export function register(program: Command, io: Io): void {
  const noun = program.command('policy').description('rules for what endpoints may send and receive');
  registerApply(noun, io);
  remote(noun, 'ls', 'list policies')
    .alias('list')
    .optionsGroup('Filter:')
    .option('--network <network>', 'only of this network')
    .action(async (_options: unknown, command: Command) => {
      const shown = await withMesh(io, command, (mesh) => listPolicies(mesh, networkFlag(command)));
      print(io, command, shown, () => policyTable(shown));
    });
  remote(noun, 'inspect <policy>', 'show a policy as YAML, as apply takes it')
    .optionsGroup('Filter:')
    .option('--network <network>', 'its network, where the name is in several')
    .action(async (name: string, _options: unknown, command: Command) => {
      nonEmpty('policy', name);
      const all = await withMesh(io, command, (mesh) => listPolicies(mesh, networkFlag(command)));
      const found = findPolicy(all, name);
      print(io, command, found, () => policyYaml(found));
    });
  remote(noun, 'rm <policy...>', 'remove policies of a network')
    .alias('remove')
    .optionsGroup('Policy:')
    .requiredOption('--network <network>', 'network that they are in')
    .action(async (names: string[], _options: unknown, command: Command) => {
      const network = networkFlag(command);
      await removeEach(io, command, names, (mesh, name) => {
        const request = { project: '', network, name: nonEmpty('policy', name) };
        return mesh.call('removePolicy', request, { timeoutMs: CHANGE_MS });
      });
    });
  registerExplain(noun, io);
}

function registerApply(noun: Command, io: Io): void {
  remote(noun, 'apply', 'make the policies of a file, or replace those of the same name')
    .optionsGroup('Policies:')
    .requiredOption('-f, --file <file>', 'YAML: a policy a document, or a list under "policies" ("-": standard input)')
    .action(async (_options: unknown, command: Command) => {
      const { file, json } = flagsOf<{ file: string }>(command);
      const policies = parsePolicies(await sourceOf(io, file), file === '-' ? 'standard input' : file);
      const shown = await withMesh(io, command, async (mesh) => {
        const answer = await mesh.call('applyPolicies', { project: '', policies }, { timeoutMs: APPLY_MS });
        await settle(io, mesh, answer.revision, json === true);
        return policies.map(({ network, policy }, i) => ({
          network,
          name: policy?.name ?? '',
          outcome: answer.outcomes[i] ?? '',
          revision: answer.policies[i]?.revision.toString() ?? null,
        }));
      });
      print(io, command, shown, () => shown.map((p) => `${p.network}/${p.name} ${p.outcome}\n`).join(''));
    });
}

async function sourceOf(io: Io, file: string): Promise<string> {
  if (nonEmpty('--file', file) === '-') return io.stdin();
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new WeftError('INVALID_ARGUMENT', `${file} cannot be read: ${(error as Error).message}.`);
  }
}

async function listPolicies(mesh: Mesh, network: string): Promise<PolicyJson[]> {
  const { policies, networkNames } = await mesh.call('listPolicies', { project: '', network });
  const order = (p: PolicyJson): string => `${p.network}\0${p.name}`;
  return policies.map((p) => policyJson(p, networkNames)).sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

function policyTable(policies: readonly PolicyJson[]): string {
  const rows = policies.map((p) => {
    const select = Object.entries(p.select).map(([key, value]) => `${key}=${value}`);
    const sizes = [p.ingress.length, p.egress.length].map(String);
    const about = select.length === 0 ? 'all' : select.join(',');
    return [p.name, p.network, p.tier, String(p.order), about, ...sizes, p.staged ? 'staged' : 'in force'];
  });
  return table(['NAME', 'NETWORK', 'TIER', 'ORDER', 'SELECT', 'INGRESS', 'EGRESS', 'STATE'], rows);
}

function findPolicy(all: readonly PolicyJson[], name: string): PolicyJson {
  const found = all.filter((p) => p.name === name);
  const [first] = found;
  if (first === undefined)
    throw new WeftError('NOT_FOUND', `There is no policy “${name}”.`, { hint: 'weft policy ls lists them' });
  if (found.length === 1) return first;
  const networks = found.map((p) => p.network).join(', ');
  throw new WeftError('INVALID_ARGUMENT', `“${name}” is in several networks: ${networks}.`, { hint: 'give --network' });
}
