/** Many networks in use on the same hosts: on each host containers that are in some of them each. */
import { ControlService, CreateNetworkRequest, DeleteNetworkRequest } from '../../gen/weft/v1/control.ts';
import { callUnary } from '../../lib/rpc.ts';
import { until, weftJson, weftOk } from '../../test/harness/lab.ts';
import { controlClients, labStatus } from '../../test/harness/lab-direct.ts';
import { dockerCall } from '../../test/harness/prober.ts';
import { type BenchHost, remove, stay } from '../docker.ts';

const TIMEOUT_MS = 60_000;
/** Docker itself becomes slow with hundreds in one container: each connection costs it more than the last. */
const NETWORKS_PER_CONTAINER = 10;
const nameOf = (n: number): string => `bench-many-${n}`;

/** @returns how to take them away again */
export async function useNetworks(count: number, hosts: readonly string[]): Promise<AsyncDisposable> {
  const names = Array.from({ length: count }, (_, i) => nameOf(i + 1));
  if (count === 0) return { [Symbol.asyncDispose]: async () => undefined };
  const clients = await controlClients();
  const [client] = clients;
  if (client === undefined) throw new Error('the lab has no coordinator');
  const undo = new AsyncDisposableStack();
  undo.defer(() => {
    for (const c of clients) c.close();
  });
  try {
    const inUse = (await labStatus()).hosts
      .filter((h) => hosts.includes(h.name))
      .map((h): BenchHost => ({ name: h.name, socket: h.dockerSocket }));
    for (const name of names) {
      await callUnary(client, ControlService.createNetwork, CreateNetworkRequest.fromPartial({ name }), {
        timeoutMs: TIMEOUT_MS,
      });
      undo.defer(async () => {
        await callUnary(client, ControlService.deleteNetwork, DeleteNetworkRequest.fromPartial({ network: name }), {
          timeoutMs: TIMEOUT_MS,
        });
      });
    }
    await weftOk('wait', '--timeout', '120');
    await Promise.all(
      inUse.map(async (host) => {
        for (let at = 0; at < names.length; at += NETWORKS_PER_CONTAINER) {
          const [first, ...others] = names.slice(at, at + NETWORKS_PER_CONTAINER) as [string, ...string[]];
          const id = await stay(host, first);
          undo.defer(async () => {
            await remove(host, [id]);
          });
          for (const name of others)
            await dockerCall(host.socket, 'POST', `/networks/${name}/connect`, { Container: id });
        }
      }),
    );
    await until('every endpoint has its port', portsOf(count * inUse.length), 120_000);
    return undo;
  } catch (error) {
    await undo.disposeAsync();
    throw error;
  }
}

const portsOf = (count: number) => async (): Promise<boolean> => {
  const all = await weftJson<{ network: string; ofport: number | null }[]>('endpoint', 'ls');
  return all.filter((e) => e.network.startsWith('bench-many-') && (e.ofport ?? 0) > 0).length === count;
};
