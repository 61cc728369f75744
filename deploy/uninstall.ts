/**
 * `uninstall`: takes Weft off a host whose agent has been stopped. Docker keeps a copy of every network of the mesh, and lets go of
 * it only when the plugin agrees; the agent must not be asked, since to it that would mean "remove the network from the mesh".
 * So a stand-in answers for it here.
 */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync } from 'node:fs';
import { createServer, request, type Server } from 'node:http';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { planForwardRemoval } from '../agent/gateway/forward.ts';
import { NFT_FAMILIES, NFT_TABLE } from '../agent/gateway/nft.ts';
import { isOurLink, primaryOf } from '../agent/link/names.ts';
import { giveBack } from '../agent/shaping/start.ts';
import { UnderlayQueues } from '../agent/shaping/underlay.ts';
import { AGENT_CONFIG, type AgentConfig, parseAgentConfig } from '../lib/config.ts';
import { WeftError } from '../lib/errors.ts';
import { RESOLVER_ADDRESS } from '../lib/resolver-address.ts';
import { PLACES, UNITS } from './install.ts';

export interface Paths {
  readonly dockerSocket: string;
  readonly pluginSocket: string;
}

interface DockerNetwork {
  readonly Id: string;
  readonly Name: string;
  readonly Driver: string;
  readonly Containers?: Readonly<Record<string, { readonly Name: string }>>;
}

/** @param purge also configuration, certificates, journal. @throws FAILED_PRECONDITION when Weft is still in use here. */
export async function uninstall(paths: Paths, purge: boolean, say: (line: string) => void): Promise<void> {
  if (await connectable(paths.pluginSocket))
    throw new WeftError('FAILED_PRECONDITION', 'The agent still runs.', {
      hint: 'systemctl disable --now weft-agent.service weft-agent.socket',
    });
  for (const unit of [...UNITS.agent, ...UNITS.coordinator])
    if (await active(unit))
      throw new WeftError('FAILED_PRECONDITION', `${unit} is active.`, { hint: `systemctl disable --now ${unit}` });
  if (existsSync(paths.dockerSocket)) await removeCopies(paths, say);
  for (const [file, ...args] of [...(await leftovers()), ...(await filters())]) await promisify(execFile)(file, args);
  const { bpfDir, stateDir } = settings();
  await giveQueueBack(stateDir, say);
  rmSync(bpfDir, { recursive: true, force: true });
  for (const unit of [...UNITS.agent, ...UNITS.coordinator]) rmSync(`${PLACES.units}/${unit}`, { force: true });
  rmSync(PLACES.link, { force: true });
  rmSync(PLACES.programs, { recursive: true, force: true });
  say('removed bridge, links, eBPF maps and programs, packet filters, units and programs');
  if (namesResolver(PLACES.docker))
    say(`take "${RESOLVER_ADDRESS}" out of dns in ${PLACES.docker}: nobody answers there any more`);
  if (!purge) return say(`kept ${PLACES.config} and /var/lib/weft (--purge removes them too)`);
  for (const dir of [PLACES.config, '/var/lib/weft', '/run/weft']) empty(dir);
  say('removed configuration, certificates and state');
}

/** Where maps and programs of the kernel side are pinned, and state is kept; a configuration that cannot be read has changed nothing here. */
function settings(): Pick<AgentConfig, 'bpfDir' | 'stateDir'> {
  try {
    return parseAgentConfig(readFileSync(AGENT_CONFIG, 'utf8'), AGENT_CONFIG);
  } catch {
    return { bpfDir: '/sys/fs/bpf/weft', stateDir: '/var/lib/weft' };
  }
}

/** An interface that the agent has shaped has again what it had before. */
async function giveQueueBack(stateDir: string, say: (line: string) => void): Promise<void> {
  const queues = new UnderlayQueues();
  // Without tc there is no queue of Weft's either.
  const found = await queues.observe(null).catch((error: unknown) => error);
  if (!(found instanceof Map)) return say(`queues of interfaces not looked at: ${String(found)}`);
  const names = [...(found as Map<string, unknown>).keys()];
  if (names.length === 0) return;
  const problem = await giveBack(stateDir, queues);
  say(problem === '' ? `gave ${names.join(', ')} back the queue of before` : problem);
}

/** Without systemd nothing is. */
const active = (unit: string): Promise<boolean> =>
  promisify(execFile)('systemctl', ['is-active', '--quiet', unit]).then(
    () => true,
    () => false,
  );

/** The directory too, unless it is a mount point. */
function empty(dir: string): void {
  if (!existsSync(dir)) return;
  for (const name of readdirSync(dir)) rmSync(join(dir, name), { recursive: true });
  try {
    rmdirSync(dir);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
  }
}

