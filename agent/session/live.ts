/**
 * One session: from Hello to its end. Collects the complete view in a draft, then follows increments. Any surprise ends it; the loop
 * (loop.ts) starts the next one, complete again.
 */
import type { ClientDuplexStream } from '@grpc/grpc-js';
import type {
  AgentMessage,
  CoordinatorMessage,
  Hello,
  Query,
  SessionClient,
  Welcome,
} from '../../gen/weft/v1/session.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Revision, View } from '../../lib/model.ts';
import { type Draft, EMPTY_DRAFT, withCatalogue, withNetwork, withoutInterest, withRevision } from '../view.ts';

export interface LiveHandlers {
  /** The complete view is here, or has changed. */
  onView(view: View): void;
  onQuery(query: Query, answer: (message: AgentMessage) => void): void;
}

export class LiveSession {
  readonly client: SessionClient;
  readonly #stream: ClientDuplexStream<AgentMessage, CoordinatorMessage>;
  readonly #handlers: LiveHandlers;
  readonly #ended = new AbortController();
  readonly #welcomed = Promise.withResolvers<Welcome>();
  #welcome: Welcome | null = null;
  #draft: Draft = EMPTY_DRAFT;
  #synced = false;
  #merged = 0n;
  /** How many messages a view was merged from. */
  readonly #counts = new WeakMap<View, bigint>();
  /** Networks that interest ended in: increments of theirs may still be under way. */
  readonly #dropped = new Set<string>();

  constructor(client: SessionClient, hello: Hello, handlers: LiveHandlers) {
    this.client = client;
    this.#handlers = handlers;
    this.#stream = client.connect();
    this.#stream.on('data', (message: CoordinatorMessage) => this.#receive(message));
    this.#stream.on('error', (error: unknown) => this.end(WeftError.from(error)));
    this.#stream.on('end', () => this.end(new WeftError('UNAVAILABLE', 'the coordinator ended the session')));
    this.#welcomed.promise.catch(() => undefined);
    this.send({ body: { $case: 'hello', value: hello } });
  }

  /** Aborted when the session is over; the reason is a WeftError. */
  get ended(): AbortSignal {
    return this.#ended.signal;
  }
  /** The complete view has arrived. */
  get synced(): boolean {
    return this.#synced && !this.#ended.signal.aborted;
  }
  get welcome(): Welcome | null {
    return this.#welcome;
  }
  /** Resolves with the Welcome; rejects when the session ends before. */
  welcomed(): Promise<Welcome> {
    return this.#welcomed.promise;
  }
  get sessionId(): string {
    if (this.#welcome === null || this.#ended.signal.aborted) throw unconnected();
    return this.#welcome.sessionId;
  }

  send(message: AgentMessage): void {
    if (!this.#ended.signal.aborted) this.#stream.write(message);
  }

  /** @param view the newest one applied; null = none of this session yet. */
  ack(view: View | null, applied: Revision, failure: string): void {
    const messages = (view === null ? undefined : this.#counts.get(view)) ?? 0n;
    this.send({ body: { $case: 'ack', value: { applied, failure, messages } } });
  }

  /** Tells the coordinator that the network does or does not matter here any more. */
  interest(networkId: string, interested: boolean): void {
    this.send({ body: { $case: 'interest', value: { networkId, interested } } });
    if (!interested) {
      this.#dropped.add(networkId);
      this.#draft = withoutInterest(this.#draft, networkId);
      this.#publish();
    }
  }

  end(reason: WeftError): void {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort(reason);
    this.#welcomed.reject(reason);
    this.#stream.cancel();
  }

  #receive(message: CoordinatorMessage): void {
    try {
      this.#handle(message);
    } catch (error) {
      this.end(WeftError.from(error));
    }
  }

  #handle(message: CoordinatorMessage): void {
    const body = message.body;
    switch (body?.$case) {
      case 'welcome':
        this.#welcome = body.value;
        this.#welcomed.resolve(body.value);
        return;
      case 'catalogue':
        this.#draft = withCatalogue(this.#draft, body.value);
        return this.#merge();
      case 'network':
        if (body.value.complete || !this.#outdated(body.value.networkId))
          this.#draft = withNetwork(this.#draft, body.value);
        return this.#merge();
      case 'sync':
        this.#draft = withRevision(this.#draft, body.value.revision);
        this.#synced = true;
        return this.#merge();
      case 'settings':
        if (this.#welcome !== null && body.value.host !== undefined)
          this.#welcome = { ...this.#welcome, host: body.value.host };
        this.#draft = withRevision(this.#draft, body.value.revision);
        return this.#merge();
      case 'progress':
        this.#draft = withRevision(this.#draft, body.value.revision);
        return this.#publish();
      case 'query':
        return this.#handlers.onQuery(body.value, (answer) => this.send(answer));
      case undefined:
        // A newer coordinator may say things that this agent does not know yet.
        return;
    }
  }

  #outdated(networkId: string): boolean {
    return this.#dropped.has(networkId) && !this.#draft.networkAt.has(networkId);
  }

  #merge(): void {
    this.#merged++;
    this.#publish();
  }

  #publish(): void {
    // A view of its own for each count, also where the message changed nothing.
    const view = { ...this.#draft.view };
    this.#draft = { ...this.#draft, view };
    this.#counts.set(view, this.#merged);
    if (this.#synced) this.#handlers.onView(view);
  }
}

export const unconnected = (): WeftError =>
  new WeftError('UNAVAILABLE', 'this host is not connected to a coordinator', {
    hint: 'see `weft status`, and `coordinators` in agent.yaml',
  });
