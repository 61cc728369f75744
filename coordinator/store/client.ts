/**
 * etcd3 as we use it: key-value calls, leases and the raw watch stream. Its own retries, breakers and Watcher are off: they lose
 * events and stall unrelated calls. One client per endpoint: calls stay on one until it fails, then go to the next.
 */
import { noop } from 'cockatiel';
import * as etcd3 from 'etcd3';
import { WeftError } from '../../lib/errors.ts';

export interface EtcdOptions {
  /** host:port or URLs. */
  readonly endpoints: readonly string[];
  /** PEM. */
  readonly tls?: { readonly ca: Buffer; readonly cert?: Buffer; readonly key?: Buffer };
  readonly auth?: { readonly username: string; readonly password: string };
  /** Milliseconds for a call with all its tries; 5000. */
  readonly deadlineMs?: number;
}

type Call<T> = (etcd: etcd3.Etcd3, options: { deadline: number }) => Promise<T>;

export class EtcdClient {
  readonly endpoints: readonly string[];
  readonly deadlineMs: number;
  readonly #members: readonly etcd3.Etcd3[];
  readonly #rotated = new Set<() => void>();
  #current = 0;
  #closed = false;

  constructor(options: EtcdOptions) {
    if (options.endpoints.length === 0)
      throw new WeftError('INVALID_ARGUMENT', 'no etcd endpoint is given', { hint: 'give --etcd URL[,URL…]' });
    this.endpoints = options.endpoints;
    this.deadlineMs = options.deadlineMs ?? 5000;
    this.#members = options.endpoints.map((host) => new etcd3.Etcd3(memberOptions(host, options, this.deadlineMs)));
  }

  /** One read or idempotent call; goes to other members, and tries again until the deadline. @throws UNAVAILABLE, … */
  async call<T>(fn: Call<T>): Promise<T> {
    const end = Date.now() + this.deadlineMs;
    for (;;) {
      try {
        return await this.once(fn, end);
      } catch (error) {
        const e = WeftError.from(error);
        if (e.code !== 'UNAVAILABLE' || this.#closed || Date.now() + 150 > end) throw e;
        await new Promise((resolve) => setTimeout(resolve, 50 + Math.random() * 100));
      }
    }
  }

  /** One try, on the current member. After UNAVAILABLE the call may have been done or not. */
  async once<T>(fn: Call<T>, end: number = Date.now() + this.deadlineMs): Promise<T> {
    const member = this.#current;
    // With several members a silent one may not use up the whole time.
    const share = this.#members.length > 1 ? this.deadlineMs / 2 : this.deadlineMs;
    try {
      return await fn(this.#member(), { deadline: Math.min(end, Date.now() + share) });
    } catch (error) {
      const e = this.#closed
        ? new WeftError('CANCELLED', 'the etcd client is closed')
        : etcdError(error, this.endpoints);
      if (e.code === 'UNAVAILABLE') this.rotate(member);
      throw e;
    }
  }

  /** Linearizable: what is written before is seen. The newest revision of the whole of etcd. */
  async newestRevision(key: string): Promise<bigint> {
    const request = { key: Buffer.from(key), count_only: true };
    const reply = await this.call((etcd, options) => etcd.kv.range(request, options));
    return BigInt(reply.header.revision);
  }

  watchStream(): ReturnType<etcd3.WatchClient['watch']> {
    return this.#member().watchClient.watch();
  }

  keepAliveStream(): ReturnType<etcd3.LeaseClient['leaseKeepAlive']> {
    return this.#member().leaseClient.leaseKeepAlive();
  }

  /** Index of the member that calls and new streams go to. */
  get member(): number {
    return this.#current;
  }

  /** To the next member, because `from` fails or is silent; nothing when that has been left already. */
  rotate(from: number): void {
    if (this.#current !== from || this.#members.length === 1) return;
    this.#current = (from + 1) % this.#members.length;
    for (const listener of this.#rotated) listener();
  }

  /** Called after the current member has changed: streams on the old one may be dead and not know. */
  onRotate(listener: () => void): () => void {
    this.#rotated.add(listener);
    return () => void this.#rotated.delete(listener);
  }

  close(): void {
    this.#closed = true;
    for (const member of this.#members) member.close();
  }

  #member(): etcd3.Etcd3 {
    return this.#members[this.#current]!;
  }
}

function memberOptions(host: string, options: EtcdOptions, deadlineMs: number): etcd3.IOptions {
  const { tls, auth } = options;
  return {
    hosts: host,
    ...(tls === undefined ? {} : { credentials: credentials(tls) }),
    ...(auth === undefined ? {} : { auth: { username: auth.username, password: auth.password } }),
    faultHandling: { host: () => noop, global: noop },
    defaultCallOptions: (context) => (context.isStream ? {} : { deadline: Date.now() + deadlineMs }),
    grpcOptions: {
      'grpc.max_receive_message_length': -1,
      'grpc.keepalive_time_ms': 10_000,
      'grpc.keepalive_timeout_ms': 3000,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.min_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1000,
      'grpc.enable_http_proxy': 0,
    },
  };
}

const credentials = (tls: NonNullable<EtcdOptions['tls']>): NonNullable<etcd3.IOptions['credentials']> => ({
  rootCertificate: tls.ca,
  ...(tls.key === undefined ? {} : { privateKey: tls.key }),
  ...(tls.cert === undefined ? {} : { certChain: tls.cert }),
});

/** etcd3 throws a class per gRPC status; the status itself is gone. */
export function etcdError(error: unknown, endpoints: readonly string[]): WeftError {
  if (error instanceof WeftError) return error;
  const message = error instanceof Error ? error.message : String(error);
  const where = `etcd (${endpoints.join(', ')})`;
  if (isCompacted(error))
    return new WeftError('ABORTED', `${where} has compacted what was asked for`, { cause: error });
  if (error instanceof etcd3.GRPCResourceExhastedError)
    return new WeftError('UNAVAILABLE', `${where} takes no writes: ${message}`, {
      hint: 'compact and defragment etcd, or raise its quota',
      cause: error,
    });
  if (
    error instanceof etcd3.EtcdPermissionDeniedError ||
    error instanceof etcd3.EtcdAuthenticationFailedError ||
    error instanceof etcd3.GRPCUnauthenticatedError
  )
    return new WeftError('UNAUTHENTICATED', `${where} refuses the coordinator: ${message}`, { cause: error });
  const passing =
    error instanceof etcd3.GRPCUnavailableError ||
    error instanceof etcd3.GRPCDeadlineExceededError ||
    error instanceof etcd3.GRPCCancelledError ||
    error instanceof etcd3.GRPCInternalError ||
    error instanceof etcd3.GRPCUnknownError ||
    error instanceof etcd3.GRPCAbortedError ||
    error instanceof etcd3.EtcdInvalidAuthTokenError;
  if (passing)
    return new WeftError('UNAVAILABLE', `${where} cannot be reached: ${message}`, {
      hint: 'running containers are not affected; check that a majority of the etcd members is up',
      cause: error,
    });
  return new WeftError('INTERNAL', `${where}: ${message}`, { cause: error });
}

/** The wanted revision is gone from etcd's history. */
export const isCompacted = (error: unknown): boolean =>
  error instanceof etcd3.GRPCOutOfRangeError ||
  (error instanceof Error && error.cause !== undefined && isCompacted(error.cause));

export const isLeaseGone = (error: unknown): boolean =>
  error instanceof etcd3.EtcdLeaseInvalidError ||
  error instanceof etcd3.GRPCNotFoundError ||
  (error instanceof Error && error.cause !== undefined && isLeaseGone(error.cause));
