/** weft attach, weft detach: endpoints of this host that are no containers. They talk to the host's own agent, not to a coordinator. */
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { AttachRequest } from '../gen/weft/v1/agent.ts';
import { WeftError } from '../lib/errors.ts';
import type { Agent } from './agent-client.ts';
import { flagsOf, jsonFlag, print } from './command.ts';
import type { Io } from './io.ts';
import { endpointJson } from './shapes.ts';
import { UsageError } from './usage.ts';
import { collect, labels, nonEmpty } from './values.ts';

const SOCKET = '/run/weft/agent.sock';
/** A first endpoint on a host waits for blocks, peers and flows. */
const ATTACH_MS = 30_000;

interface SocketFlag {
  readonly socket?: string;
}

interface AttachFlags extends SocketFlag {
  readonly netns?: string;
  readonly interface?: string;
  readonly ip?: string;
  readonly ip6?: string;
  readonly mac?: string;
  readonly name?: string;
  readonly ifname?: string;
  readonly label?: string[];
}

const local = (command: Command): Command =>
  jsonFlag(command).optionsGroup('Agent:').option('--socket <path>', `the agent's socket (default: ${SOCKET})`);

export function registerAttach(program: Command, io: Io): void {
  local(program.command('attach <network>').description("attach a network namespace or a VM's tap of this host"))
    .optionsGroup('What:')
    .option('--netns <path|name|pid>', 'network namespace: a path, a name of ip netns, or a process id')
    .option('--interface <name>', 'tap, end of a veth pair, or macvtap; it becomes the port')
    .optionsGroup('Endpoint:')
    .option('--ip <ip>', 'IPv4 address (default: given by the mesh)')
    .option('--ip6 <ip>', 'IPv6 address (default: given by the mesh)')
    .option('--mac <mac>', 'MAC address (default: made from the address)')
    .option('--name <name>', "its name (default: the interface's or the namespace's)")
    .option('--ifname <name>', 'name of the link in the namespace (default: weft0)')
    .option('--label <key=value>', 'label (may be repeated)', collect)
    .action(async (network: string, _options: unknown, command: Command) => {
      const flags = flagsOf<AttachFlags>(command);
      const request = requestOf(network, flags);
      const answer = await withAgent(io, flags, (agent) => agent.attach(request, ATTACH_MS));
      if (answer.endpoint === undefined) throw new WeftError('INTERNAL', 'The agent answered without an endpoint.');
      const { networkId, hostId } = answer.endpoint;
      const names = { networks: { [networkId]: answer.network }, hosts: { [hostId]: answer.host } };
      const shown = endpointJson(answer.endpoint, names);
      print(io, command, shown, () => `${shown.id}\n`);
    });
}

export function registerDetach(program: Command, io: Io): void {
  local(program.command('detach <endpoint>').description('detach what weft attach has attached, by name or id')).action(
    async (name: string, _options: unknown, command: Command) => {
      const endpoint = nonEmpty('endpoint', name);
      await withAgent(io, flagsOf<SocketFlag>(command), (agent) => agent.detach(endpoint, ATTACH_MS));
      print(io, command, { endpoint }, () => `${endpoint}\n`);
    },
  );
}

function requestOf(network: string, flags: AttachFlags): AttachRequest {
  if ((flags.netns === undefined) === (flags.interface === undefined))
    throw new UsageError('Give either --netns or --interface.', 'see weft attach --help');
  const text = (flag: string, value: string | undefined): string => (value === undefined ? '' : nonEmpty(flag, value));
  return {
    network: nonEmpty('network', network),
    interface: text('--interface', flags.interface),
    netns: flags.netns === undefined ? '' : netnsPath(nonEmpty('--netns', flags.netns)),
    interfaceName: text('--ifname', flags.ifname),
    ip: text('--ip', flags.ip),
    ip6: text('--ip6', flags.ip6),
    mac: text('--mac', flags.mac),
    name: text('--name', flags.name),
    labels: labels('--label', flags.label ?? []),
  };
}

/** A process id, a name as ip-netns(8) has them, or a path. */
function netnsPath(text: string): string {
  if (/^\d+$/.test(text)) return `/proc/${text}/ns/net`;
  return text.includes('/') ? resolve(text) : `/run/netns/${text}`;
}

async function withAgent<T>(io: Io, flags: SocketFlag, run: (agent: Agent) => Promise<T>): Promise<T> {
  const { Agent } = await import('./agent-client.ts');
  const path = flags.socket === undefined ? SOCKET : resolve(nonEmpty('--socket', flags.socket));
  const agent = new Agent(path, io.signal());
  try {
    return await run(agent);
  } finally {
    agent.close();
  }
}
