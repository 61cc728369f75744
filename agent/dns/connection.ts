/** One TCP connection: queries with their length before them, answered as they are done, in whatever order (RFC 7766). */
import type { Socket } from 'node:net';
import type { Drop, Handler } from './handle.ts';
import { framed } from './wire.ts';

/** Bytes of a message that is read at all. */
const MAX_MESSAGE = 4096;
/** Queries of one connection that are being answered at once; the next ones stay in the kernel. */
const MAX_PENDING = 32;
/** Queries of one connection that are answered before others have their turn. */
const TURN = 32;
/** Bytes of replies that wait for a client that does not read. */
const MAX_UNREAD = 256 * 1024;

/**
 * Serves until the client ends, breaks the rules, or has been idle: between two whole queries, with none being answered.
 * @param source whom it is from
 */
export function serveConnection(
  socket: Socket,
  source: string,
  o: { readonly handler: Handler; readonly idleMs: number; readonly dropped: (why: Drop) => void },
): void {
  let unread: Buffer = Buffer.alloc(0);
  let pending = 0;
  let ended = false;
  const idle = setTimeout(() => {
    if (pending === 0) socket.destroy();
    else idle.refresh();
  }, o.idleMs);
  socket.on('close', () => clearTimeout(idle));
  // What was cut off is over; 'close' follows.
  socket.on('error', () => socket.destroy());
  socket.on('end', () => {
    ended = true;
    finish();
  });
  socket.on('data', (chunk) => {
    unread = unread.length === 0 ? chunk : Buffer.concat([unread, chunk]);
    next();
  });

  function next(): void {
    for (let served = 0; pending < MAX_PENDING && unread.length >= 2 && !socket.destroyed; served++) {
      if (served === TURN) {
        socket.pause();
        setImmediate(next);
        return;
      }
      const length = unread.readUInt16BE(0);
      if (length > MAX_MESSAGE) {
        o.dropped('size');
        socket.destroy();
        return;
      }
      if (unread.length < 2 + length) break;
      const message = unread.subarray(2, 2 + length);
      unread = unread.subarray(2 + length);
      idle.refresh();
      pending++;
      const reply = o.handler(message, source, 'tcp');
      if (reply instanceof Promise) void reply.then(resume);
      else answered(reply);
    }
    if (pending >= MAX_PENDING) socket.pause();
    else socket.resume();
    finish();
  }

  function resume(reply: Buffer | null): void {
    answered(reply);
    next();
  }

  function answered(reply: Buffer | null): void {
    pending--;
    if (socket.destroyed) return;
    // Whoever sends what deserves no reply has lost count of the bytes.
    if (reply === null) socket.destroy();
    else if (socket.writableLength > MAX_UNREAD) {
      o.dropped('limit');
      socket.destroy();
    } else {
      idle.refresh();
      socket.write(framed(reply));
    }
  }

  /** The client has said all that it will, and has been told all. */
  function finish(): void {
    if (ended && pending === 0) socket.end();
  }
}
