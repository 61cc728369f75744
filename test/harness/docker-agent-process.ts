/**
 * The Docker side as a process of its own, on fakes, for tests that kill it: node docker-agent-process.ts DIR NETNS DOCKER_SOCKET
 * PLUGIN_SOCKET. While DIR/hold exists, attach and bindNetwork wait, and say so by making DIR/held.
 */
import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { makeLog } from '../../lib/log.ts';
import { startAgent } from './docker-host.ts';
import { FakeWorld } from './fake-mesh.ts';

const [dir = '', netns = '', dockerSocket = '', pluginSocket = ''] = process.argv.slice(2);
const hold = async (): Promise<void> => {
  if (existsSync(join(dir, 'hold'))) writeFileSync(join(dir, 'held'), '');
  while (existsSync(join(dir, 'hold'))) await delay(10);
};

const world = new FakeWorld();
const mesh = world.host('h1');
const net = world.createNetwork('net', '10.128.0.0/24');
mesh.beforeBind = hold;
const log = makeLog('agent', { level: 'debug', file: join(dir, 'agent.log') });
const agent = await startAgent({ dir, netns, dockerSocket, pluginSocket, mesh, log, activation: process.env });
agent.datapath.beforeAttach = hold;
// What a session's hello would tell: this host's blocks are its own.
for (const [key, block] of agent.journal.blocks)
  world.blocks.set(key, { networkId: net.id, cidr: block.cidr, hostId: mesh.hostId, revision: world.bump() });
process.once('SIGTERM', () => {
  void agent.close().then(() => process.exit(0));
});
writeFileSync(join(dir, 'ready'), String(process.pid));
