/**
 * Routes in containers to where routers lead: Docker sets those that there are when a container joins, and this the ones that come and go
 * while it runs. What a container has been given is in the journal; what it does to its routes itself is its own affair.
 */
import { isDeepStrictEqual } from 'node:util';
import { WeftError } from '../lib/errors.ts';
import { exec } from '../lib/exec.ts';
import type { Log } from '../lib/log.ts';
import type { Conflict, View } from '../lib/model.ts';
import { isNamespaceGone } from './attach/namespaces.ts';
import { type Journal, type JournalWrite, type LocalEndpoint, type Mesh, nameOf } from './contract.ts';
import { type ContainerRoute, containerRoutes } from './plan/routing.ts';

/** Until a namespace that could not be entered is tried again. */
const AGAIN_MS = 5_000;

export interface ContainerRoutesOptions {
  readonly journal: Journal;
  readonly mesh: () => Pick<Mesh, 'view' | 'reportConflicts'> & {
    /** The view is complete: what is not in it may be taken away. */
    readonly complete: boolean;
  };
  readonly hostName: string;
  readonly log: Log;
}

/** What one container is to be given (`added`), and what is to be taken from it. */
export interface RouteChange {
  readonly endpoint: LocalEndpoint;
  readonly gone: readonly ContainerRoute[];
  readonly added: readonly ContainerRoute[];
}

/** Pure. @param mayRemove the view is complete: what is not in it may be taken away */
export function routeChanges(
  journal: Pick<Journal, 'endpoints' | 'networks'>,
  view: View,
  mayRemove: boolean,
): RouteChange[] {
  const changes: RouteChange[] = [];
  const inSandbox = new Map<string, LocalEndpoint[]>();
  for (const e of journal.endpoints.values()) {
    const network = journal.networks.get(e.networkId)?.network;
    if (e.sandbox === null || network === undefined) continue;
    const others = inSandbox.get(e.sandbox) ?? [];
    const desired = containerRoutes(view, e, network, others);
    const before = e.routed ?? [];
    const wanted = mayRemove ? desired : [...desired, ...before.filter((b) => !desired.some((d) => d.cidr === b.cidr))];
    inSandbox.set(e.sandbox, [...others, { ...e, routed: wanted }]);
    const lacks = (of: readonly ContainerRoute[], r: ContainerRoute): boolean =>
      !of.some(({ cidr, via }) => cidr === r.cidr && via === r.via);
    const gone = before.filter((r) => lacks(wanted, r));
    const added = wanted.filter((r) => lacks(before, r));
    if (e.interfaceName !== null && gone.length + added.length > 0) changes.push({ endpoint: e, gone, added });
  }
  return changes;
}

export class ContainerRoutes {
  readonly #o: ContainerRoutesOptions;
  #running: Promise<void> | null = null;
  #dirty = false;
  #closed = false;
  #timer: NodeJS.Timeout | null = null;
  #unwatch: (() => void) | null = null;
  /** By endpoint: what went wrong, and when it is tried again (monotonic ms). */
  readonly #failed = new Map<string, { readonly why: string; readonly at: number }>();

  constructor(options: ContainerRoutesOptions) {
    this.#o = options;
  }

  start(): void {
    this.#unwatch = this.#o.journal.onChange(() => this.kick());
    this.kick();
  }

