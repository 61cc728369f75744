import { closeSync, type FSWatcher, openSync, readSync, watch } from 'node:fs';

/** Follows files that the guest appends to. */
export class Follower {
  readonly #files: { readonly fd: number; offset: number; readonly take: (chunk: Buffer) => void }[] = [];
  readonly #watcher: FSWatcher;
  readonly #buffer = Buffer.alloc(65_536);

  /** @param folder holds the files. @param sinks by the file's name; the files are there already. */
  constructor(folder: string, sinks: Readonly<Record<string, (chunk: Buffer) => void>>) {
    this.#watcher = watch(folder, () => this.drain());
    for (const [name, take] of Object.entries(sinks)) {
      this.#files.push({ fd: openSync(`${folder}/${name}`, 'r'), offset: 0, take });
    }
  }

  /** Hands on what has been written since. */
  drain(): void {
    for (const file of this.#files) {
      for (;;) {
        const length = readSync(file.fd, this.#buffer, 0, this.#buffer.length, file.offset);
        if (length === 0) break;
        file.offset += length;
        file.take(Buffer.from(this.#buffer.subarray(0, length)));
      }
    }
  }

  close(): void {
    this.#watcher.close();
    this.drain();
    for (const file of this.#files) closeSync(file.fd);
  }
}
