/** Many networks in use on the same hosts: an endpoint of each on each, made as Docker makes them, but without containers. */
import { randomBytes } from 'node:crypto';
import { until, weftJson, weftOk } from '../../test/harness/lab.ts';
import { labStatus, pluginCall } from '../../test/harness/lab-direct.ts';
import { dockerGet } from '../../test/harness/prober.ts';

const PARALLEL = 4;

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>): Promise<void> {
  const rest = [...items];
  const worker = async (): Promise<void> => {
    for (let item = rest.shift(); item !== undefined; item = rest.shift()) await work(item);
  };
  await Promise.all(Array.from({ length: PARALLEL }, worker));
}

interface Use {
  readonly pluginSocket: string;
  readonly NetworkID: string;
  readonly EndpointID: string;
  readonly PoolID: string;
  readonly Address: string;
}

const nameOf = (n: number): string => `bench-many-${n}`;

/** @returns how to take them away again */
export async function useNetworks(count: number, hosts: readonly string[]): Promise<AsyncDisposable> {
  const names = Array.from({ length: count }, (_, i) => nameOf(i + 1));
  const uses: Use[] = [];
  const undo = async (): Promise<void> => {
    await inParallel(uses, async ({ pluginSocket, NetworkID, EndpointID, PoolID, Address }) => {
      await pluginCall(pluginSocket, 'NetworkDriver.DeleteEndpoint', { NetworkID, EndpointID });
      await pluginCall(pluginSocket, 'IpamDriver.ReleaseAddress', { PoolID, Address: Address.split('/')[0] });
    });
    await inParallel(names, async (name) => {
      await until(`${name} is removed`, async () => {
        await weftOk('network', 'rm', name);
        return true;
      });
    });
  };
  try {
    await inParallel(names, async (name) => {
      await weftOk('network', 'create', name);
    });
    await weftOk('wait', '--timeout', '120');
    const inUse = (await labStatus()).hosts.filter((h) => hosts.includes(h.name));
    await inParallel(names, async (name) => {
      const { id, subnets } = await weftJson<{ id: string; subnets: string[] }>('network', 'inspect', name);
      for (const host of inUse) uses.push(await use(host, name, `weft/${id}/${subnets[0]}`));
    });
    await until('every endpoint has its port', portsOf(count * inUse.length), 120_000);
  } catch (error) {
    await undo();
    throw error;
  }
  return { [Symbol.asyncDispose]: undo };
}

async function use(
  { dockerSocket, pluginSocket }: { readonly dockerSocket: string; readonly pluginSocket: string },
  network: string,
  PoolID: string,
): Promise<Use> {
  const { Id: NetworkID } = await until(`Docker has ${network}`, () =>
    dockerGet<{ Id: string }>(dockerSocket, `/networks/${network}`),
  );
  const asked = { PoolID, Address: '', Options: {} };
  const { Address } = await pluginCall<{ Address: string }>(pluginSocket, 'IpamDriver.RequestAddress', asked);
  const EndpointID = randomBytes(32).toString('hex');
  const Interface = { Address, AddressIPv6: '', MacAddress: '' };
  await pluginCall(pluginSocket, 'NetworkDriver.CreateEndpoint', { NetworkID, EndpointID, Interface, Options: {} });
  return { pluginSocket, NetworkID, EndpointID, PoolID, Address };
}

const portsOf = (count: number) => async (): Promise<boolean> => {
  const all = await weftJson<{ network: string; ofport: number | null }[]>('endpoint', 'ls');
  return all.filter((e) => e.network.startsWith('bench-many-') && (e.ofport ?? 0) > 0).length === count;
};
