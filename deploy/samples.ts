/** What becomes of the sample configurations on a real machine. Pure text. */
import { nameservers } from '../agent/dns/upstreams.ts';
import { WeftError } from '../lib/errors.ts';
import { RESOLVER_ADDRESS } from '../lib/resolver-address.ts';

/** As many as resolv.conf(5) has. */
const MAX_RESOLVERS = 3;

/** agent.yaml of a host. @param sample deploy/agent.yaml @param underlay its address, or where to find it */
export function agentConfig(
  sample: string,
  coordinators: readonly string[],
  underlay: { readonly vtep: string } | { readonly on: string },
  name?: string,
): string {
  const list = coordinators.map((address) => `  - ${address}\n`).join('');
  const own = 'vtep' in underlay ? `  vtep: ${underlay.vtep}\n` : `  on: ${JSON.stringify(underlay.on)}\n`;
  const text = swap(swap(sample, '  - 192.0.2.1:7470\n', list), '  vtep: 192.0.2.11\n', own);
  return named(text, name, '#name: h1\n');
}

/** coordinator.yaml. @param etcd "embedded", or URLs with commas between them */
export function coordinatorConfig(sample: string, etcd: string, name?: string, advertise?: string): string {
  const urls = etcd.split(',').map((url) => `    - ${url}\n`);
  const store = etcd === 'embedded' ? 'etcd: embedded\n' : `etcd:\n  endpoints:\n${urls.join('')}`;
  const text = named(swap(sample, '\netcd: embedded\n', `\n${store}`), name, '#name: c1\n');
  return advertise === undefined ? text : swap(text, '#advertise: c1:7470\n', `advertise: ${advertise}\n`);
}

const named = (text: string, name: string | undefined, line: string): string =>
  name === undefined ? text : swap(text, line, `name: ${name}\n`);

function swap(text: string, from: string, to: string): string {
  if (text.split(from).length !== 2)
    throw new WeftError('INTERNAL', `The sample configuration has no line ${JSON.stringify(from)}.`);
  return text.replace(from, () => to);
}

export interface DockerConfig {
  /** daemon.json as it should be; null = it is. */
  readonly text: string | null;
  readonly liveRestore: 'set' | 'there';
  /** "users": other resolvers are named in it, and the agent is not among them. */
  readonly dns: 'set' | 'there' | 'users';
}

/**
 * daemon.json with live-restore on, and the agent's resolver before others, unless the file names some itself.
 * @param text the file, null = there is none. @param resolvers what containers ask when no agent answers
 */
export function dockerConfig(text: string | null, file: string, resolvers: readonly string[]): DockerConfig {
  let value: unknown;
  try {
    value = text === null || text.trim() === '' ? {} : JSON.parse(text);
  } catch {
    value = null;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new WeftError('FAILED_PRECONDITION', `${file} is not a JSON object.`, {
      hint: `mend it, or add "live-restore": true and "dns": ["${RESOLVER_ADDRESS}"] by hand`,
    });
  const old = value as Readonly<Record<string, unknown>>;
  const users: unknown[] = Array.isArray(old['dns']) ? old['dns'] : [];
  const dns = users.includes(RESOLVER_ADDRESS) ? 'there' : users.length > 0 ? 'users' : 'set';
  const liveRestore = old['live-restore'] === true ? 'there' : 'set';
  const added = {
    ...(liveRestore === 'set' ? { 'live-restore': true } : {}),
    ...(dns === 'set' ? { dns: [RESOLVER_ADDRESS, ...resolvers.slice(0, MAX_RESOLVERS - 1)] } : {}),
  };
  if (Object.keys(added).length === 0) return { text: null, liveRestore, dns };
  return { text: `${JSON.stringify({ ...old, ...added }, null, 2)}\n`, liveRestore, dns };
}

/** The nameservers of a resolv.conf(5) that a container can ask too: none of the host's own loopback. */
export const reachableResolvers = (resolvConf: string): string[] =>
  nameservers(resolvConf).filter((address) => !address.startsWith('127.') && address !== '::1');
