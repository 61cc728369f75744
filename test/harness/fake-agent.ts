/** An agent for tests of coordinators: real gRPC and mutual TLS, no Docker, no OVS. It merges what it is told and acknowledges. */
import { type Client, type ClientDuplexStream, status } from '@grpc/grpc-js';
import {
  type AgentMessage,
  type Answer,
  type CoordinatorMessage,
  type Hello,
  type NetworkUpdate,
  type Peer,
  type Query,
  SessionClient,
  SessionService,
  type Welcome,
} from '../../gen/weft/v1/session.ts';
import { CODES, WeftError } from '../../lib/errors.ts';
import type {
  Address,
  Block,
  Endpoint,
  EndpointSettings,
  ExternalPeer,
  Host,
  Memberships,
  Network,
  Policy,
  Reservation,
  Revision,
  Service,
} from '../../lib/model.ts';
import { callUnary, channelCredentials, channelOptions, type Method } from '../../lib/rpc.ts';
import type { TlsMaterial } from '../../lib/tls.ts';

export interface FakeNetwork {
  at: bigint;
  blocks: Map<string, Block>;
  endpoints: Map<string, Endpoint>;
  peers: Map<string, Peer>;
  addresses: Map<string, Address>;
  externals: Map<string, ExternalPeer>;
  memberships: Map<string, Memberships>;
  settings: Map<string, EndpointSettings>;
  reservations: Map<string, Reservation>;
  services: Map<string, Service>;
  policies: Map<string, Policy>;
}

const emptyNetwork = (): FakeNetwork => ({
  at: 0n,
  blocks: new Map(),
  endpoints: new Map(),
  peers: new Map(),
  addresses: new Map(),
  externals: new Map(),
  memberships: new Map(),
  settings: new Map(),
  reservations: new Map(),
  services: new Map(),
  policies: new Map(),
});

/** What an agent answers to a query: a body, or an error. Undefined = nothing at all. */
export type QueryHandler = (
  query: NonNullable<Query['body']>,
) => Partial<Answer> | undefined | Promise<Partial<Answer> | undefined>;

export interface FakeAgentOptions {
  readonly address: string;
  readonly tls: TlsMaterial;
  readonly host: Host;
  readonly hello?: Partial<Hello>;
  readonly onQuery?: QueryHandler;
  /** Acknowledge by itself; true. */
  readonly ack?: boolean;
  /** Take messages from the start; true. Else after resume(). */
  readonly reading?: boolean;
}

export class FakeAgent {
  readonly messages: CoordinatorMessage[] = [];
  readonly networks = new Map<string, Network>();
  readonly views = new Map<string, FakeNetwork>();
  welcome: Welcome | null = null;
  revision: Revision = { epoch: 0n, number: 0n };
  synced = false;
  ack: boolean;
  /** Why the session ended; null while it lives. */
  ended: WeftError | null = null;
  readonly #options: FakeAgentOptions;
  readonly #client: SessionClient;
  readonly #stream: ClientDuplexStream<AgentMessage, CoordinatorMessage>;
  readonly #watchers = new Set<() => void>();
  #catalogueAt = 0n;

  constructor(options: FakeAgentOptions) {
    this.#options = options;
    this.ack = options.ack ?? true;
    const channel = channelOptions({ session: true });
    this.#client = new SessionClient(options.address, channelCredentials(options.tls), channel);
    this.#stream = this.#client.connect();
    this.#stream.on('error', (error: unknown) => this.#end(WeftError.from(error)));
    this.#stream.on('end', () => this.#end(new WeftError('UNAVAILABLE', 'the coordinator ended the session')));
    this.#stream.on('data', (message: CoordinatorMessage) => this.#receive(message));
    if (options.reading === false) this.#stream.pause();
    const hello: Hello = {
      host: options.host,
      protocol: 1,
      applied: { epoch: 0n, number: 0n },
      interest: [],
      endpoints: [],
      blocks: [],
      addresses: [],
      ...options.hello,
    };
    this.send({ $case: 'hello', value: hello });
  }

  /** Connects and waits until the complete view has arrived. */
  static async connect(options: FakeAgentOptions): Promise<FakeAgent> {
    const agent = new FakeAgent(options);
    await agent.until('in sync', () => agent.synced);
    return agent;
  }

  get client(): Client {
    return this.#client;
  }

  get host(): Host {
    return this.#options.host;
  }

  /** Takes messages again. */
  resume(): void {
    this.#stream.resume();
  }

  send(body: NonNullable<AgentMessage['body']>): void {
    this.#stream.write({ body });
  }

  acknowledge(revision: Revision = this.revision, failure = ''): void {
    const applied = this.messages.filter(({ body }) => {
      const counts = body?.$case === 'catalogue' || body?.$case === 'network' || body?.$case === 'sync';
      return counts && (body.value.revision?.number ?? 0n) <= revision.number;
    });
    this.send({ $case: 'ack', value: { applied: revision, failure, messages: BigInt(applied.length) } });
  }

  interest(networkId: string, interested = true): void {
    if (!interested) this.views.delete(networkId);
    this.send({ $case: 'interest', value: { networkId, interested } });
  }

