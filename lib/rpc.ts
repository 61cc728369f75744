/**
 * gRPC as every part of Weft uses it: mutual TLS 1.3, identity from the peer's certificate, WeftError ↔ status, a deadline on
 * every unary call. Over unix sockets there is no TLS: the socket's mode decides who may call.
 */
import { createSecureContext, type PeerCertificate } from 'node:tls';
import {
  type ChannelOptions,
  type Client,
  credentials,
  type handleBidiStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  ServerCredentials,
  type ServerDuplexStream,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceError,
} from '@grpc/grpc-js';
import { CODES, WeftError } from './errors.ts';
import { COORDINATOR_DNS, type TlsMaterial } from './tls.ts';

/** Deadline of a unary call that names none, milliseconds. */
export const DEFAULT_TIMEOUT_MS = 10_000;
const MAX_RECEIVE_BYTES = 256 * 1024 * 1024;
/** HTTP/2 peers refuse headers over 16 KiB; percent-encoding triples what is not ASCII. */
const MAX_DETAILS = 3000;

export type IdentityKind = 'host' | 'coordinator' | 'user';

/** Who calls, as its certificate says. */
export interface Identity {
  readonly kind: IdentityKind;
  /** Host id, coordinator name or user name. */
  readonly name: string;
}

/** The part of a logger that this file needs. */
export interface RpcLog {
  error(fields: object, event: string): void;
}

/** What a client or server over a unix socket uses. */
export const insecureServerCredentials = (): ServerCredentials => ServerCredentials.createInsecure();
export const insecureChannelCredentials = () => credentials.createInsecure();

/** Server side of mutual TLS: a client without a certificate of `tls.ca` is refused in the handshake; TLS 1.3 only. */
export function serverCredentials(tls: TlsMaterial): ServerCredentials {
  const pair = { private_key: Buffer.from(tls.key), cert_chain: Buffer.from(tls.cert) };
  const made = ServerCredentials.createSsl(Buffer.from(tls.ca), [pair], true);
  // grpc-js has no option for it; the context options are handed to http2.createSecureServer as they are.
  Object.assign(made._getSecureContextOptions() ?? {}, { minVersion: 'TLSv1.3' });
  return made;
}

export function channelCredentials(tls: TlsMaterial) {
  return credentials.createFromSecureContext(
    createSecureContext({ ca: tls.ca, cert: tls.cert, key: tls.key, minVersion: 'TLSv1.3' }),
  );
}

/**
 * Options of a channel.
 * @param options.session keepalive 2 s / 3 s also while idle: a cut is seen within 5 s. Else 10 s / 5 s.
 * @param options.serverName DNS SAN to check instead of the address; null over a unix socket.
 */
export function channelOptions(options: { session?: boolean; serverName?: string | null } = {}): ChannelOptions {
  const name = options.serverName === undefined ? COORDINATOR_DNS : options.serverName;
  const session = options.session === true;
  return {
    ...(name === null ? {} : { 'grpc.ssl_target_name_override': name, 'grpc.default_authority': name }),
    'grpc.keepalive_time_ms': session ? 2000 : 10_000,
    'grpc.keepalive_timeout_ms': session ? 3000 : 5000,
    'grpc.keepalive_permit_without_calls': session ? 1 : 0,
    'grpc.initial_reconnect_backoff_ms': 200,
    'grpc.min_reconnect_backoff_ms': 200,
    'grpc.max_reconnect_backoff_ms': 2000,
    'grpc.max_receive_message_length': MAX_RECEIVE_BYTES,
    'grpc.max_send_message_length': -1,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
    // Two channels of one process are two connections: closing one must not be felt by the other.
    'grpc.use_local_subchannel_pool': 1,
  };
}

export const serverOptions = (): ChannelOptions => ({
  'grpc.keepalive_time_ms': 2000,
  'grpc.keepalive_timeout_ms': 3000,
  'grpc.max_receive_message_length': MAX_RECEIVE_BYTES,
  'grpc.max_send_message_length': -1,
});

/** Only the certificate matters of a call here, so that every kind of server call fits. */
export interface AuthenticatedCall {
  getAuthContext(): { sslPeerCertificate?: PeerCertificate };
}

const URI = /^weft:\/\/(host|coordinator|user)\/([A-Za-z0-9][A-Za-z0-9_.-]{0,62})$/;

