/** A coordinator's Control service over real TLS whose answers a test sets, and a runner of command lines against it. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Server, type ServerUnaryCall } from '@grpc/grpc-js';
import { run } from '../../../cli/program.ts';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import type { Event } from '../../../gen/weft/v1/types.ts';
import { WeftError } from '../../../lib/errors.ts';
import { serverCredentials, serverOptions, serverStream, unary } from '../../../lib/rpc.ts';
import { createCa, issueCoordinator, issueUser, type TlsFiles, writeKeyPair } from '../../../lib/tls.ts';

type Answer = (request: never) => unknown;

export interface Result {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  /** stdout as JSON. */
  json(): unknown;
}

export class FakeControl implements AsyncDisposable {
  readonly port: number;
  readonly tls: TlsFiles;
  /** Method name to what it answers; a method without answer is UNIMPLEMENTED. Set by the test. */
  readonly answers = new Map<string, Answer>();
  readonly calls: { method: string; request: unknown }[] = [];
  events: Event[] = [];
  readonly home: string;
  readonly #server: Server;

  private constructor(home: string, tls: TlsFiles, server: Server, port: number) {
    this.home = home;
    this.tls = tls;
    this.#server = server;
    this.port = port;
  }

  static async start(): Promise<FakeControl> {
    const home = await mkdtemp(join(tmpdir(), 'weft-cli-'));
    const ca = await createCa({ name: 'test' });
    const { cert } = await writeKeyPair(home, 'ca', ca);
    const user = await writeKeyPair(home, 'admin', await issueUser(ca, 'admin'));
    const server = new Server(serverOptions());
    const holder: { fake: FakeControl | null } = { fake: null };
    server.addService(ControlService, implementation(holder) as never);
    const credentials = serverCredentials(await issueCoordinator(ca, 'c1'));
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', credentials, (error, bound) => (error === null ? resolve(bound) : reject(error)));
    });
    holder.fake = new FakeControl(home, { ca: cert, ...user }, server, port);
    return holder.fake;
  }

  get env(): Record<string, string> {
    const { ca, cert, key } = this.tls;
    return { WEFT_COORDINATOR: `127.0.0.1:${this.port}`, WEFT_CA: ca, WEFT_CERT: cert, WEFT_KEY: key };
  }

  /** Runs `weft ARGV` in this process. */
  run(...argv: string[]): Promise<Result> {
    return runCli(argv, { env: this.env, home: this.home });
  }

  /** With something piped in. */
  pipe(stdin: string, ...argv: string[]): Promise<Result> {
    return runCli(argv, { env: this.env, home: this.home, stdin });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.forceShutdown();
    await rm(this.home, { recursive: true, force: true });
  }
}

function implementation(holder: { fake: FakeControl | null }): Record<string, unknown> {
  const methods: Record<string, unknown> = {};
  for (const method of Object.keys(ControlService))
    methods[method] = unary(async (call: ServerUnaryCall<unknown, unknown>) => {
      holder.fake?.calls.push({ method, request: call.request });
      const answer = holder.fake?.answers.get(method);
      if (answer === undefined) throw new WeftError('UNIMPLEMENTED', `${method} is not there.`);
      return answer(call.request as never);
    });
  methods['watchEvents'] = serverStream(async function* (call, signal) {
    yield* holder.fake?.events ?? [];
    if ((call.request as { follow: boolean }).follow)
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  });
  return methods;
}

export async function runCli(
  argv: readonly string[],
  options: {
    env?: Record<string, string>;
    home?: string;
    signal?: AbortSignal;
    onOut?: (text: string) => void;
    stdin?: string;
  },
): Promise<Result> {
  let out = '';
  let err = '';
  const code = await run(argv, {
    env: options.env ?? {},
    home: options.home ?? '/nonexistent',
    out: (text) => {
      out += text;
      options.onOut?.(text);
    },
    err: (text) => {
      err += text;
    },
    stdin: async () => options.stdin ?? '',
    signal: () => options.signal ?? new AbortController().signal,
    setExit: () => {},
  });
  return { code, out, err, json: () => JSON.parse(out) as unknown };
}
