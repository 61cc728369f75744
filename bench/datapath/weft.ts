/** Weft's own paths: containers by `docker run` on hosts of the lab, on networks with default options. */
import { readFile, writeFile } from 'node:fs/promises';
import { parseDocument } from 'yaml';
import { onOk, until, weftJson, weftOk } from '../../test/harness/lab.ts';
import { labStatus } from '../../test/harness/lab-direct.ts';
import { type BenchHost, stay, whereIs } from '../docker.ts';
import type { DataPath } from './plain.ts';
import { type PathName, routed, type WeftPath } from './shape.ts';

export interface HostFacts {
  readonly name: string;
  readonly state: string;
  readonly datapath: string | null;
  readonly backend: string | null;
  readonly express: boolean;
}

/** What the mesh says of its hosts. */
export const hostFacts = async (): Promise<HostFacts[]> =>
  (await weftJson<Partial<HostFacts>[]>('host', 'ls')).map((h) => ({
    name: h.name ?? '',
    state: h.state ?? '',
    datapath: h.datapath ?? null,
    backend: h.backend ?? null,
    express: h.express ?? false,
  }));

/** Which of Weft's paths a host's containers take. */
export function pathOf({ datapath, express }: Pick<HostFacts, 'datapath' | 'express'>): WeftPath {
  if (datapath === 'system') return 'weft-system';
  return express ? 'weft-express' : 'weft-netdev';
}

/** Starts the agents of some hosts again with or without the express path. */
export async function setExpress(names: readonly string[], on: boolean): Promise<void> {
  const { hosts } = await labStatus();
  for (const host of hosts.filter((h) => names.includes(h.name))) {
    const file = `${host.stateDir}/agent.yaml`;
    const config = parseDocument(await readFile(file, 'utf8'));
    config.set('express', on);
    await writeFile(file, config.toString());
    await weftOk('lab', 'stop', host.name, 'agent');
    await weftOk('lab', 'start', host.name, 'agent');
  }
  await until(`the hosts are back, express path ${on ? 'on' : 'off'}`, async () =>
    (await hostFacts()).filter((h) => names.includes(h.name)).every((h) => h.state === 'connected' && h.express === on),
  );
  await weftOk('wait');
}

/** A network of its own with default options, a container on each of two hosts. */
export async function weftPath(path: PathName, hosts: readonly [string, string]): Promise<DataPath> {
  const network = `bench-${path}`;
  await weftOk('network', 'create', network);
  await weftOk('wait');
  return pairOn(network, path, hosts);
}

/** The server in another network, to which a router leads. @param path whose network, on the same hosts, is there */
export async function routedPath(path: WeftPath, hosts: readonly [string, string]): Promise<DataPath> {
  const [near, far] = [`bench-${path}`, `bench-${routed(path)}`];
  await weftOk('network', 'create', far);
  await weftOk('router', 'create', `bench-${path}`, '--network', near, '--network', far);
  await weftOk('wait');
  return pairOn(near, routed(path), hosts, far);
}

/** A container on each of two hosts, on a network that is there; the server on another one, if that is given. */
export async function pairOn(
  network: string,
  path: PathName,
  [from, to]: readonly [string, string],
  other = network,
): Promise<DataPath> {
  const { hosts } = await labStatus();
  const on = async (name: string, network: string): ReturnType<typeof whereIs> => {
    const socket = hosts.find((h) => h.name === name)?.dockerSocket;
    if (socket === undefined) throw new Error(`the lab has no host ${name}`);
    const host: BenchHost = { name, socket };
    return whereIs(host, await stay(host, network), network);
  };
  const [client, server] = [await on(from, network), await on(to, other)];
  await weftOk('wait');
  const ends = { client: `/proc/${client.pid}/ns/net`, server: `/proc/${server.pid}/ns/net`, address: server.ip };
  return { path, ends, ovsBytes: () => ovsBytes(from) };
}

/** Bytes that br-weft has received on all its ports, by their own counters. */
export async function ovsBytes(host: string): Promise<number> {
  const text = await onOk(host, 'ovs-ofctl', '-O', 'OpenFlow14', 'dump-ports', 'br-weft');
  return [...text.matchAll(/rx pkts=\d+, bytes=(\d+)/g)].reduce((sum, [, bytes]) => sum + Number(bytes), 0);
}
