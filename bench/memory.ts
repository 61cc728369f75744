/** Resident memory of the daemons under a load of things held. */
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { ControlService, CreateNetworkRequest } from '../gen/weft/v1/control.ts';
import { callUnary } from '../lib/rpc.ts';
import { until, weftJson, weftOk } from '../test/harness/lab.ts';
import { controlClients, labStatus, pluginCall } from '../test/harness/lab-direct.ts';
import { dockerGet } from '../test/harness/prober.ts';
import { tenth } from './figures.ts';

const PARALLEL = 8;
/** Looked at for so long after the work, for the highest. */
const WATCHED_MS = 5_000;

/** Resident memory of a process, MiB. */
export async function rssOf(pid: number | null | undefined): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  return tenth(Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024);
}

async function highestRss(pid: number | null | undefined): Promise<number> {
  let highest = 0;
  for (let at = 0; at < WATCHED_MS; at += 250) {
    highest = Math.max(highest, await rssOf(pid));
    await pause(250);
  }
  return highest;
}

async function inParallel(count: number, work: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
}

/** Makes endpoints on the lab's first host as Docker would, without containers: links, ports and flows are real. Takes them back. */
export async function holdEndpoints(count: number): Promise<{ rssMiB: number; perEndpointMs: number }> {
  const [host] = (await labStatus()).hosts;
  if (host === undefined) throw new Error('the lab has no host');
  const name = 'bench-held';
  await weftOk('network', 'create', name, '--subnet', '10.73.0.0/20');
  await weftOk('wait');
  const network = await weftJson<{ id: string; subnets: string[] }>('network', 'inspect', name);
  const copy = await dockerGet<{ Id: string }>(host.dockerSocket, `/networks/${name}`);
  const PoolID = `weft/${network.id}/${network.subnets[0]}`;
  const held: { EndpointID: string; Address: string }[] = [];
  const began = performance.now();
  const call = <T>(method: string, body: object): Promise<T> => pluginCall<T>(host.pluginSocket, method, body);
  try {
    await inParallel(count, async () => {
      const { Address } = await call<{ Address: string }>('IpamDriver.RequestAddress', {
        PoolID,
        Address: '',
        Options: {},
      });
      const EndpointID = randomBytes(32).toString('hex');
      held.push({ EndpointID, Address });
      const Interface = { Address, AddressIPv6: '', MacAddress: '' };
      await call('NetworkDriver.CreateEndpoint', { NetworkID: copy.Id, EndpointID, Interface, Options: {} });
    });
    await until('every endpoint has its port', async () => (await withPort(name)) === count, 60_000);
    const perEndpointMs = tenth((performance.now() - began) / count);
    return { rssMiB: await highestRss(host.pids['agent']), perEndpointMs };
  } finally {
    await inParallel(held.length, async (i) => {
      const one = held[i]!;
      await call('NetworkDriver.DeleteEndpoint', { NetworkID: copy.Id, EndpointID: one.EndpointID });
      await call('IpamDriver.ReleaseAddress', { PoolID, Address: one.Address.split('/')[0] });
    });
    await until('no endpoint is left', async () => (await endpointsOf(name)).length === 0, 60_000);
    await weftOk('network', 'rm', name);
  }
}

const endpointsOf = (network: string): Promise<{ ofport: number | null }[]> =>
  weftJson('endpoint', 'ls', '--network', network);

const withPort = async (network: string): Promise<number> =>
  (await endpointsOf(network)).filter((e) => (e.ofport ?? 0) > 0).length;

/** Makes networks while no host is connected, which would make each of them in its Docker. They go with the lab. */
export async function fillCoordinator(count: number): Promise<{ rssMiB: number; perNetworkMs: number }> {
  await weftOk('lab', 'stop', 'h1');
  const [client] = await controlClients();
  if (client === undefined) throw new Error('the lab has no coordinator');
  const began = performance.now();
  try {
    await inParallel(count, async (i) => {
      const request = CreateNetworkRequest.fromPartial({ name: `bench-${i}` });
      await callUnary(client, ControlService.createNetwork, request, { timeoutMs: 60_000 });
    });
  } finally {
    client.close();
  }
  const perNetworkMs = tenth((performance.now() - began) / count);
  return { rssMiB: await highestRss((await labStatus()).coordinators[0]?.pid), perNetworkMs };
}
