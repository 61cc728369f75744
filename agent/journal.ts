/**
 * What this host holds: rows in memory, and an append-only file that survives the agent's death at any moment.
 * Writes are visible in memory at once; those waiting for the disk are appended together, and synced together if one asks for it.
 */
import { type FileHandle, mkdir, open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Journal, JournalWrite } from './contract.ts';
import { applyWrite, decode, emptyRows, encodeGroup, encodeSnapshot, type Rows } from './journal-format.ts';

/** Below this size a file is never compacted while running. */
const SMALL = 64 * 1024;

interface Pending {
  readonly line: string;
  readonly durable: boolean;
  readonly undo: readonly Undo[];
  readonly done: () => void;
  readonly fail: (error: WeftError) => void;
}

interface Undo {
  readonly write: JournalWrite;
  readonly before: JournalWrite['value'];
}

export class FileJournal implements Journal {
  readonly #path: string;
  readonly #log: Log;
  readonly #listeners = new Set<() => void>();
  #rows: Rows = emptyRows();
  #file: FileHandle | null = null;
  #size = 0;
  #snapshotSize = 0;
  #queue: Pending[] = [];
  #flushing: Promise<void> | null = null;
  #closed = false;
  #fresh = false;

  constructor(options: { path: string; log: Log }) {
    this.#path = options.path;
    this.#log = options.log;
  }

  get endpoints() {
    return this.#rows.endpoint;
  }
  get addresses() {
    return this.#rows.address;
  }
  get blocks() {
    return this.#rows.block;
  }
  get networks() {
    return this.#rows.network;
  }
  /** True when there was no file at start: a first start, or the journal was lost (then Docker and the mesh know better). */
  get fresh(): boolean {
    return this.#fresh;
  }

  /** Loads and compacts. Lines that cannot be read are logged and kept aside in PATH.broken. */
  async start(): Promise<void> {
    await mkdir(dirname(this.#path), { recursive: true });
    const text = await readFile(this.#path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return null;
      throw WeftError.from(error);
    });
    this.#fresh = text === null;
    if (text !== null) {
      const { rows, problems, torn } = decode(text);
      this.#rows = rows;
      if (torn) this.#log.info({ path: this.#path }, 'journal: the last line was torn, and dropped');
      if (problems.length > 0) {
        this.#log.error({ path: this.#path, problems: problems.slice(0, 20) }, 'journal: lines that cannot be read');
        await rename(this.#path, `${this.#path}.broken`);
      }
    }
    await this.#compact();
  }

  /** Writes what is pending, then closes the file. */
  async close(): Promise<void> {
    this.#closed = true;
    while (this.#flushing !== null) await this.#flushing;
    await this.#file?.close();
    this.#file = null;
  }

  write(writes: readonly JournalWrite[], options: { durable?: boolean } = {}): Promise<void> {
    if (this.#file === null || this.#closed)
      return Promise.reject(new WeftError('UNAVAILABLE', 'the journal is closed'));
    const undo = writes.map((write) => ({ write, before: this.#rows[write.table].get(write.key) ?? null }));
    for (const write of writes) applyWrite(this.#rows, write);
    return new Promise<void>((done, fail) => {
      this.#queue.push({ line: encodeGroup(writes), durable: options.durable ?? false, undo, done, fail });
      this.#flushing ??= this.#flush();
    });
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async #flush(): Promise<void> {
    await Promise.resolve(); // writes of the same turn go together
    while (this.#queue.length > 0) {
      const group = this.#queue;
      this.#queue = [];
      try {
        await this.#append(group);
        for (const pending of group) pending.done();
      } catch (error) {
        this.#takeBack(group, error);
      }
      for (const listener of this.#listeners) listener();
      if (this.#size > Math.max(SMALL, 4 * this.#snapshotSize)) await this.#compactQuietly();
    }
    this.#flushing = null;
  }

  async #append(group: readonly Pending[]): Promise<void> {
    const bytes = Buffer.from(group.map((pending) => pending.line).join(''));
    let written = 0;
    while (written < bytes.length) {
      const result = await this.#file!.write(bytes, written, bytes.length - written, this.#size + written);
      written += result.bytesWritten;
    }
    if (group.some((pending) => pending.durable)) await this.#file!.datasync();
    this.#size += bytes.length;
  }

  /** The disk did not take it: memory goes back too, newest first, except where a later write already stands on it. */
  #takeBack(group: readonly Pending[], cause: unknown): void {
    this.#log.error({ path: this.#path, err: cause }, 'journal: write failed');
    for (const pending of group.toReversed())
      for (const { write, before } of pending.undo.toReversed()) {
        const now = this.#rows[write.table].get(write.key) ?? null;
        if (now === write.value) applyWrite(this.#rows, { ...write, value: before } as JournalWrite);
      }
    const error = new WeftError('INTERNAL', `the journal ${this.#path} cannot be written: ${String(cause)}`, {
      hint: 'is the disk full?',
      cause,
    });
    for (const pending of group) pending.fail(error);
    this.#file!.truncate(this.#size).catch(() => undefined);
  }

  async #compactQuietly(): Promise<void> {
    try {
      await this.#compact();
    } catch (error) {
      this.#log.warn({ path: this.#path, err: error }, 'journal: compaction failed, the log goes on');
      this.#snapshotSize = this.#size; // not again with every write
    }
  }

  /** The state as a new file, in place of the old one; what is written later goes after it. */
  async #compact(): Promise<void> {
    // Writes still queued are already in memory, so also in the snapshot: their lines come again after it, harmlessly.
    const bytes = Buffer.from(encodeSnapshot(this.#rows));
    const temp = `${this.#path}.new`;
    const file = await open(temp, 'w', 0o600);
    try {
      await file.writeFile(bytes);
      await file.sync();
      await rename(temp, this.#path);
    } catch (error) {
      await file.close().catch(() => undefined);
      throw error;
    }
    await syncDirectory(dirname(this.#path));
    await this.#file?.close();
    this.#file = file;
    this.#size = bytes.length;
    this.#snapshotSize = bytes.length;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, 'r');
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
