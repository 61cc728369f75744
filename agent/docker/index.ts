/** The agent's Docker side, put together: plugin server, network and IPAM driver, and the loops that keep Docker as the mesh has it. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Log } from '../../lib/log.ts';
import type { Container, Drift } from '../../lib/model.ts';
import type { AddressBook } from '../addresses.ts';
import { type Clock, systemClock } from '../clock.ts';
import type { Datapath, Journal, Mesh } from '../contract.ts';
import type { TakenPort } from '../gateway/ports.ts';
import { Publisher } from '../gateway/publish.ts';
import { DockerApi, type DockerEvent } from './api.ts';
import { Containers } from './containers.ts';
import { Copies } from './copies.ts';
import { NetworkDriver } from './driver.ts';
import { EndpointAudit } from './endpoint-audit.ts';
import { EndpointDriver } from './endpoints.ts';
import { Identity } from './identity.ts';
import { Ipam } from './ipam.ts';
import { JoinWaiter } from './join-wait.ts';
import type { OnDrift } from './network-steps.ts';
import { NetworksLoop } from './networks-loop.ts';
import { type Handler, type Handlers, PluginServer } from './plugin.ts';

const RECOVER_MS = 15_000;

export interface DockerConfig {
  /** dockerd's API socket. */
  readonly dockerSocket: string;
  /** Where the plugin listens unless systemd passed a socket. */
  readonly pluginSocket: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly pid: number;
  /** False: drift is reported, and left as it is. */
  readonly heal?: boolean;
  /** After each plugin call: method and milliseconds. */
  readonly onCall?: (method: string, ms: number) => void;
  /** A drift of Docker networks or endpoints, found and (mostly) healed. */
  readonly onDrift?: OnDrift;
  /** dockerd answers (again): it may be another one now. */
  readonly onConnected?: () => void;
}

export interface DockerSideOptions {
  readonly journal: Journal;
  readonly mesh: Mesh;
  readonly datapath: Datapath;
  readonly addresses: AddressBook;
  /** The host's side of the way out is as the journal has it, once it resolves; absent: nobody sets it up. */
  readonly ledOut?: () => Promise<void>;
  /** Ports of the host that lead to services. */
  readonly servicePorts?: () => readonly TakenPort[];
  readonly config: DockerConfig;
  readonly log: Log;
  readonly clock?: Clock;
}

export class DockerSide {
  readonly api: DockerApi;
  readonly #o: DockerSideOptions;
  readonly #plugin: PluginServer;
  readonly #networks: NetworksLoop;
  readonly #identity: Identity;
  readonly #audit: EndpointAudit;
  readonly #containers: Containers;
  readonly #abort = new AbortController();
  #events: Promise<void> | null = null;

