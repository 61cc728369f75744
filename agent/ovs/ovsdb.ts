/**
 * The Open_vSwitch database: a connection that comes back by itself, a typed cache kept by a monitor (RFC 7047 section
 * 4.1.5), and transactions that can wait until ovs-vswitchd has applied them.
 *
 * ovsdb-server sends a monitor's updates before the reply of the transaction that caused them: when `transact` resolves,
 * the cache holds its effects.
 */
import { WeftError } from '../../lib/errors.ts';
import { JsonRpc } from './jsonrpc.ts';
import { Listeners } from './listeners.ts';
import { applyUpdates, COLUMNS, emptyRows, putRow, type RootRow, type Rows, type TableName } from './rows.ts';

const DB = 'Open_vSwitch';

export type Operation = Readonly<Record<string, unknown>> & { readonly op: string; readonly table: string };
/** What one operation gave (RFC 7047 section 5.2). */
export interface OperationResult {
  readonly count?: number;
  readonly uuid?: readonly ['uuid', string];
  readonly rows?: readonly Readonly<Record<string, unknown>>[];
}

export interface OvsdbOptions {
  /** Path of ovsdb-server's unix socket. */
  readonly path: string;
  /** Milliseconds of silence after which the server is probed. */
  readonly idleMs?: number;
  /** Bounds of the pause between attempts to connect, milliseconds. */
  readonly backoffMs?: readonly [number, number];
  /** 0 … 1, for jitter. */
  readonly random?: () => number;
}

export interface TransactOptions {
  /** Resolve only when ovs-vswitchd has applied it (cur_cfg has reached our next_cfg). */
  readonly waitApplied?: boolean;
  /** For the whole call, default 5,000. */
  readonly timeoutMs?: number;
}

interface Waiter {
  readonly cfg: number;
  readonly resolve: () => void;
  readonly reject: (error: WeftError) => void;
}

export class Ovsdb implements AsyncDisposable {
  readonly #options: OvsdbOptions;
  readonly #up = new Listeners<[]>();
  readonly #down = new Listeners<[reason: WeftError]>();
  readonly #change = new Listeners<[]>();
  #rows = emptyRows();
  #version = 0;
  #rpc: JsonRpc | null = null;
  #connected = false;
  #state: 'new' | 'running' | 'closed' = 'new';
  #retry: NodeJS.Timeout | null = null;
  #attempts = 0;
  #reason: WeftError | null = null;
  readonly #waiters = new Set<Waiter>();

  constructor(options: OvsdbOptions) {
    this.#options = options;
  }

