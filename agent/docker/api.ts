/** Docker's API: the few calls that Weft makes, each with a deadline, and the event stream. */
import { setTimeout as delay } from 'node:timers/promises';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { DockerHttp } from './http.ts';

const DEADLINE_MS = 10_000;
/** Creating or removing a network calls the plugin back, which may wait for a coordinator. */
const NETWORK_DEADLINE_MS = 40_000;
const RECONNECT_MS = 500;

/** A network as Docker has it. */
export interface DockerNetwork {
  readonly id: string;
  readonly name: string;
  readonly driver: string;
  readonly ipamDriver: string;
  readonly subnet: string;
  readonly ipRange: string;
  readonly gateway: string;
  readonly auxAddresses: Readonly<Record<string, string>>;
  readonly internal: boolean;
  readonly attachable: boolean;
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
}

/** An endpoint as Docker has it. */
export interface DockerEndpoint {
  readonly id: string;
  readonly dockerNetworkId: string;
  /** Null for one that belongs to no container (left by a crash, or still being made). */
  readonly containerId: string | null;
  readonly containerName: string;
  readonly ip: string;
  readonly prefix: number;
  readonly mac: string;
}

export interface DockerContainer {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** created, running, paused, exited … */
  readonly state: string;
}

export interface DockerEvent {
  readonly type: 'network' | 'container';
  /** create, destroy, connect, disconnect; rename, die. */
  readonly action: string;
  /** Network or container id. */
  readonly id: string;
  readonly attributes: Readonly<Record<string, string>>;
}

export interface NetworkSpec {
  readonly name: string;
  readonly subnet: string;
  readonly ipRange: string;
  readonly gateway: string;
  readonly auxAddresses: Readonly<Record<string, string>>;
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly internal: boolean;
  readonly attachable: boolean;
}

export interface EventHandlers {
  readonly event: (event: DockerEvent) => void;
  /** The stream is open (again): what happened before may have been missed. */
  readonly connected: () => void;
}

export class DockerApi {
  readonly #http: DockerHttp;
  readonly #log: Log;

  constructor(options: { socketPath: string; log: Log }) {
    this.#http = new DockerHttp(options.socketPath);
    this.#log = options.log;
  }

  close(): void {
    this.#http.close();
  }