async function removeCopies(paths: Paths, say: (line: string) => void): Promise<void> {
  const { dockerSocket } = paths;
  const all = (await call(dockerSocket, 'GET', '/networks')) as DockerNetwork[];
  const ours = all.filter((network) => network.Driver === 'weft');
  const used: string[] = [];
  for (const { Id } of ours) {
    const network = (await call(dockerSocket, 'GET', `/networks/${Id}`)) as DockerNetwork;
    used.push(...Object.values(network.Containers ?? {}).map((container) => `${container.Name} in ${network.Name}`));
  }
  if (used.length > 0)
    throw new WeftError('FAILED_PRECONDITION', `Containers still use the mesh: ${used.join(', ')}.`, {
      hint: 'remove them (docker rm -f), or take them off with docker network disconnect',
    });
  if (ours.length === 0) return;
  const standIn = await listen(paths.pluginSocket);
  try {
    for (const { Id, Name } of ours) {
      await call(dockerSocket, 'DELETE', `/networks/${Id}`);
      say(`removed this host's copy of ${Name}; the mesh keeps the network`);
    }
  } finally {
    standIn.closeAllConnections();
    standIn.close();
    rmSync(paths.pluginSocket, { force: true });
  }
}

/** A plugin that agrees to everything. */
async function listen(path: string): Promise<Server> {
  mkdirSync(dirname(path), { recursive: true });
  rmSync(path, { force: true });
  const server = createServer((incoming, response) => {
    incoming.resume().on('end', () => {
      const activate = incoming.url === '/Plugin.Activate';
      response.setHeader('content-type', 'application/vnd.docker.plugins.v1.1+json');
      response.end(JSON.stringify(activate ? { Implements: ['NetworkDriver', 'IpamDriver'] } : {}));
    });
  });
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(path, resolve));
  return server;
}

/** A pair goes with one of its ends; where both are here, that is named once. Programs go with their links. */
export function ownLinks(names: readonly string[]): string[] {
  const ours = names.filter(isOurLink);
  return ours.filter((name) => primaryOf(name) === name || !ours.includes(primaryOf(name)));
}

/** Commands that remove what is Weft's by its name, and nothing else. */
async function leftovers(): Promise<[string, ...string[]][]> {
  // The second is of the checksum probe (agent/probe/checksum.ts), and there only if an agent was killed in the middle of it.
  const bridges = ['--if-exists', 'del-br', 'br-weft', '--', '--if-exists', 'del-br', 'weft-probe'];
  const bridge: [string, ...string[]] = ['ovs-vsctl', '--timeout=10', ...bridges];
  const { stdout } = await promisify(execFile)('ip', ['-j', 'link', 'show']);
  const names = (JSON.parse(stdout || '[]') as { ifname: string }[]).map((link) => link.ifname);
  return [bridge, ...ownLinks(names).map((name): [string, ...string[]] => ['ip', 'link', 'delete', name])];
}

/** Our tables of nftables, and our rules among Docker's. */
async function filters(): Promise<[string, ...string[]][]> {
  const out: [string, ...string[]][] = [];
  const said = (file: string, ...args: string[]): Promise<string | null> =>
    promisify(execFile)(file, args).then(
      ({ stdout }) => stdout,
      () => null, // not installed, or there is no such table
    );
  for (const family of NFT_FAMILIES)
    if ((await said('nft', 'list', 'table', family, NFT_TABLE)) !== null)
      out.push(['nft', 'delete', 'table', family, NFT_TABLE]);
  for (const program of ['iptables', 'ip6tables'])
    for (const { args } of planForwardRemoval((await said(program, '-w', '5', '-S')) ?? ''))
      out.push([program, '-w', '5', ...args]);
  return out;
}

function namesResolver(file: string): boolean {
  try {
    return readFileSync(file, 'utf8').includes(`"${RESOLVER_ADDRESS}"`);
  } catch {
    return false;
  }
}

function call(socketPath: string, method: string, path: string): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, method, path, timeout: 30_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => {
        if ((response.statusCode ?? 500) < 300) return resolve(text === '' ? null : JSON.parse(text));
        reject(new WeftError('UNAVAILABLE', `dockerd refused ${method} ${path}: ${text.trim()}`));
      });
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error('no answer within 30 s')));
    outgoing.on('error', (cause) => {
      reject(new WeftError('UNAVAILABLE', `dockerd cannot be asked: ${cause.message}`, { cause }));
    });
    outgoing.end();
  });
}

function connectable(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}
