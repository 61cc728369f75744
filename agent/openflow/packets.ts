/**
 * Packets for the agent, by kind: a bounded queue between the switch and handlers that may be slow. What does not fit is dropped
 * and counted; nothing in the datapath waits for it.
 */
import type { Log } from '../../lib/log.ts';
import type { OpenFlowClient } from './client.ts';
import { type PacketIn, type PacketOut, readPacketIn, writePacketOut } from './punted.ts';
import { Writer } from './wire.ts';

export type PacketHandler = (packet: PacketIn) => void | Promise<void>;

export interface PacketsOptions {
  /** Made with `packetIns: true`; started and closed by the caller. A connection of its own: packets do not delay flows. */
  readonly client: OpenFlowClient;
  /** Packets that wait at most. Default 256: more than two seconds of what the punt meter lets through. */
  readonly capacity?: number;
  readonly log: Log;
}

export class Packets {
  readonly #o: PacketsOptions;
  readonly #handlers = new Map<number, PacketHandler>();
  readonly #queue: PacketIn[] = [];
  #stop: (() => void) | null = null;
  #draining: Promise<void> | null = null;
  #received = 0;
  #dropped = 0;
  #sent = 0;

  constructor(options: PacketsOptions) {
    this.#o = options;
  }

  get counters(): { readonly received: number; readonly dropped: number; readonly sent: number } {
    return { received: this.#received, dropped: this.#dropped, sent: this.#sent };
  }

  /** @param kind first byte of the controller action's userdata. One handler a kind. Returns the function that takes it off. */
  on(kind: number, handler: PacketHandler): () => void {
    this.#handlers.set(kind, handler);
    return () => this.#handlers.delete(kind);
  }

  start(): void {
    this.#stop ??= this.#o.client.onMessage(({ type, body }) => {
      const packet = readPacketIn(type, body);
      if (packet !== null) this.#take(packet);
    });
  }

  /** What waits is thrown away; resolves when no handler runs any more. */
  async close(): Promise<void> {
    this.#stop?.();
    this.#queue.length = 0;
    await this.#draining;
  }

  /** Rejects with UNAVAILABLE without a switch, INVALID_ARGUMENT for actions that cannot be written. */
  async send(packet: PacketOut): Promise<void> {
    const writer = new Writer(packet.data.length + 256);
    writePacketOut(writer, this.#o.client.allocate(), packet);
    await this.#o.client.send(writer.bytes());
    this.#sent++;
  }

  #take(packet: PacketIn): void {
    this.#received++;
    if (this.#queue.length >= (this.#o.capacity ?? 256) || !this.#handlers.has(packet.userdata[0] ?? -1)) {
      this.#dropped++;
      return;
    }
    this.#queue.push(packet);
    this.#draining ??= this.#drain().finally(() => {
      this.#draining = null;
    });
  }

  async #drain(): Promise<void> {
    // Not in the socket's own callback: a burst is read as a whole, then worked off.
    await Promise.resolve();
    for (let packet = this.#queue.shift(); packet !== undefined; packet = this.#queue.shift()) {
      try {
        await this.#handlers.get(packet.userdata[0] ?? -1)?.(packet);
      } catch (error) {
        this.#o.log.warn({ err: error, cookie: packet.cookie.toString(16) }, 'packet not handled');
      }
    }
  }
}
