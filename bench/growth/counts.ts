/** What a host holds for its networks: flows, entries of maps, and the memory of ovs-vswitchd. */
import { setTimeout as pause } from 'node:timers/promises';
import { AgentClient, AgentService } from '../../gen/weft/v1/agent.ts';
import { callUnary, channelOptions, insecureChannelCredentials } from '../../lib/rpc.ts';
import { onOk, until, weftOk } from '../../test/harness/lab.ts';
import { type LabStatus, labStatus } from '../../test/harness/lab-direct.ts';
import { rssOf } from '../memory.ts';

export interface Held {
  readonly flows: number;
  /** Of the kernel side, all maps together; 0 on a host without it. */
  readonly mapEntries: number;
}

export interface HeldMemory extends Held {
  readonly vswitchdMiB: number;
  readonly agentMiB: number;
}

/** Containers' names and groups are heard of a little later: nothing changes any more when nothing has changed for so long. */
const QUIET_MS = 2_000;

/** What is held when everything has been applied and nothing changes any more. */
export async function heldOn(...names: readonly string[]): Promise<Held[]> {
  await weftOk('wait', '--timeout', '120');
  const { hosts } = await labStatus();
  const look = (): Promise<Held[]> => Promise.all(names.map((name) => held(hostOf(hosts, name))));
  let before = await look();
  return until('nothing changes any more', async () => {
    await pause(QUIET_MS);
    const now = await look();
    const same = JSON.stringify(now) === JSON.stringify(before);
    before = now;
    return same && now;
  });
}

export async function memoryOn(name: string): Promise<HeldMemory> {
  const [one] = await heldOn(name);
  const { pids } = hostOf((await labStatus()).hosts, name);
  return {
    ...(one ?? { flows: 0, mapEntries: 0 }),
    vswitchdMiB: await rssOf(pids['ovsVswitchd']),
    agentMiB: await rssOf(pids['agent']),
  };
}

function hostOf(hosts: LabStatus['hosts'], name: string): LabStatus['hosts'][number] {
  const host = hosts.find((h) => h.name === name);
  if (host === undefined) throw new Error(`the lab has no host ${name}`);
  return host;
}

async function held({ name, agentSocket }: LabStatus['hosts'][number]): Promise<Held> {
  const text = await onOk(name, 'ovs-ofctl', '-O', 'OpenFlow14', 'dump-aggregate', 'br-weft');
  const options = { ...channelOptions({ serverName: null }), 'grpc.max_receive_message_length': -1 };
  const client = new AgentClient(`unix:${agentSocket}`, insecureChannelCredentials(), options);
  try {
    const maps = (await callUnary(client, AgentService.dump, { what: 'maps' })).text;
    return {
      flows: Number(/flow_count=(\d+)/.exec(text)?.[1]),
      mapEntries: maps.split('\n').filter((line) => line !== '').length,
    };
  } finally {
    client.close();
  }
}