  call<Req extends { sessionId: string }, Res>(
    method: Method<Req, Res>,
    request: Omit<Req, 'sessionId'>,
    timeoutMs = 15_000,
  ): Promise<Res> {
    const sessionId = this.welcome?.sessionId ?? '';
    return callUnary(this.#client, method, { ...request, sessionId } as Req, { timeoutMs });
  }

  async block(networkId: string, containing = ''): Promise<Block> {
    const { blocks } = await this.call(SessionService.requestBlock, { networkId, containing, ipv6: false });
    if (blocks[0] === undefined) throw new Error('no block');
    return blocks[0];
  }

  /** @throws the first refusal */
  async register(upserts: Endpoint[], removed: string[] = []): Promise<Revision> {
    const { revision, refused } = await this.call(SessionService.registerEndpoints, { upserts, removed });
    const [first] = refused;
    if (first !== undefined) throw WeftError.from({ code: first.code, details: first.message });
    if (revision === undefined) throw new Error('no revision');
    return revision;
  }

  /** Waits for a condition, looked at after each message. @throws when the session ends, or after `ms` */
  until(what: string, condition: () => boolean, ms = 10_000): Promise<void> {
    return new Promise((resolve, reject) => {
      const look = (): void => {
        const done = condition();
        if (!done && this.ended === null) return;
        clearTimeout(timer);
        this.#watchers.delete(look);
        if (done) resolve();
        else reject(this.ended as WeftError);
      };
      const timer = setTimeout(() => {
        this.#watchers.delete(look);
        reject(new Error(`${this.host.name}: ${what}: not within ${ms} ms`));
      }, ms);
      this.#watchers.add(look);
      look();
    });
  }

  /** Bytes received of messages of networks. */
  get networkMessages(): NetworkUpdate[] {
    return this.messages.flatMap((m) => (m.body?.$case === 'network' ? [m.body.value] : []));
  }

  async close(): Promise<void> {
    this.#stream.end();
    await this.until('ended', () => this.ended !== null).catch(() => {});
    this.#client.close();
  }

  /** Goes without a word. */
  cut(): void {
    this.#stream.cancel();
    this.#client.close();
  }

  #end(reason: WeftError): void {
    this.ended ??= reason;
    for (const look of this.#watchers) look();
  }

  #receive(message: CoordinatorMessage): void {
    this.messages.push(message);
    const body = message.body;
    switch (body?.$case) {
      case 'welcome':
        this.welcome = body.value;
        break;
      case 'catalogue': {
        const { complete, basedOn, revision, networks, removed } = body.value;
        if (!complete && basedOn?.number !== this.#catalogueAt) throw new Error('gap in the catalogue');
        if (complete) this.networks.clear();
        for (const id of removed) this.networks.delete(id);
        for (const network of networks) this.networks.set(network.id, network);
        this.#catalogueAt = revision?.number ?? 0n;
        this.#reached(revision);
        break;
      }
      case 'network':
        this.#merge(body.value);
        break;
      case 'sync':
        this.synced = true;
        this.#reached(body.value.revision);
        break;
      case 'progress':
        this.#reached(body.value.revision);
        break;
      case 'query':
        void this.#answer(body.value);
        break;
      case 'settings':
      case undefined:
    }
    for (const look of this.#watchers) look();
  }

  #merge(update: NetworkUpdate): void {
    const known = this.views.get(update.networkId);
    if (!update.complete && known?.at !== update.basedOn?.number)
      throw new Error(`gap in network ${update.networkId}: ${known?.at} is not ${update.basedOn?.number}`);
    const view: FakeNetwork = known === undefined || update.complete ? emptyNetwork() : known;
    for (const cidr of update.removedBlocks) view.blocks.delete(cidr);
    for (const block of update.blocks) view.blocks.set(block.cidr, block);
    for (const id of update.removedEndpoints) view.endpoints.delete(id);
    for (const endpoint of update.endpoints) view.endpoints.set(endpoint.id, endpoint);
    for (const id of update.removedPeers) view.peers.delete(id);
    for (const peer of update.peers) view.peers.set(peer.hostId, peer);
    for (const address of update.removedAddresses) view.addresses.delete(address);
    for (const address of update.addresses) view.addresses.set(address.address, address);
    for (const id of update.removedExternals) view.externals.delete(id);
    for (const peer of update.externals) view.externals.set(peer.id, peer);
    for (const id of update.removedMemberships) view.memberships.delete(id);
    for (const one of update.memberships) view.memberships.set(one.hostId, one);
    for (const id of update.removedSettings) view.settings.delete(id);
    for (const one of update.settings) view.settings.set(one.endpointId, one);
    for (const name of update.removedReservations) view.reservations.delete(name);
    for (const one of update.reservations) view.reservations.set(one.name, one);
    for (const name of update.removedServices) view.services.delete(name);
    for (const one of update.services) view.services.set(one.name, one);
    for (const name of update.removedPolicies) view.policies.delete(name);
    for (const one of update.policies) view.policies.set(one.name, one);
    view.at = update.revision?.number ?? 0n;
    this.views.set(update.networkId, view);
    this.#reached(update.revision);
  }

  #reached(revision: Revision | undefined): void {
    if (revision === undefined) return;
    const { epoch, number } = this.revision;
    if (revision.epoch > epoch || (revision.epoch === epoch && revision.number > number)) this.revision = revision;
    if (this.ack && this.synced) this.acknowledge();
  }

  async #answer(query: Query): Promise<void> {
    if (query.body === undefined) return;
    const blank: Answer = { id: query.id, code: 0, message: '', body: undefined };
    try {
      const handler = this.#options.onQuery;
      const answer = handler === undefined ? {} : await handler(query.body);
      if (answer !== undefined) this.send({ $case: 'answer', value: { ...blank, ...answer } });
    } catch (error) {
      const weft = WeftError.from(error);
      this.send({
        $case: 'answer',
        value: { ...blank, code: CODES[weft.code] ?? status.INTERNAL, message: weft.details },
      });
    }
  }
}