  kick(): void {
    this.#dirty = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = null;
      if (this.#dirty && !this.#closed) this.kick();
    });
  }

  /** Resolves once every container has been looked at after this moment. */
  async settled(): Promise<void> {
    this.kick();
    while (this.#running !== null) await this.#running;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#unwatch?.();
    if (this.#timer !== null) clearTimeout(this.#timer);
    await this.#running;
  }

  /** Never rejects: nobody waits for it but who asks. */
  async #run(): Promise<void> {
    while (this.#dirty && !this.#closed) {
      this.#dirty = false;
      const { journal } = this.#o;
      const mesh = this.#o.mesh();
      const changes = routeChanges(journal, mesh.view(), mesh.complete);
      const pending = new Set(changes.map(({ endpoint }) => endpoint.id));
      for (const id of this.#failed.keys()) if (!pending.has(id)) this.#failed.delete(id);
      for (const change of changes) {
        if (this.#closed) return;
        if (performance.now() < (this.#failed.get(change.endpoint.id)?.at ?? 0)) continue;
        const why = await this.#one(change).catch((error: unknown) => WeftError.from(error).message);
        this.#note(change.endpoint, why);
      }
      this.#tell();
    }
  }

  /** @param why empty: all is well */
  #note({ id }: LocalEndpoint, why: string): void {
    if (why === '') return void this.#failed.delete(id);
    if (this.#failed.get(id)?.why !== why)
      this.#o.log.warn({ endpoint: id, reason: why }, 'routes of a container not set');
    this.#failed.set(id, { why, at: performance.now() + AGAIN_MS });
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.kick();
    }, AGAIN_MS);
  }

  #tell(): void {
    const { journal, mesh, hostName: host } = this.#o;
    const conflict = ([id, { why }]: [string, { readonly why: string }]): Conflict => {
      const e = journal.endpoints.get(id);
      const name = (e && nameOf(e)) || id.slice(0, 12);
      return { host, network: '', message: `${name} has not all routes to where routers lead: ${why}.` };
    };
    mesh().reportConflicts('routes', [...this.#failed].map(conflict));
  }

  /** What has been done is kept, whatever else fails. @returns what failed; empty: nothing */
  async #one({ endpoint, gone, added }: RouteChange): Promise<string> {
    if (isNamespaceGone(endpoint) || endpoint.sandbox === null) return '';
    const device = `dev ${endpoint.interfaceName}`;
    const lines = [
      ...gone.map(({ cidr, via }) => `route del ${cidr} via ${via} ${device}`),
      ...added.map(({ cidr, via }) => `route replace ${cidr} via ${via} ${device}`),
    ];
    const args = [`--net=${endpoint.sandbox}`, 'ip', '-force', '-batch', '-'];
    const { code, stderr } = await exec('nsenter', args, { input: `${lines.join('\n')}\n` });
    const failures = failuresOf(stderr);
    if (code !== 0 && failures.size === 0) return stderr.trim() || `nsenter ended with ${code}`;
    const now = this.#o.journal.endpoints.get(endpoint.id);
    if (now?.sandbox !== endpoint.sandbox) return '';
    const routed = kept(now.routed ?? [], { gone, added: added.filter((_, i) => !failures.has(gone.length + i)) });
    const write: JournalWrite = { table: 'endpoint', key: now.id, value: { ...now, routed } };
    if (!isDeepStrictEqual(routed, now.routed ?? [])) await this.#o.journal.write([write]);
    // What is to go may be gone.
    return [...failures].filter(([line]) => line >= gone.length).map(([, said]) => said)[0] ?? '';
  }
}

/** Routes of a container after some have come and gone. */
const kept = (
  before: readonly ContainerRoute[],
  { gone, added }: Pick<RouteChange, 'gone' | 'added'>,
): ContainerRoute[] =>
  [...before.filter((r) => ![...gone, ...added].some(({ cidr }) => cidr === r.cidr)), ...added].sort((a, b) =>
    a.cidr < b.cidr ? -1 : 1,
  );

/** What ip says of lines that failed, by their place from 0 (ip(8), -force -batch). */
export function failuresOf(stderr: string): Map<number, string> {
  const failures = new Map<number, string>();
  let said: string[] = [];
  for (const line of stderr.split('\n')) {
    const number = /^Command failed .*:(\d+)$/.exec(line)?.[1];
    if (number === undefined) said.push(line.trim());
    else {
      failures.set(Number(number) - 1, said.filter((text) => text !== '').join('; ') || `line ${number}`);
      said = [];
    }
  }
  return failures;
}