/** The one Weft identity in a subjectaltname string as Node gives it; null unless there is exactly one well-formed. */
export function parseIdentity(subjectAltName: string | undefined): Identity | null {
  // Node quotes (as JSON) what could be mistaken for a separator: a quoted entry is never ours.
  if (subjectAltName === undefined || subjectAltName.includes('"')) return null;
  const uris = subjectAltName.split(', ').filter((entry) => entry.startsWith('URI:'));
  const match = uris.length === 1 ? URI.exec(uris[0]?.slice(4) ?? '') : null;
  const [, kind, name] = match ?? [];
  if (kind === undefined || name === undefined) return null;
  if (kind === 'host' && !/^[0-9a-f]{16}$/.test(name)) return null;
  return { kind: kind as IdentityKind, name };
}

/** @throws UNAUTHENTICATED when the certificate carries no Weft identity. */
export function peerIdentity(call: AuthenticatedCall): Identity {
  const identity = parseIdentity(call.getAuthContext().sslPeerCertificate?.subjectaltname);
  if (identity === null)
    throw new WeftError('UNAUTHENTICATED', 'The client certificate carries no Weft identity.', {
      hint: 'use a certificate that weft ca init or weft ca host made',
    });
  return identity;
}

/** @throws UNAUTHENTICATED, or PERMISSION_DENIED when the caller is of another kind. */
export function requireIdentity(call: AuthenticatedCall, ...kinds: readonly IdentityKind[]): Identity {
  const identity = peerIdentity(call);
  if (!kinds.includes(identity.kind))
    throw new WeftError('PERMISSION_DENIED', `A ${identity.kind} may not make this call.`, {
      hint: `it is for: ${kinds.join(', ')}`,
    });
  return identity;
}

/** Anything thrown, as what grpc-js sends as status. */
export function toStatus(error: unknown): Pick<ServiceError, 'code' | 'details' | 'name' | 'message'> {
  const weft = WeftError.from(error);
  const details = weft.details.toWellFormed().slice(0, MAX_DETAILS).toWellFormed();
  return { code: CODES[weft.code], details, name: weft.name, message: details };
}

function report(log: RpcLog | undefined, path: string, error: unknown): void {
  const weft = WeftError.from(error);
  if (weft.code === 'INTERNAL') log?.error({ err: error, call: path }, 'call failed');
}

/** A unary method from an async function; what it throws becomes the status, INTERNAL is logged. */
export function unary<Req, Res>(
  handler: (call: ServerUnaryCall<Req, Res>) => Promise<Res>,
  log?: RpcLog,
): handleUnaryCall<Req, Res> {
  return (call, callback) => {
    const answer = async (): Promise<void> => {
      let response: Res;
      try {
        response = await handler(call);
      } catch (error) {
        report(log, call.getPath(), error);
        return callback(toStatus(error));
      }
      callback(null, response);
    };
    void answer();
  };
}

/** A server-streaming method from an async generator; `signal` aborts when the client has gone. Honours back-pressure. */
export function serverStream<Req, Res>(
  handler: (call: ServerWritableStream<Req, Res>, signal: AbortSignal) => AsyncIterable<Res>,
  log?: RpcLog,
): handleServerStreamingCall<Req, Res> {
  return (call) => {
    const gone = new AbortController();
    call.on('cancelled', () => gone.abort());
    const run = async (): Promise<void> => {
      for await (const message of handler(call, gone.signal)) await writeMessage(call, message, gone.signal);
    };
    finish(call, run(), gone, log);
  };
}

/** A bidirectional method: resolves = the stream ends with OK, rejects = with that status. */
export function duplex<Req, Res>(
  handler: (call: ServerDuplexStream<Req, Res>, signal: AbortSignal) => Promise<void>,
  log?: RpcLog,
): handleBidiStreamingCall<Req, Res> {
  return (call) => {
    const gone = new AbortController();
    call.on('cancelled', () => gone.abort());
    const run = async (): Promise<void> => handler(call, gone.signal);
    finish(call, run(), gone, log);
  };
}

