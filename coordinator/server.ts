/** The gRPC server of a coordinator: its services, health (grpc.health.v1) and reflection, all behind mutual TLS. */
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { type ChannelOptions, Server, type ServerCredentials } from '@grpc/grpc-js';
import { ReflectionService } from '@grpc/reflection';
import { HealthImplementation } from 'grpc-health-check';
import { DESCRIPTOR_SET } from '../gen/descriptor.ts';
import { ControlService } from '../gen/weft/v1/control.ts';
import { ReplicaService } from '../gen/weft/v1/replica.ts';
import { WeftError } from '../lib/errors.ts';
import { serverOptions } from '../lib/rpc.ts';
import { controlService } from './api/control.ts';
import { replicaService } from './api/replica.ts';
import { sessionService } from './api/session.ts';
import type { Parts } from './parts.ts';

const SERVICES = ['', 'weft.v1.Control', 'weft.v1.Session', 'weft.v1.Replica'];
const GRACE_MS = 2000;

const OPTIONS: ChannelOptions = {
  ...serverOptions(),
  // An agent that hangs is noticed within 5 s.
  'grpc.keepalive_time_ms': 1500,
  'grpc.keepalive_timeout_ms': 3000,
  // Every agent has a stream: channelz would keep books of each.
  'grpc.enable_channelz': 0,
};

export class GrpcServer {
  readonly #server = new Server(OPTIONS);
  readonly #health = new HealthImplementation();
  readonly #credentials: ServerCredentials;

  constructor(parts: Parts, credentials: ServerCredentials) {
    this.#credentials = credentials;
    this.#server.addService(ControlService, controlService(parts));
    this.#server.addService(parts.wire.service, sessionService(parts));
    this.#server.addService(ReplicaService, replicaService(parts));
    this.#health.addToServer(this.#server);
    // It wants a package definition, and reads nothing of it but the files' descriptors.
    const files = { weft: { fileDescriptorProtos: filesOf(DESCRIPTOR_SET) } };
    const services = SERVICES.filter((name) => name !== '');
    type Files = ConstructorParameters<typeof ReflectionService>[0];
    new ReflectionService(files as unknown as Files, { services }).addToServer(this.#server);
  }

  /** @returns the port. @throws UNAVAILABLE when the address is taken */
  listen(address: string): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(address, this.#credentials, (error, port) => {
        if (error === null) resolve(port);
        else reject(new WeftError('UNAVAILABLE', `Cannot listen on ${address}: ${error.message}.`, { cause: error }));
      });
    });
  }

  serving(yes: boolean): void {
    for (const service of SERVICES) this.#health.setStatus(service, yes ? 'SERVING' : 'NOT_SERVING');
  }

  /** Lets calls end for a moment, then cuts them. */
  async close(): Promise<void> {
    this.serving(false);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => {
        this.#server.forceShutdown();
        resolve();
      }, GRACE_MS);
      this.#server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}

/** The FileDescriptorProtos of a FileDescriptorSet (descriptor.proto: `repeated FileDescriptorProto file = 1`). */
function filesOf(set: string): Buffer[] {
  const reader = new BinaryReader(Buffer.from(set, 'base64'));
  const files: Buffer[] = [];
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (field === 1) files.push(Buffer.from(reader.bytes()));
    else reader.skip(wireType);
  }
  return files;
}
