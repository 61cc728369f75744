/** A journal without a disk; writes can be made to wait. */
import type { Journal, JournalWrite } from '../../agent/contract.ts';
import { applyWrite, emptyRows, type Rows } from '../../agent/journal-format.ts';

export class MemoryJournal implements Journal {
  readonly rows: Rows = emptyRows();
  readonly #listeners = new Set<() => void>();
  /** Writes that asked to be durable. */
  durable = 0;
  pause: () => Promise<void> = () => Promise.resolve();

  get endpoints() {
    return this.rows.endpoint;
  }
  get addresses() {
    return this.rows.address;
  }
  get blocks() {
    return this.rows.block;
  }
  get networks() {
    return this.rows.network;
  }

  async write(writes: readonly JournalWrite[], options: { durable?: boolean } = {}): Promise<void> {
    for (const write of writes) applyWrite(this.rows, write);
    if (options.durable === true) this.durable++;
    await this.pause();
    for (const listener of this.#listeners) listener();
  }

  onChange(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** Time that moves when told. */
export class FakeClock {
  #ms = 1_000_000;
  now(): number {
    return this.#ms + 1_700_000_000_000;
  }
  monotonic(): number {
    return this.#ms;
  }
  advance(ms: number): void {
    this.#ms += ms;
  }
}
