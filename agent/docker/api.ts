/** Docker's API: the few calls that Weft makes, each with a deadline, and the event stream. */
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { familyOfText } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import {
  type ContainerSandbox,
  containerOf,
  type DockerContainer,
  type DockerEndpoint,
  type DockerEvent,
  type DockerNetwork,
  endpointsOf,
  eventOf,
  listOf,
  networkOf,
  sandboxOf,
  versionOf,
} from './answers.ts';
import { DockerClient } from './client.ts';
import { NO_IPV4 } from './pools.ts';
import { KEY } from './wire.ts';

export type { DockerContainer, DockerEndpoint, DockerEvent, DockerNetwork } from './answers.ts';

const DEADLINE_MS = 10_000;
/** Creating or removing a network calls the plugin back, which may wait for a coordinator. */
const NETWORK_DEADLINE_MS = 40_000;
const RECONNECT_MS = 500;

export interface NetworkSpec {
  readonly name: string;
  /** IPv4, then IPv6; an empty subnet: the network has none of that family. */
  readonly pools: readonly { readonly subnet: string; readonly ipRange: string; readonly gateway: string }[];
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
  readonly #client: DockerClient;
  readonly #log: Log;

  constructor(options: { socketPath: string; log: Log }) {
    this.#client = new DockerClient(options.socketPath);
    this.#log = options.log;
  }

  close(): void {
    this.#client.close();
  }

  /** Server version, e.g. 20.10.24, and newest API version, e.g. 1.41. */
  async version(): Promise<{ version: string; api: string }> {
    // dockerode's types know no options of `version`.
    return versionOf(await this.#client.get('/version', DEADLINE_MS));
  }

  /** All networks, of every driver, without their endpoints. */
  async networks(): Promise<DockerNetwork[]> {
    const call = this.#client.call((docker, abortSignal) => docker.listNetworks({ abortSignal }), DEADLINE_MS);
    return listOf(await call, networkOf);
  }

  /** One network with its endpoints; null when Docker does not have it. Does not wait for containers that are starting. */
  async network(id: string): Promise<{ network: DockerNetwork; endpoints: DockerEndpoint[] } | null> {
    // `Network.inspect` drops abortSignal.
    const info = await orNull(this.#client.get(`/networks/${encodeURIComponent(id)}`, DEADLINE_MS));
    return info === null ? null : { network: networkOf(info), endpoints: endpointsOf(info) };
  }

  /** @returns Docker's id. @throws ALREADY_EXISTS when the name is taken. */
  async createNetwork(spec: NetworkSpec): Promise<string> {
    const body = {
      Name: spec.name,
      CheckDuplicate: true, // 20.10 allows two networks of one name without it
      Driver: 'weft',
      Internal: spec.internal,
      Attachable: spec.attachable,
      EnableIPv6: spec.pools.some((pool) => pool.subnet.includes(':')),
      Options: spec.options,
      Labels: spec.labels,
      IPAM: { Driver: 'weft', Config: ipamConfig(spec) },
    };
    const made = await this.#client.call((docker, abortSignal) => {
      // Without _query, docker-modem repeats the body in the URL.
      const options = { Name: spec.name, _query: {}, _body: body, abortSignal };
      return docker.createNetwork(options);
    }, NETWORK_DEADLINE_MS);
    return made.id;
  }

  /** No error when it is gone already. @throws FAILED_PRECONDITION while it has endpoints. */
  async removeNetwork(id: string): Promise<void> {
    const call = this.#client.call(
      (docker, abortSignal) => docker.getNetwork(id).remove({ abortSignal }),
      NETWORK_DEADLINE_MS,
    );
    await orNull(call);
  }

  /** The MAC address goes as an option of our driver: connect's own field came with Docker 25, and is ignored (moby/moby#48192). */
  async connect(
    networkId: string,
    container: string,
    address: { ip: string; ip6: string; mac: string },
  ): Promise<void> {
    const given = {
      ...(address.ip === '' ? {} : { IPv4Address: address.ip }),
      ...(address.ip6 === '' ? {} : { IPv6Address: address.ip6 }),
    };
    const config = {
      ...(Object.keys(given).length === 0 ? {} : { IPAMConfig: given }),
      ...(address.mac === '' ? {} : { DriverOpts: { [KEY.mac]: address.mac } }),
    };
    await this.#client.call((docker, abortSignal) => {
      const options = { Container: container, EndpointConfig: config, abortSignal };
      return docker.getNetwork(networkId).connect(options);
    }, NETWORK_DEADLINE_MS);
  }

  async disconnect(networkId: string, container: string, force: boolean): Promise<void> {
    const body = { Container: container, Force: force };
    await this.#client.call(
      (docker, abortSignal) => docker.getNetwork(networkId).disconnect({ ...body, abortSignal }),
      NETWORK_DEADLINE_MS,
    );
  }

  /** Every container, running or not. Does not wait for containers that are starting. */
  async containers(ids: readonly string[] = []): Promise<DockerContainer[]> {
    const query = { all: true, ...(ids.length === 0 ? {} : { filters: { id: [...ids] } }) };
    const list = await this.#client.call(
      (docker, abortSignal) => docker.listContainers({ ...query, abortSignal }),
      DEADLINE_MS,
    );
    return listOf(list, containerOf);
  }

  /**
   * What only inspect tells: the namespace, and the network aliases by endpoint id.
   * **Blocks while the container is starting**: never await it inside a plugin call.
   * @returns null when it is gone
   */
  async inspectContainer(id: string, deadlineMs: number): Promise<ContainerSandbox | null> {
    const call = this.#client.call(
      (docker, abortSignal) => docker.getContainer(id).inspect({ abortSignal }),
      deadlineMs,
    );
    const info = await orNull(call);
    return info === null ? null : sandboxOf(info);
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
        const stream = await this.#client.events(since === null ? { filters } : { filters, since }, signal);
        try {
          handlers.connected();
          for await (const line of createInterface({ input: stream })) {
            const parsed = eventOf(line);
            if (parsed === null) continue;
            since = parsed.since;
            handlers.event(parsed.event);
          }
        } finally {
          stream.destroy();
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

/** Docker sorts the pools into families by their text; without an IPv4 one it would ask for any. */
function ipamConfig(spec: NetworkSpec): object[] {
  return spec.pools.flatMap(({ subnet, ipRange, gateway }, i): object[] => {
    if (subnet === '') return i === 0 ? [{ Subnet: NO_IPV4.pool }] : [];
    const aux = Object.entries(spec.auxAddresses).filter(([, ip]) => familyOfText(ip) === familyOfText(subnet));
    const config = {
      Subnet: subnet,
      ...(gateway === '' ? {} : { Gateway: gateway }),
      ...(ipRange === '' ? {} : { IPRange: ipRange }),
      ...(aux.length === 0 ? {} : { AuxiliaryAddresses: Object.fromEntries(aux) }),
    };
    return [config];
  });
}

async function orNull<T>(call: Promise<T>): Promise<T | null> {
  try {
    return await call;
  } catch (error) {
    if (WeftError.from(error).code === 'NOT_FOUND') return null;
    throw error;
  }
}
