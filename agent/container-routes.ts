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
import { batchLine, type Command, command } from './link/words.ts';
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
  /** By endpoint: what was left to be done, why, and when that is tried again (monotonic ms). Anything else is done at once. */
  readonly #failed = new Map<string, Failure>();

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
        const last = this.#failed.get(change.endpoint.id);
        if (last?.left === textOf(change) && performance.now() < last.at) continue;
        const why = await this.#one(change).catch((error: unknown) => WeftError.from(error).message);
        this.#note(change, why);
      }
      this.#tell();
    }
  }

  /** @param why empty: all is well */
  #note(change: RouteChange, why: string): void {
    const { id } = change.endpoint;
    if (why === '') return void this.#failed.delete(id);
    if (this.#failed.get(id)?.why !== why)
      this.#o.log.warn({ endpoint: id, reason: why }, 'routes of a container not set');
    const { journal, mesh } = this.#o;
    const left = routeChanges(journal, mesh().view(), mesh().complete).find(({ endpoint }) => endpoint.id === id);
    this.#failed.set(id, { left: textOf(left ?? change), why, at: performance.now() + AGAIN_MS });
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.kick();
    }, AGAIN_MS);
  }

  #tell(): void {
    const { journal, mesh, hostName: host } = this.#o;
    const conflict = ([id, { why }]: [string, Failure]): Conflict => {
      const e = journal.endpoints.get(id);
      const name = (e && nameOf(e)) || id.slice(0, 12);
      return { host, network: '', message: `${name} has not all routes to where routers lead: ${why}.` };
    };
    mesh().reportConflicts('routes', [...this.#failed].map(conflict));
  }

  /** What has been done is kept, whatever else fails. @returns what failed; empty: nothing */
  async #one({ endpoint, gone, added }: RouteChange): Promise<string> {
    if (isNamespaceGone(endpoint) || endpoint.sandbox === null) return '';
    const device = endpoint.interfaceName ?? '';
    const commands = [
      ...gone.map(({ cidr, via }) => command`route del ${cidr} via ${via} dev ${device}`),
      ...added.map(({ cidr, via }) => command`route replace ${cidr} via ${via} dev ${device}`),
    ];
    const failures = await runIn(endpoint.sandbox, commands);
    const now = this.#o.journal.endpoints.get(endpoint.id);
    if (now?.sandbox !== endpoint.sandbox) return '';
    const routed = kept(now.routed ?? [], { gone, added: added.filter((_, i) => !failures.has(gone.length + i)) });
    const write: JournalWrite = { table: 'endpoint', key: now.id, value: { ...now, routed } };
    if (!isDeepStrictEqual(routed, now.routed ?? [])) await this.#o.journal.write([write]);
    // What is to go may be gone.
    return [...failures].filter(([line]) => line >= gone.length).map(([, said]) => said)[0] ?? '';
  }
}

interface Failure {
  readonly left: string;
  readonly why: string;
  readonly at: number;
}

const textOf = ({ gone, added }: RouteChange): string => JSON.stringify([gone, added]);

/** Routes of a container after some have come and gone. */
const kept = (
  before: readonly ContainerRoute[],
  { gone, added }: Pick<RouteChange, 'gone' | 'added'>,
): ContainerRoute[] =>
  [...before.filter((r) => ![...gone, ...added].some(({ cidr }) => cidr === r.cidr)), ...added].sort((a, b) =>
    a.cidr < b.cidr ? -1 : 1,
  );

/** All of them, whatever becomes of one. @returns what failed, by its place; rejects when nothing could be done */
async function runIn(sandbox: string, commands: readonly Command[]): Promise<Map<number, string>> {
  const enter = [`--net=${sandbox}`, 'ip'];
  const lines = commands.map(batchLine);
  if (!lines.includes(null)) {
    const input = `${lines.join('\n')}\n`;
    const { code, stderr } = await exec('nsenter', [...enter, '-force', '-batch', '-'], { input });
    const failures = failuresOf(stderr);
    if (code !== 0 && failures.size === 0)
      throw new WeftError('UNAVAILABLE', stderr.trim() || `nsenter ended with ${code}`);
    return failures;
  }
  const failures = new Map<number, string>();
  for (const [i, words] of commands.entries()) {
    const { code, stderr } = await exec('nsenter', [...enter, ...words]);
    if (code !== 0) failures.set(i, stderr.trim() || `ip ended with ${code}`);
  }
  return failures;
}

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
