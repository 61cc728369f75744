/** What docker and weft show of the mesh, in the words of tests: names of networks, endpoints, refusals. */
import { expect } from 'vitest';
import { IMAGE, on, onOk, until, weft, weftJson } from './lab.ts';

export const HOSTS = ['h1', 'h2', 'h3'] as const;
/** Debian's own client: a newer one in PATH has checks of its own before the daemon is asked. */
export const DOCKER = '/usr/bin/docker';
export const docker = (host: string, ...args: string[]): Promise<string> => onOk(host, DOCKER, ...args);
export const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

export interface Endpoint {
  readonly id: string;
  readonly network: string;
  readonly host: string;
  readonly container: { readonly id: string; readonly name: string } | null;
  readonly ips: readonly string[];
  readonly mac: string;
}

/** docker says no, with that exit status, and a sentence that matches. */
export async function refused(host: string, args: readonly string[], status: number, sentence: RegExp): Promise<void> {
  const r = await on(host, DOCKER, ...args);
  expect({ args, code: r.code, stderr: r.stderr }).toEqual({
    args,
    code: status,
    stderr: expect.stringMatching(sentence),
  });
}
export const runs = (network: string, ...options: string[]): string[] =>
  ['run', '--rm', '--network', network].concat(options, IMAGE, 'true');
export async function start(host: string, name: string, network: string, ...options: string[]): Promise<string> {
  await docker(host, 'run', '-d', '--name', name, '--network', network, ...options, IMAGE, 'sleep', '100000');
  return name;
}

/** What docker shows of a network, without what is each host's own. */
export async function shown(host: string, network: string): Promise<Record<string, unknown>> {
  const found = JSON.parse(await docker(host, 'network', 'inspect', '-f', '{{json .}}', network)) as {
    [key: string]: unknown;
    IPAM: { Config: unknown };
  };
  const { Name, Driver, Internal, Options, Labels, IPAM } = found;
  return { Name, Driver, Internal, Options, Labels, Config: IPAM.Config };
}
export const names = async (host: string): Promise<string[]> =>
  lines(await docker(host, 'network', 'ls', '--filter', 'driver=weft', '--format', '{{.Name}}')).toSorted();
export const everywhere = (network: string): Promise<boolean> =>
  until(`${network} is on every host`, async () =>
    (await Promise.all(HOSTS.map(names))).every((list) => list.includes(network)),
  );
export const nowhere = (network: string): Promise<boolean> =>
  until(`${network} is on no host`, async () =>
    (await Promise.all(HOSTS.map(names))).every((list) => !list.includes(network)),
  );
export const meshNames = async (): Promise<string[]> =>
  (await weftJson<{ name: string }[]>('network', 'ls')).map((n) => n.name);
export const conflicts = async (): Promise<{ host: string; network: string; message: string }[]> =>
  (await weftJson<{ conflicts: { host: string; network: string; message: string }[] }>('status')).conflicts;

/** Waits until `weft endpoint ls` shows exactly these, as "HOST/CONTAINER on NETWORK". */
export async function endpoints(network: string, ...expected: string[]): Promise<Endpoint[]> {
  const text = (e: Endpoint): string => `${e.host}/${e.container?.name ?? '?'}`;
  return until(`endpoints of ${network}: ${expected.join(' ')}`, async () => {
    const list = await weftJson<Endpoint[]>('endpoint', 'ls', '--network', network);
    const seen = list.map(text).toSorted().join(' ');
    if (seen === expected.toSorted().join(' ')) return list;
    throw new Error(`seen: ${seen}`);
  });
}
/** Names of a container's interfaces but lo. */
export const links = async (host: string, container: string): Promise<string[]> =>
  lines(await docker(host, 'exec', container, 'ls', '/sys/class/net')).filter((name) => name !== 'lo');
/** Names of the interfaces that its default routes use. */
export const defaults = async (host: string, container: string): Promise<string[]> =>
  lines(await docker(host, 'exec', container, 'ip', 'route'))
    .filter((line) => line.startsWith('default'))
    .map((line) => / dev (\S+)/.exec(line)?.[1] ?? '');

export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly hint: string | null;
}
/** The command fails with that status and code; what it says on stderr is one JSON object, and nothing is on stdout. */
export async function fails(status: number, code: string, ...args: string[]): Promise<Failure> {
  const r = await weft('--json', ...args);
  const what = args.map((arg) => arg.slice(0, 40)).join(' ');
  expect({ what, code: r.code, stdout: r.stdout }).toEqual({ what, code: status, stdout: '' });
  const { error } = JSON.parse(r.stderr) as { error: Failure };
  expect({ what, ...error }).toEqual({ what, code, message: expect.stringMatching(/./), hint: error.hint });
  return error;
}