  /** Starts connecting, and keeps at it until `close`. */
  start(): void {
    if (this.#state !== 'new') return;
    this.#state = 'running';
    void this.#connect();
  }

  /** Why there is no connection; null while there is one, or when none was tried. */
  get reason(): WeftError | null {
    return this.#reason;
  }

  /** Connected, and the cache is complete. */
  get connected(): boolean {
    return this.#connected;
  }

  /** The cache. After a lost connection it is what was known last. Read only. */
  get rows(): Rows {
    return this.#rows;
  }

  /** Another one: the cache may say something else. */
  get version(): number {
    return this.#version;
  }

  /** The one row of table Open_vSwitch, null in a database that was never initialised. */
  get root(): RootRow | null {
    return this.#rows.Open_vSwitch.values().next().value ?? null;
  }

  /** Each time the cache has become complete; at once if it is now. Returns the function that unsubscribes. */
  onUp(listener: () => void): () => void {
    if (this.#connected) listener();
    return this.#up.add(listener);
  }

  /** Each time that a complete connection was lost. */
  onDown(listener: (reason: WeftError) => void): () => void {
    return this.#down.add(listener);
  }

  /** Each time that any row changed, by whomever, our own transactions included; not for configuration counters. */
  onChange(listener: () => void): () => void {
    return this.#change.add(listener);
  }

  /** Resolves when connected, tries at once if it waits for another try; UNAVAILABLE after `timeoutMs`. */
  async ready(timeoutMs = 5_000): Promise<void> {
    if (this.#connected) return;
    if (this.#retry !== null) {
      clearTimeout(this.#retry);
      void this.#connect();
    }
    await this.#bounded(timeoutMs, `${this.#options.path} is not connected`, (resolve) => this.#up.add(resolve));
  }

  /**
   * One transaction. Rejects, with nothing changed, when an operation fails: ABORTED for a lost race (a `wait` or a
   * unique name), else INTERNAL; UNAVAILABLE when there is no connection. With `waitApplied`: UNAVAILABLE also when it
   * is in the database but ovs-vswitchd does not answer.
   */
  async transact(operations: readonly Operation[], options: TransactOptions = {}): Promise<OperationResult[]> {
    const timeoutMs = options.timeoutMs ?? 5_000;
    const deadline = performance.now() + timeoutMs;
    const rpc = this.#rpc;
    if (rpc === null || !this.#connected) {
      throw new WeftError('UNAVAILABLE', `${this.#options.path} is not connected.`, {
        hint: 'Is ovsdb-server running?',
      });
    }
    const bump: Operation[] = [
      { op: 'mutate', table: DB, where: [], mutations: [['next_cfg', '+=', 1]] },
      { op: 'select', table: DB, where: [], columns: ['next_cfg'] },
    ];
    const sent = options.waitApplied === true ? [...operations, ...bump] : operations;
    const reply = (await rpc.call('transact', [DB, ...sent], timeoutMs)) as (OperationResult | null)[];
    const results = checkReply(reply, operations);
    if (options.waitApplied === true) {
      const cfg = reply[sent.length - 1]?.rows?.[0]?.['next_cfg'];
      if (typeof cfg === 'number') await this.#applied(cfg, Math.max(1, deadline - performance.now()));
    }
    return results;
  }

  /** Reads all monitored tables anew, past the cache: what an audit judges by. */
  async fetchRows(timeoutMs = 5_000): Promise<Rows> {
    const tables = Object.keys(COLUMNS) as TableName[];
    const selects = tables.map((table) => ({ op: 'select', table, where: [], columns: ['_uuid', ...COLUMNS[table]] }));
    const results = await this.transact(selects, { timeoutMs });
    const rows = emptyRows();
    for (const [index, table] of tables.entries()) {
      for (const row of results[index]?.rows ?? []) {
        const uuid = row['_uuid'];
        if (Array.isArray(uuid)) putRow(rows, table, String(uuid[1]), row);
      }
    }
    return rows;
  }

  close(): void {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#rpc?.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.close();
    return Promise.resolve();
  }

  async #connect(): Promise<void> {
    this.#retry = null;
    // Updates that arrive in one piece with the monitor's reply are handled before its promise's continuation: keep them.
    let early: unknown[] | null = [];
    const { path, idleMs } = this.#options;
    let rpc: JsonRpc;
    try {
      rpc = await JsonRpc.connect({
        path,
        ...(idleMs === undefined ? {} : { idleMs }),
        onNotify: (method, params) => {
          if (method !== 'update') return;
          if (early === null) this.#update(params[1]);
          else early.push(params[1]);
        },
        onClose: (reason) => this.#lost(reason),
      });
    } catch (error) {
      this.#lost(WeftError.from(error));
      return;
    }
    if (this.#state === 'closed') {
      rpc.close();
      return;
    }
    this.#rpc = rpc;
    try {
      const requests = Object.fromEntries(Object.entries(COLUMNS).map(([table, columns]) => [table, { columns }]));
      const initial = await rpc.call('monitor', [DB, 'weft', requests]);
      const rows = emptyRows();
      for (const updates of [initial, ...early]) applyUpdates(rows, updates);
      early = null;
      this.#rows = rows;
      this.#version++;
    } catch (error) {
      rpc.close(WeftError.from(error));
      return;
    }
    this.#attempts = 0;
    this.#reason = null;
    this.#connected = true;
    this.#up.emit();
  }

  #lost(reason: WeftError): void {
    const wasUp = this.#connected;
    this.#reason = reason;
    this.#rpc = null;
    this.#connected = false;
    for (const waiter of this.#waiters) waiter.reject(reason);
    if (this.#state === 'running') {
      const [least, most] = this.#options.backoffMs ?? [20, 500];
      const pause = Math.min(most, least * 2 ** this.#attempts++) * (0.5 + (this.#options.random ?? Math.random)() / 2);
      this.#retry = setTimeout(() => void this.#connect(), pause);
    }
    if (wasUp) this.#down.emit(reason);
  }

  #update(updates: unknown): void {
    const changed = applyUpdates(this.#rows, updates);
    this.#version++;
    const current = this.root?.curCfg ?? 0;
    for (const waiter of this.#waiters) if (current >= waiter.cfg) waiter.resolve();
    if (changed && this.#connected) this.#change.emit();
  }

  async #applied(cfg: number, timeoutMs: number): Promise<void> {
    if ((this.root?.curCfg ?? 0) >= cfg) return;
    const hint = 'The change is in the database. Is ovs-vswitchd running? Its log says what it waits for.';
    await this.#bounded(
      timeoutMs,
      'ovs-vswitchd does not answer',
      (resolve, reject) => {
        const waiter = { cfg, resolve, reject };
        this.#waiters.add(waiter);
        return () => this.#waiters.delete(waiter);
      },
      hint,
    );
  }

  async #bounded(
    timeoutMs: number,
    what: string,
    subscribe: (resolve: () => void, reject: (error: WeftError) => void) => () => void,
    hint = 'Is ovsdb-server running?',
  ): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const unsubscribe = subscribe(resolve, reject);
    const late = (): void =>
      reject(new WeftError('UNAVAILABLE', `${what} (waited ${Math.round(timeoutMs)} ms).`, { hint }));
    const timer = setTimeout(late, timeoutMs);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      unsubscribe();
    }
  }
}

/** Throws for the first operation that failed; a failure at commit stands after the last one. */
function checkReply(reply: readonly (OperationResult | null)[], operations: readonly Operation[]): OperationResult[] {
  for (const [index, result] of reply.entries()) {
    const { error, details } = (result ?? {}) as { error?: string | null; details?: string };
    if (error === undefined || error === null) continue;
    const operation = operations[index];
    const what = operation === undefined ? 'the commit' : `${operation.op} in ${operation.table}`;
    const code = RACES.has(error) ? 'ABORTED' : 'INTERNAL';
    throw new WeftError(code, `OVSDB refused ${what}: ${error} (${details ?? ''}).`);
  }
  return reply.slice(0, operations.length).map((result) => result ?? {});
}

/** Errors that mean: somebody else was faster. */
const RACES: ReadonlySet<string> = new Set(['timed out', 'constraint violation', 'referential integrity violation']);
