/**
 * Whether everybody says the same of a host's endpoints (invariant I7): Docker, the mesh, etcd, the agent's journal, Open vSwitch and
 * the kernel. Docker is right.
 */
import { AgentClient, AgentService } from '../../gen/weft/v1/agent.ts';
import { callUnary, channelOptions, insecureChannelCredentials } from '../../lib/rpc.ts';
import { etcdAll } from './drift.ts';
import { onOk, until, weftJson } from './lab.ts';
import { labStatus } from './lab-direct.ts';
import { dockerGet } from './prober.ts';

interface DockerNetwork {
  readonly Id: string;
  readonly Driver: string;
  readonly Containers?: Readonly<Record<string, { readonly EndpointID: string; readonly IPv4Address: string }>> | null;
}

interface JournalEndpoint {
  readonly id: string;
  readonly ip: string;
  readonly mac: string;
  readonly container: { readonly name: string } | null;
}

export interface JournalDump {
  readonly endpoints: Readonly<Record<string, JournalEndpoint>>;
  readonly addresses: Readonly<Record<string, { readonly ip: string; readonly state: string }>>;
  readonly blocks: Readonly<Record<string, { readonly cidr: string }>>;
  readonly networks: Readonly<Record<string, { readonly name: string }>>;
}

const hostOf = async (name: string) => {
  const found = (await labStatus()).hosts.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no host ${name}`);
  return found;
};

/** Endpoints on Weft networks as the host's Docker has them: id → address. */
export async function dockerEndpoints(host: string): Promise<Map<string, string>> {
  const { dockerSocket } = await hostOf(host);
  const found = new Map<string, string>();
  for (const { Id, Driver } of await dockerGet<DockerNetwork[]>(dockerSocket, '/networks')) {
    if (Driver !== 'weft') continue;
    const { Containers } = await dockerGet<DockerNetwork>(dockerSocket, `/networks/${Id}`);
    for (const { EndpointID, IPv4Address } of Object.values(Containers ?? {}))
      found.set(EndpointID, IPv4Address.split('/')[0] ?? '');
  }
  return found;
}

export async function journalOf(host: string): Promise<JournalDump> {
  const { agentSocket } = await hostOf(host);
  const credentials = insecureChannelCredentials();
  const client = new AgentClient(`unix:${agentSocket}`, credentials, channelOptions({ serverName: null }));
  try {
    const { text } = await callUnary(client, AgentService.dump, { what: 'journal' });
    return JSON.parse(text) as JournalDump;
  } finally {
    client.close();
  }
}

/** What somebody has and Docker does not, or lacks; empty when all agree. */
export async function disagreements(host: string): Promise<string[]> {
  const docker = await dockerEndpoints(host);
  const ids = new Set(docker.keys());
  const ips = new Set(docker.values());
  const named = (prefix: string): Set<string> => new Set([...ids].map((id) => prefix + id.slice(0, 12)));
  const journal = await journalOf(host);
  const listed = await weftJson<{ id: string }[]>('endpoint', 'ls', '--host', host);
  const { id: hostId } = await weftJson<{ id: string }>('host', 'inspect', host);
  const records = [...(await etcdAll())].filter(
    ([key, value]) => key.includes('/endpoints/') && value.includes(`"hostId":"${hostId}"`),
  );
  const ports = (await onOk(host, 'ovs-vsctl', 'list-ports', 'br-weft')).split('\n');
  const inHost = (await onOk(host, 'ip', '-br', 'link')).split('\n').map((line) => line.split(/[@\s]/)[0] ?? '');
  const held = Object.values(journal.addresses).filter((a) => a.state === 'endpoint' || a.state === 'requested');
  return [
    ...compare('weft endpoint ls', ids, new Set(listed.map((e) => e.id))),
    ...compare('etcd', ids, new Set(records.map(([key]) => key.split('/').at(-1) ?? ''))),
    ...compare('journal', ids, new Set(Object.keys(journal.endpoints))),
    ...compare('addresses', ips, new Set(held.map((a) => a.ip))),
    ...compare('ports', named('wfo'), new Set(ports.filter((p) => p.startsWith('wf')))),
    ...compare('links', named('wft'), new Set(inHost.filter((l) => /^wf[tc]/.test(l)))),
    ...compare('links to Open vSwitch', named('wfk'), new Set(inHost.filter((l) => l.startsWith('wfk')))),
    ...(ports.includes('weft-to') ? [] : ['Open vSwitch has no tunnel']),
  ];
}

function compare(who: string, want: ReadonlySet<string>, have: ReadonlySet<string>): string[] {
  return [
    ...[...want.difference(have)].map((one) => `${who} lacks ${one}`),
    ...[...have.difference(want)].map((one) => `${who} has ${one}`),
  ];
}

/**
 * Waits until everybody agrees with the host's Docker. An address that Docker asked for just before its agent was killed, and never
 * made an endpoint of, is free a minute after the agent's start. @returns milliseconds that it took
 */
export async function agreed(host: string, timeoutMs = 100_000): Promise<number> {
  const began = Date.now();
  let last: string[] = [];
  await until(
    `all agree on ${host}`,
    async () => {
      last = await disagreements(host);
      return last.length === 0;
    },
    timeoutMs,
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}\n${last.join('\n')}`);
  });
  return Date.now() - began;
}
