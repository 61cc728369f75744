/** What many services cost where they are only held: time until they are everywhere, flows, map entries, memory, CPU. */
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { until } from '../../test/harness/lab.ts';
import { labStatus } from '../../test/harness/lab-direct.ts';
import { type BenchHost, remove } from '../docker.ts';
import { hundredth, type Summary, summarize, tenth } from '../figures.ts';
import { type HeldMemory, heldOn } from '../growth/counts.ts';
import { rssOf } from '../memory.ts';
import type { Api, Wanted } from './api.ts';

export interface HostCost {
  readonly host: string;
  readonly before: HeldMemory;
  readonly after: HeldMemory;
  /** Of the agent, from the first creation until everything was applied: seconds of CPU for each service. */
  readonly agentCpuPerService: number;
  /** Of the agent, afterwards, nothing happening: share of one CPU. */
  readonly agentIdleCpu: number;
}

export interface Held {
  readonly services: number;
  /** Of each creation, ms. */
  readonly create: Summary;
  /** From the answer to the last creation until every host had applied it, ms. */
  readonly lastAppliedMs: number;
  readonly hosts: readonly HostCost[];
  readonly change: Change;
}

export interface Change {
  /** The container that goes, and its host. */
  readonly host: string;
  /** From `docker rm -f` until the coordinator knows, and until every host has applied it, ms. */
  readonly knownMs: number;
  readonly appliedMs: number;
  /** Entries of maps that the first host had to change for it: those that went. */
  readonly entriesLess: number;
}

export interface Load {
  readonly api: Api;
  readonly hosts: readonly string[];
  readonly network: string;
  readonly count: number;
  /** Without a name. */
  readonly wanted: Omit<Wanted, 'name'>;
  /** Of the measurement of idle CPU. */
  readonly idleSeconds: number;
  /** One of the backends, that is removed at the end. */
  readonly victim: { readonly host: BenchHost; readonly id: string };
}

/** Makes the services, one after the other; removes one backend at the end. They go with their network. */
export async function hold(load: Load): Promise<Held> {
  const { api, hosts, count } = load;
  const before = await memoryOf(hosts);
  const cpu = await agentCpu(hosts);
  const create: number[] = [];
  let last: Awaited<ReturnType<Api['create']>> | undefined;
  for (let i = 0; i < count; i++) {
    const began = performance.now();
    last = await api.create({ ...load.wanted, name: `many-${i}` });
    create.push(performance.now() - began);
  }
  const answered = performance.now();
  await api.applied(last?.revision);
  const lastAppliedMs = tenth(performance.now() - answered);
  const worked = await agentCpu(hosts);
  const after = await memoryOf(hosts);
  const idle = await idleCpu(hosts, load.idleSeconds);
  return {
    services: count,
    create: summarize(create),
    lastAppliedMs,
    hosts: hosts.map((host, i) => ({
      host,
      before: before[i]!,
      after: after[i]!,
      agentCpuPerService: thousandth((worked[i]! - cpu[i]!) / count),
      agentIdleCpu: hundredth(idle[i]!),
    })),
    change: await change(load, after[0]!.mapEntries),
  };
}

async function change({ api, hosts, network, victim }: Load, entries: number): Promise<Change> {
  const began = performance.now();
  const removed = remove(victim.host, [victim.id]);
  await until('the coordinator knows', async () => !(await api.containers(network)).includes(victim.id));
  const knownMs = tenth(performance.now() - began);
  await api.applied();
  const appliedMs = tenth(performance.now() - began);
  await removed;
  const [now] = await heldOn(...hosts.slice(0, 1));
  return { host: victim.host.name, knownMs, appliedMs, entriesLess: entries - (now?.mapEntries ?? Number.NaN) };
}

async function memoryOf(hosts: readonly string[]): Promise<HeldMemory[]> {
  const held = await heldOn(...hosts);
  const status = await labStatus();
  return Promise.all(
    hosts.map(async (name, i) => {
      const pids = status.hosts.find((h) => h.name === name)?.pids;
      return { ...held[i]!, vswitchdMiB: await rssOf(pids?.['ovsVswitchd']), agentMiB: await rssOf(pids?.['agent']) };
    }),
  );
}

/** Share of one CPU that each agent takes. */
async function idleCpu(hosts: readonly string[], seconds: number): Promise<number[]> {
  const [before, began] = [await agentCpu(hosts), performance.now()];
  await pause(1000 * seconds);
  const [after, took] = [await agentCpu(hosts), (performance.now() - began) / 1000];
  return after.map((cpu, i) => (cpu - before[i]!) / took);
}

/** Seconds of CPU of each host's agent since its start. */
async function agentCpu(hosts: readonly string[]): Promise<number[]> {
  const status = await labStatus();
  return Promise.all(
    hosts.map(async (name) => {
      const pid = status.hosts.find((h) => h.name === name)?.pids['agent'];
      // proc(5): after the name in brackets, utime and stime are fields 12 and 13, in hundredths of a second.
      const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).replace(/^.*\) /s, '').split(' ');
      return (Number(fields[11]) + Number(fields[12])) / 100;
    }),
  );
}

const thousandth = (value: number): number => Math.round(1000 * value) / 1000;
