/**
 * OVSDB sends JSON objects back to back, without a delimiter (RFC 7047 section 4). This cuts the byte stream into
 * objects by counting braces outside of strings. It works on bytes: in UTF-8 no byte of a longer character is ASCII.
 */
import { WeftError } from '../../lib/errors.ts';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;

const isSpace = (byte: number): boolean => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;

/** Incremental: `push` any pieces, get whole messages. After it has thrown it must not be used again. */
export class JsonSplitter {
  readonly #limit: number;
  #pieces: Uint8Array[] = [];
  #held = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** @param limit bytes that one message may have; a longer one is refused with RESOURCE_EXHAUSTED. */
  constructor(limit = 64 * 1024 * 1024) {
    this.#limit = limit;
  }

  /** The messages that `chunk` completes. Throws INTERNAL on what is not JSON objects. */
  push(chunk: Uint8Array): Record<string, unknown>[] {
    const messages: Record<string, unknown>[] = [];
    let start = 0;
    for (let i = 0; i < chunk.length; i++) {
      const byte = chunk[i]!;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === BACKSLASH) this.#escaped = true;
        else if (byte === QUOTE) this.#inString = false;
      } else if (this.#depth === 0 && byte !== OPEN) {
        if (!isSpace(byte)) throw new WeftError('INTERNAL', 'The peer sent bytes that are not a JSON object.');
        start = i + 1;
      } else if (byte === QUOTE) this.#inString = true;
      else if (byte === OPEN) this.#depth++;
      else if (byte === CLOSE && --this.#depth === 0) {
        messages.push(this.#take(chunk.subarray(start, i + 1)));
        start = i + 1;
      }
    }
    if (start < chunk.length) this.#hold(chunk.subarray(start));
    return messages;
  }

  #hold(piece: Uint8Array): void {
    this.#held += piece.length;
    if (this.#held > this.#limit) {
      throw new WeftError('RESOURCE_EXHAUSTED', `The peer sent a message of more than ${this.#limit} bytes.`);
    }
    this.#pieces.push(piece);
  }

  #take(last: Uint8Array): Record<string, unknown> {
    this.#hold(last);
    const bytes = this.#pieces.length === 1 ? last : Buffer.concat(this.#pieces);
    this.#pieces = [];
    this.#held = 0;
    try {
      return JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8')) as Record<
        string,
        unknown
      >;
    } catch (error) {
      throw new WeftError('INTERNAL', 'The peer sent text that is not JSON.', { cause: error });
    }
  }
}
