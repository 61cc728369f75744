/**
 * Routes in containers to where routers lead: Docker sets those that there are when a container joins, and this the ones that come and go
 * while it runs. What a container has been given is in the journal; what it does to its routes itself is its own affair.
 */
import { exec } from '../lib/exec.ts';
import type { Log } from '../lib/log.ts';
import type { View } from '../lib/model.ts';
import { isNamespaceGone } from './attach/namespaces.ts';
import type { Journal, JournalWrite, LocalEndpoint } from './contract.ts';
import { type ContainerRoute, containerRoutes } from './plan/routing.ts';

/** Until a namespace that could not be entered is tried again. */
const AGAIN_MS = 5_000;

export interface ContainerRoutesOptions {
  readonly journal: Journal;
  readonly view: () => View;
  /** The view is complete: what is not in it may be taken away. */
  readonly mayRemove: () => boolean;
  readonly log: Log;
}

/** What one container is to be given, and what is to be taken from it. */
export interface RouteChange {
  readonly endpoint: LocalEndpoint;
  readonly wanted: readonly ContainerRoute[];
  readonly gone: readonly ContainerRoute[];
  readonly added: readonly ContainerRoute[];
}

/** Pure but for what it is given. @param mayRemove as above */
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
    if (e.interfaceName !== null && gone.length + added.length > 0) changes.push({ endpoint: e, wanted, gone, added });
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

  async #run(): Promise<void> {
    while (this.#dirty && !this.#closed) {
      this.#dirty = false;
      const { journal, view, mayRemove } = this.#o;
      for (const change of routeChanges(journal, view(), mayRemove())) {
        if (this.#closed) return;
        await this.#one(change);
      }
    }
  }

  async #one({ endpoint, wanted, gone, added }: RouteChange): Promise<void> {
    if (isNamespaceGone(endpoint) || endpoint.sandbox === null) return;
    const device = `dev ${endpoint.interfaceName}`;
    const lines = [
      ...gone.map(({ cidr, via }) => `route del ${cidr} via ${via} ${device}`),
      ...added.map(({ cidr, via }) => `route replace ${cidr} via ${via} ${device}`),
    ];
    // What is to go may be gone: every line is tried.
    const args = [`--net=${endpoint.sandbox}`, 'ip', '-force', '-batch', '-'];
    const failed = await exec('nsenter', args, { input: `${lines.join('\n')}\n` }).then(
      (r) => failuresOf(r.stderr, gone.length),
      (error: unknown) => String(error),
    );
    if (failed !== '') {
      this.#o.log.warn({ endpoint: endpoint.id, reason: failed }, 'routes of a container not set');
      this.#timer ??= setTimeout(() => {
        this.#timer = null;
        this.kick();
      }, AGAIN_MS);
      return;
    }
    const now = this.#o.journal.endpoints.get(endpoint.id);
    if (now?.sandbox !== endpoint.sandbox) return;
    const write: JournalWrite = { table: 'endpoint', key: now.id, value: { ...now, routed: wanted } };
    await this.#o.journal.write([write]);
  }
}

/** What ip says of lines after the first `deletions`; empty: they are done. */
export function failuresOf(stderr: string, deletions: number): string {
  const said: string[] = [];
  for (const line of stderr.split('\n')) {
    const number = /^Command failed .*:(\d+)$/.exec(line)?.[1];
    if (number === undefined) said.push(line.trim());
    else if (Number(number) > deletions) return said.filter((text) => text !== '').join('; ') || `line ${number}`;
    else said.length = 0;
  }
  return '';
}