  /** Server version, e.g. 20.10.24, and newest API version, e.g. 1.41. */
  async version(): Promise<{ version: string; api: string }> {
    const v = (await this.#http.call({ method: 'GET', path: '/version' }, DEADLINE_MS)) as Record<string, string>;
    return { version: v['Version'] ?? '', api: v['ApiVersion'] ?? '' };
  }

  /** All networks, of every driver, without their endpoints. */
  async networks(): Promise<DockerNetwork[]> {
    const list = (await this.#http.call({ method: 'GET', path: '/networks' }, DEADLINE_MS)) as RawNetwork[];
    return list.map(networkOf);
  }

  /** One network with its endpoints; null when Docker does not have it. Does not wait for containers that are starting. */
  async network(id: string): Promise<{ network: DockerNetwork; endpoints: DockerEndpoint[] } | null> {
    const path = `/networks/${encodeURIComponent(id)}`;
    const info = (await orNull(this.#http.call({ method: 'GET', path }, DEADLINE_MS))) as RawNetwork | null;
    return info === null ? null : { network: networkOf(info), endpoints: endpointsOf(info) };
  }

  /** @returns Docker's id. @throws ALREADY_EXISTS when the name is taken. */
  async createNetwork(spec: NetworkSpec): Promise<string> {
    const config: Record<string, unknown> = { Subnet: spec.subnet, Gateway: spec.gateway };
    if (spec.ipRange !== '') config['IPRange'] = spec.ipRange;
    if (Object.keys(spec.auxAddresses).length > 0) config['AuxiliaryAddresses'] = spec.auxAddresses;
    const body = {
      Name: spec.name,
      CheckDuplicate: true, // 20.10 allows two networks of one name without it
      Driver: 'weft',
      Internal: spec.internal,
      Attachable: spec.attachable,
      EnableIPv6: false,
      Options: spec.options,
      Labels: spec.labels,
      IPAM: { Driver: 'weft', Config: [config] },
    };
    const call = this.#http.call({ method: 'POST', path: '/networks/create', body }, NETWORK_DEADLINE_MS);
    return ((await call) as { Id: string }).Id;
  }

  /** No error when it is gone already. @throws FAILED_PRECONDITION while it has endpoints. */
  async removeNetwork(id: string): Promise<void> {
    await orNull(this.#http.call({ method: 'DELETE', path: `/networks/${id}` }, NETWORK_DEADLINE_MS));
  }

  async connect(networkId: string, container: string, address: { ip: string; mac: string }): Promise<void> {
    const config: Record<string, unknown> = {};
    if (address.ip !== '') config['IPAMConfig'] = { IPv4Address: address.ip };
    if (address.mac !== '') config['MacAddress'] = address.mac;
    const body = { Container: container, EndpointConfig: config };
    const path = `/networks/${networkId}/connect`;
    const api = address.mac === '' ? {} : { api: '1.44' };
    await this.#http.call({ method: 'POST', path, body, ...api }, NETWORK_DEADLINE_MS);
  }

  async disconnect(networkId: string, container: string, force: boolean): Promise<void> {
    const body = { Container: container, Force: force };
    await this.#http.call({ method: 'POST', path: `/networks/${networkId}/disconnect`, body }, NETWORK_DEADLINE_MS);
  }

  /** Every container, running or not. Does not wait for containers that are starting. */
  async containers(ids: readonly string[] = []): Promise<DockerContainer[]> {
    const filters: Record<string, string> = ids.length === 0 ? {} : { filters: JSON.stringify({ id: ids }) };
    const query = { all: '1', ...filters };
    const list = (await this.#http.call({ method: 'GET', path: '/containers/json', query }, DEADLINE_MS)) as {
      Id: string;
      Names: string[];
      Labels: Record<string, string> | null;
      State: string;
    }[];
    return list.map((c) => ({
      id: c.Id,
      name: (c.Names[0] ?? '').replace(/^\//, ''),
      labels: c.Labels ?? {},
      state: c.State,
    }));
  }

  /**
   * What only inspect tells: the namespace, and the network aliases by endpoint id.
   * **Blocks while the container is starting**: never await it inside a plugin call.
   * @returns null when it is gone
   */
  async inspectContainer(
    id: string,
    deadlineMs: number,
  ): Promise<{ sandbox: string; aliases: ReadonlyMap<string, readonly string[]> } | null> {
    const call = this.#http.call({ method: 'GET', path: `/containers/${id}/json` }, deadlineMs);
    const info = (await orNull(call)) as {
      NetworkSettings: {
        SandboxKey: string;
        Networks: Record<string, { EndpointID: string; Aliases: string[] | null }> | null;
      };
    } | null;
    if (info === null) return null;
    const networks = Object.values(info.NetworkSettings.Networks ?? {});
    return {
      sandbox: info.NetworkSettings.SandboxKey,
      aliases: new Map(networks.map((n) => [n.EndpointID, n.Aliases ?? []])),
    };
  }

  /**
   * Network and container events, from now on, until `signal` aborts: the stream is opened again when dockerd restarts, from
   * where it ended.
   */
  async events(handlers: EventHandlers, signal: AbortSignal): Promise<void> {
    let since: string | null = null;
    const filters = JSON.stringify({
      type: ['network', 'container'],
      event: ['create', 'destroy', 'connect', 'disconnect', 'rename', 'die'],
    });
    while (!signal.aborted) {
      try {
        const query = since === null ? { filters } : { filters, since };
        for await (const line of this.#http.lines(
          { method: 'GET', path: '/events', query },
          signal,
          handlers.connected,
        )) {
          const parsed = eventOf(line);
          if (parsed === null) continue;
          since = parsed.since;
          handlers.event(parsed.event);
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#log.debug({ err: error }, 'docker events: stream lost');
      }
      if (signal.aborted) return;
      await delay(RECONNECT_MS, undefined, { signal }).catch(() => undefined);
    }
  }
}

async function orNull(call: Promise<unknown>): Promise<unknown> {
  try {
    return await call;
  } catch (error) {
    if (WeftError.from(error).code === 'NOT_FOUND') return null;
    throw error;
  }
}

interface RawNetwork {
  readonly Id: string;
  readonly Name: string;
  readonly Driver: string;
  readonly Internal: boolean;
  readonly Attachable: boolean;
  readonly IPAM: {
    readonly Driver: string;
    readonly Config:
      | readonly {
          readonly Subnet?: string;
          readonly IPRange?: string;
          readonly Gateway?: string;
          readonly AuxiliaryAddresses?: Record<string, string>;
        }[]
      | null;
  } | null;
  readonly Options: Record<string, string> | null;
  readonly Labels: Record<string, string> | null;
  /** Container id, or "ep-" and the endpoint's id where it belongs to none. */
  readonly Containers: Record<
    string,
    { readonly Name: string; readonly EndpointID: string; readonly MacAddress: string; readonly IPv4Address: string }
  > | null;
}

function networkOf(info: RawNetwork): DockerNetwork {
  const config = info.IPAM?.Config?.[0];
  return {
    id: info.Id,
    name: info.Name,
    driver: info.Driver,
    ipamDriver: info.IPAM?.Driver ?? '',
    subnet: config?.Subnet ?? '',
    ipRange: config?.IPRange ?? '',
    gateway: config?.Gateway?.split('/')[0] ?? '',
    auxAddresses: config?.AuxiliaryAddresses ?? {},
    internal: info.Internal,
    attachable: info.Attachable,
    options: info.Options ?? {},
    labels: info.Labels ?? {},
  };
}

function endpointsOf(info: RawNetwork): DockerEndpoint[] {
  return Object.entries(info.Containers ?? {}).map(([key, c]) => {
    const [ip, prefix] = c.IPv4Address.split('/');
    return {
      id: c.EndpointID,
      dockerNetworkId: info.Id,
      containerId: key.startsWith('ep-') ? null : key,
      containerName: c.Name,
      ip: ip ?? '',
      prefix: Number(prefix ?? 32),
      mac: c.MacAddress.toLowerCase(),
    };
  });
}

/** Pure: one line of /events. `since` has nanoseconds: more than a number holds exactly, so it is taken from the text. */
export function eventOf(line: string): { event: DockerEvent; since: string } | null {
  let e: {
    Type?: string;
    Action?: string;
    Actor?: { ID?: string; Attributes?: Record<string, string> };
  };
  try {
    e = JSON.parse(line) as typeof e;
  } catch {
    return null;
  }
  if (e.Type !== 'network' && e.Type !== 'container') return null;
  const nano = /"timeNano":(\d{10,})/.exec(line)?.[1];
  return {
    event: { type: e.Type, action: e.Action ?? '', id: e.Actor?.ID ?? '', attributes: e.Actor?.Attributes ?? {} },
    since: nano === undefined ? '0' : `${nano.slice(0, -9)}.${nano.slice(-9)}`,
  };
}
