/** weft.v1.Agent on the host's unix socket: what people and tools on the host ask the agent. */
import { chmod, unlink } from 'node:fs/promises';
import { Server } from '@grpc/grpc-js';
import { type AgentServer, AgentService, type LocalTraceRequest } from '../gen/weft/v1/agent.ts';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Drift, Host, TraceAnswer } from '../lib/model.ts';
import { insecureServerCredentials, serverOptions, unary } from '../lib/rpc.ts';
import type { Attachments } from './attach/index.ts';
import type { Journal } from './contract.ts';
import type { Reconciler } from './reconcile.ts';
import type { SessionMesh } from './session/mesh.ts';
import { encodeView } from './viewstore.ts';

export interface AgentParts {
  readonly host: () => Host;
  readonly mesh: SessionMesh;
  readonly journal: Journal;
  readonly reconciler: Reconciler;
  readonly attachments: Attachments;
  readonly audit: (heal: boolean) => Promise<Drift[]>;
  readonly flowText: () => Promise<string>;
  /** Entries of the kernel side's maps, a line each; empty on a host without it. */
  readonly mapText: () => string;
  /** Follows one packet as far as it stays here. */
  readonly trace: (request: LocalTraceRequest) => Promise<TraceAnswer>;
  readonly log: Log;
}

export function agentService(p: AgentParts): AgentServer {
  return {
    status: unary(
      async () => ({
        host: p.host(),
        session: p.mesh.inSync ? 'in sync' : p.mesh.connected ? 'connecting' : 'alone',
        coordinator: p.mesh.coordinator,
        applied: p.mesh.appliedRevision,
        endpoints: p.journal.endpoints.size,
        networks: p.journal.networks.size,
        flows: p.reconciler.flowCount,
        conflicts: [...p.mesh.conflicts],
        failure: p.reconciler.failure === '' ? p.mesh.failure : p.reconciler.failure,
      }),
      p.log,
    ),
    dump: unary(async (call) => ({ text: await dump(p, call.request.what) }), p.log),
    resync: unary(async (call) => ({ drift: await p.audit(call.request.heal) }), p.log),
    trace: unary(({ request }) => p.trace(request), p.log),
    attach: unary(async ({ request }) => {
      const { endpoint, network } = await p.attachments.attach(request);
      return { endpoint: p.mesh.recordOf(endpoint), network: network.name, host: p.host().name };
    }, p.log),
    detach: unary(async ({ request }) => {
      await p.attachments.detach(request.endpoint);
      return {};
    }, p.log),
  };
}

async function dump(p: AgentParts, what: string): Promise<string> {
  switch (what) {
    case 'view':
      return encodeView(p.mesh.view());
    case 'flows':
      return p.flowText();
    case 'maps':
      return p.mapText();
    case 'journal': {
      const { endpoints, addresses, blocks, networks } = p.journal;
      const rows = { endpoints, addresses, blocks, networks };
      const plain = (_: string, v: unknown) =>
        v instanceof Map ? Object.fromEntries(v) : typeof v === 'bigint' ? `${v}` : v;
      return JSON.stringify(rows, plain, 2);
    }
    case 'plan':
      return JSON.stringify({ steps: p.reconciler.steps, failure: p.reconciler.failure });
    default:
      throw new WeftError('INVALID_ARGUMENT', `there is no "${what}" to dump`, {
        hint: 'view, flows, maps, journal or plan',
      });
  }
}

/** Serves on the socket, readable by its owner only. @returns how to stop. */
export async function serveAgent(path: string, service: AgentServer): Promise<() => Promise<void>> {
  const server = new Server(serverOptions());
  server.addService(AgentService, service);
  await unlink(path).catch(() => undefined);
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix:${path}`, insecureServerCredentials(), (error) => {
      if (error === null) resolve();
      else reject(new WeftError('UNAVAILABLE', `the agent cannot listen on ${path}: ${error.message}`));
    });
  });
  await chmod(path, 0o600);
  return () =>
    new Promise((resolve) => {
      const timer = setTimeout(() => server.forceShutdown(), 500);
      server.tryShutdown(() => {
        clearTimeout(timer);
        resolve();
      });
    });
}
