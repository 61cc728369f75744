/** Bytes in network order: a writer that grows, a reader that never leaves its bounds. Pure. */
import { WeftError } from '../../lib/errors.ts';

export class Writer {
  #buffer: Buffer;
  #length = 0;

  constructor(capacity = 256) {
    this.#buffer = Buffer.allocUnsafe(capacity);
  }

  get length(): number {
    return this.#length;
  }

  /** What has been written; valid until the writer is written to again. */
  bytes(): Buffer {
    return this.#buffer.subarray(0, this.#length);
  }

  u8(value: number): this {
    const at = this.#grow(1);
    this.#buffer[at] = value;
    return this;
  }

  u16(value: number): this {
    const at = this.#grow(2);
    this.#buffer.writeUInt16BE(value, at);
    return this;
  }

  u32(value: number): this {
    const at = this.#grow(4);
    this.#buffer.writeUInt32BE(value >>> 0, at);
    return this;
  }

  u64(value: bigint): this {
    const at = this.#grow(8);
    this.#buffer.writeBigUInt64BE(value, at);
    return this;
  }

  /** The low `count` bytes of `value`. */
  uint(value: bigint, count: number): this {
    if (count === 8) return this.u64(BigInt.asUintN(64, value));
    if (count > 8) return this.uint(value >> 64n, count - 8).u64(BigInt.asUintN(64, value));
    const at = this.#grow(count);
    if (count <= 6) this.#buffer.writeUIntBE(Number(value), at, count);
    else for (let i = 0; i < count; i++) this.#buffer[at + i] = Number((value >> BigInt(8 * (count - 1 - i))) & 0xffn);
    return this;
  }

  raw(bytes: Uint8Array): this {
    const at = this.#grow(bytes.length);
    this.#buffer.set(bytes, at);
    return this;
  }

  zeros(count: number): this {
    const at = this.#grow(count);
    this.#buffer.fill(0, at, at + count);
    return this;
  }

  /** Zeros until the distance from `start` is a multiple of eight. */
  align8(start: number): this {
    return this.zeros((8 - ((this.#length - start) % 8)) % 8);
  }

  /** Writes a length that was not known before. */
  patchU16(at: number, value: number): void {
    if (value > 0xffff)
      throw new WeftError('INVALID_ARGUMENT', 'An OpenFlow message or action is longer than 65,535 bytes.');
    this.#buffer.writeUInt16BE(value, at);
  }

  #grow(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length));
      this.#buffer.copy(larger, 0, 0, at);
      this.#buffer = larger;
    }
    return at;
  }
}

/** Throws INTERNAL when the bytes end too early: what is decoded comes from a peer. */
export class Reader {
  readonly #buffer: Buffer;
  #at = 0;

  constructor(buffer: Uint8Array) {
    this.#buffer = Buffer.from(buffer.buffer, buffer.byteOffset, buffer.length);
  }

  get left(): number {
    return this.#buffer.length - this.#at;
  }

  u8(): number {
    return this.#buffer[this.#take(1)]!;
  }

  u16(): number {
    return this.#buffer.readUInt16BE(this.#take(2));
  }

  /** 16 bits from `offset` bytes ahead, without moving. */
  peekU16(offset: number): number {
    const at = this.#at;
    const value = this.skip(offset).u16();
    this.#at = at;
    return value;
  }

  u32(): number {
    return this.#buffer.readUInt32BE(this.#take(4));
  }

  u64(): bigint {
    return this.#buffer.readBigUInt64BE(this.#take(8));
  }

  uint(count: number): bigint {
    if (count === 8) return this.u64();
    if (count > 0 && count <= 6) return BigInt(this.#buffer.readUIntBE(this.#take(count), count));
    let value = 0n;
    for (let i = 0; i < count; i++) value = (value << 8n) | BigInt(this.u8());
    return value;
  }

  skip(count: number): this {
    this.#take(count);
    return this;
  }

  /** The next `count` bytes, shared with the source. */
  bytes(count: number): Buffer {
    const at = this.#take(count);
    return this.#buffer.subarray(at, at + count);
  }

  sub(count: number): Reader {
    return new Reader(this.bytes(count));
  }

  rest(): Buffer {
    return this.bytes(this.left);
  }

  #take(count: number): number {
    const at = this.#at;
    if (count < 0 || at + count > this.#buffer.length) {
      throw new WeftError('INTERNAL', 'An OpenFlow message ends before its contents do.');
    }
    this.#at = at + count;
    return at;
  }
}