function finish(
  call: ServerWritableStream<unknown, unknown> | ServerDuplexStream<unknown, unknown>,
  running: Promise<void>,
  gone: AbortController,
  log: RpcLog | undefined,
): void {
  running.then(
    () => call.end(),
    (error: unknown) => {
      if (!gone.signal.aborted) report(log, call.getPath(), error);
      call.emit('error', toStatus(error));
    },
  );
}

/** The writing half of any gRPC stream. */
export interface MessageSink<T> {
  write(message: T): boolean;
  once(event: 'drain' | 'close' | 'error' | 'cancelled', listener: () => void): unknown;
  removeListener(event: 'drain' | 'close' | 'error' | 'cancelled', listener: () => void): unknown;
}

/** Writes one message and waits for room for the next; returns at once when the signal aborts or the stream is over. */
export async function writeMessage<T>(sink: MessageSink<T>, message: T, signal?: AbortSignal): Promise<void> {
  if (signal?.aborted === true || sink.write(message)) return;
  const events = ['drain', 'close', 'error', 'cancelled'] as const;
  await new Promise<void>((resolve) => {
    const done = (): void => {
      for (const event of events) sink.removeListener(event, done);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    for (const event of events) sink.once(event, done);
    signal?.addEventListener('abort', done);
  });
}

/** The shape of a method in the generated service definitions. */
export interface Method<Req, Res> {
  readonly path: string;
  readonly requestSerialize: (value: Req) => Buffer;
  readonly responseDeserialize: (value: Buffer) => Res;
}

export interface CallSettings {
  /** Milliseconds; DEFAULT_TIMEOUT_MS unless said otherwise, null = none. */
  readonly timeoutMs?: number | null;
  readonly signal?: AbortSignal;
  /** Wait for the connection instead of failing at once with UNAVAILABLE. */
  readonly waitForReady?: boolean;
}

/** One unary call: `callUnary(client, ControlService.getNetwork, request)`. Rejects with WeftError. */
export function callUnary<Req, Res>(
  client: Client,
  method: Method<Req, Res>,
  request: Req,
  settings: CallSettings = {},
): Promise<Res> {
  const { signal } = settings;
  if (aborted(signal)) return Promise.reject(cancelled(signal));
  return new Promise((resolve, reject) => {
    const abort = (): void => call.cancel();
    const call = client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      metadata(settings),
      deadline(settings, DEFAULT_TIMEOUT_MS),
      (error, response) => {
        signal?.removeEventListener('abort', abort);
        if (error !== null) reject(aborted(signal) ? cancelled(signal) : WeftError.from(error));
        else if (response === undefined) reject(new WeftError('INTERNAL', `${method.path} answered nothing.`));
        else resolve(response);
      },
    );
    signal?.addEventListener('abort', abort, { once: true });
  });
}

/** A server-streaming call as an async iterable; no deadline by default. Throws WeftError; ends quietly when `signal` aborts. */
export async function* callStream<Req, Res>(
  client: Client,
  method: Method<Req, Res>,
  request: Req,
  settings: CallSettings = {},
): AsyncGenerator<Res, void, undefined> {
  const { signal } = settings;
  if (aborted(signal)) return;
  const stream = client.makeServerStreamRequest(
    method.path,
    method.requestSerialize,
    method.responseDeserialize,
    request,
    metadata(settings),
    deadline(settings, null),
  );
  const abort = (): void => stream.cancel();
  signal?.addEventListener('abort', abort, { once: true });
  try {
    for await (const message of stream) yield message as Res;
  } catch (error) {
    if (aborted(signal)) return;
    throw WeftError.from(error);
  } finally {
    signal?.removeEventListener('abort', abort);
    stream.cancel();
  }
}

function metadata(settings: CallSettings): Metadata {
  const made = new Metadata();
  if (settings.waitForReady === true) made.setOptions({ waitForReady: true });
  return made;
}

function deadline(settings: CallSettings, fallback: number | null): { deadline?: number } {
  const ms = settings.timeoutMs === undefined ? fallback : settings.timeoutMs;
  return ms === null ? {} : { deadline: Date.now() + ms };
}

/** A function, because TypeScript takes the property for constant once it has been looked at. */
const aborted = (signal: AbortSignal | undefined): boolean => signal?.aborted === true;

const cancelled = (signal?: AbortSignal): WeftError =>
  new WeftError('CANCELLED', 'The call was cancelled.', { cause: signal?.reason });