  constructor(options: DockerSideOptions) {
    const { journal, mesh, datapath, addresses, config, log, clock = systemClock } = options;
    this.#o = options;
    this.api = new DockerApi({ socketPath: config.dockerSocket, log });
    const api = this.api;
    const copies = new Copies({ journal, mesh });
    const onDrift = config.onDrift ?? (() => undefined);
    const heal = config.heal ?? true;
    this.#networks = new NetworksLoop({ journal, mesh, api, copies, clock, heal, onDrift, log });
    this.#identity = new Identity({ journal, api, log });
    this.#containers = new Containers({ api, copies, hostName: () => mesh.hostName });
    const waiter = new JoinWaiter({ journal, mesh, addresses, clock, log });
    const ipam = new Ipam({ journal, mesh, addresses, copies, clock, log });
    const created = (): void => this.#networks.kick();
    const driver = new NetworkDriver({ journal, mesh, copies, clock, log, created });
    const publisher = new Publisher({
      journal,
      services: options.servicePorts ?? (() => []),
      settled: options.ledOut ?? (() => Promise.resolve()),
    });
    const endpoints = new EndpointDriver({ journal, mesh, datapath, addresses, copies, waiter, publisher, clock, log });
    this.#audit = new EndpointAudit({
      journal,
      api,
      addresses,
      copies,
      driver: endpoints,
      identity: this.#identity,
      datapath,
      clock,
      log,
      heal,
      onDrift,
    });
    this.#plugin = new PluginServer({
      path: config.pluginSocket,
      env: config.env,
      pid: config.pid,
      handlers: handlersOf(ipam, driver, endpoints),
      log,
      onCall: config.onCall,
    });
  }

  /** The plugin answers first: dockerd may be waiting for it before it answers anybody. */
  async start(): Promise<void> {
    const { config } = this.#o;
    await this.#plugin.start();
    this.#networks.start();
    this.#audit.start();
    this.#events = this.api.events(
      {
        event: (event) => this.#onEvent(event),
        connected: () => {
          this.#networks.kick();
          this.#identity.sweep();
          config.onConnected?.();
        },
      },
      this.#abort.signal,
    );
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#plugin.close();
    this.api.close(); // the loops may be waiting for dockerd, which waits for the plugin
    await Promise.all([this.#networks.close(), this.#audit.close()]);
    await this.#events;
  }

  /**
   * For a journal that was lost (`fresh`), after start and before the session: blocks as the last view has them, networks and
   * endpoints as Docker has them, so that the session's hello does not give up what running containers use. Bounded; never fails.
   */
  async recover(): Promise<void> {
    const work = async (): Promise<void> => {
      await this.#o.addresses.recover();
      await this.#networks.reconcile();
      await this.#audit.heal();
    };
    await Promise.race([work(), delay(RECOVER_MS, undefined, { ref: false })]).catch((error: unknown) => {
      this.#o.log.info({ err: error }, 'nothing recovered from Docker');
    });
  }

  /** Docker has the catalogue's networks when it resolves: belongs to "applied". @throws the step that failed */
  networksApplied(): Promise<void> {
    return this.#networks.applied();
  }

  /** Null, or the step that fails and why. */
  get failure(): string | null {
    return this.#networks.failure;
  }

  /** What of Docker's networks and endpoints is not as it should be, read anew; nothing is changed. */
  async networksAudit(): Promise<Drift[]> {
    return (await Promise.all([this.#networks.drift(), this.#audit.drift()])).flat();
  }

  findContainer(container: string): Promise<Container[]> {
    return this.#containers.find(container);
  }

  connect(
    networkId: string,
    container: string,
    address: { ip: string; ip6: string; mac: string },
  ): Promise<{ ip: string; ip6: string }> {
    return this.#containers.connect(networkId, container, address);
  }

  disconnect(networkId: string, container: string, force: boolean): Promise<void> {
    return this.#containers.disconnect(networkId, container, force);
  }

  /** Of Docker's networks: those of other drivers are nobody's business here. */
  #onEvent({ type, action, id, attributes }: DockerEvent): void {
    const ours = attributes['type'] === 'weft';
    if (type === 'network' && (action === 'create' || action === 'destroy')) this.#networks.kick();
    else if (type === 'network' && action === 'connect' && ours) this.#identity.look(id);
    else if (type === 'network' && action === 'disconnect' && ours) this.#o.datapath.kick();
    else if (type === 'container' && action === 'rename')
      this.#identity
        .renamed(id, (attributes['name'] ?? '').replace(/^\//, ''))
        .catch((error: unknown) => this.#o.log.warn({ container: id, err: error }, 'new name not kept'));
    else if (type === 'container' && action === 'die') this.#o.datapath.kick();
  }
}

function handlersOf(ipam: Ipam, driver: NetworkDriver, endpoints: EndpointDriver): Handlers {
  const plain = (answer: object): Handler => ({ needs: [], answer: () => answer });
  const needing = (needs: readonly string[], answer: Handler['answer']): Handler => ({ needs, answer });
  const endpoint = ['NetworkID', 'EndpointID'];
  return {
    'Plugin.Activate': plain({ Implements: ['NetworkDriver', 'IpamDriver'] }),
    'IpamDriver.GetCapabilities': plain(ipam.capabilities()),
    'IpamDriver.GetDefaultAddressSpaces': plain(ipam.addressSpaces()),
    'IpamDriver.RequestPool': needing(['AddressSpace', 'Pool', 'SubPool'], (r) => ipam.requestPool(r)),
    'IpamDriver.ReleasePool': needing(['PoolID'], (r) => ipam.releasePool(r)),
    'IpamDriver.RequestAddress': needing(['PoolID', 'Address'], (r) => ipam.requestAddress(r)),
    'IpamDriver.ReleaseAddress': needing(['PoolID', 'Address'], (r) => ipam.releaseAddress(r)),
    'NetworkDriver.GetCapabilities': plain(driver.capabilities()),
    'NetworkDriver.CreateNetwork': needing(['NetworkID'], (r) => driver.createNetwork(r)),
    'NetworkDriver.DeleteNetwork': needing(['NetworkID'], (r) => driver.deleteNetwork(r)),
    'NetworkDriver.CreateEndpoint': needing(endpoint, (r) => endpoints.createEndpoint(r)),
    'NetworkDriver.EndpointOperInfo': needing(endpoint, (r) => endpoints.operInfo(r)),
    'NetworkDriver.DeleteEndpoint': needing(endpoint, (r) => endpoints.deleteEndpoint(r)),
    'NetworkDriver.Join': needing([...endpoint, 'SandboxKey'], (r) => endpoints.join(r)),
    'NetworkDriver.Leave': needing(endpoint, (r) => endpoints.leave(r)),
    // Swarm's and service discovery's calls: nothing to do on a network of local scope.
    'NetworkDriver.AllocateNetwork': plain({ Options: {} }),
    'NetworkDriver.FreeNetwork': plain({}),
    'NetworkDriver.DiscoverNew': plain({}),
    'NetworkDriver.DiscoverDelete': plain({}),
    'NetworkDriver.ProgramExternalConnectivity': needing(endpoint, (r) => endpoints.leadOut(r)),
    'NetworkDriver.RevokeExternalConnectivity': needing(endpoint, (r) => endpoints.leadOutNoMore(r)),
    // 26: the network has a gateway address already.
    'NetworkDriver.GwAllocCheck': plain({ SkipIPv4: false, SkipIPv6: false }),
  };
}
