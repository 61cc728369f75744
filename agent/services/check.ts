/** Does an endpoint answer? One connection each, from the host's address on the link to br-weft. */
import { Agent, request } from 'node:http';
import { connect } from 'node:net';

export interface Target {
  readonly type: 'tcp' | 'http';
  /** Transit address. */
  readonly host: string;
  readonly port: number;
  /** The host's own of that family. */
  readonly from: string;
  /** For "http": path, and what the request calls the endpoint. */
  readonly path: string;
  readonly name: string;
  /** For the whole of it. */
  readonly timeoutMs: number;
}

/** @returns false for every reason, the signal's end among them. Never rejects. */
export async function answers(target: Target, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return false;
  // One of its own for each question: the given one lives as long as the endpoint, and would remember them all.
  const over = new AbortController();
  const end = (): void => over.abort();
  // Where this process itself was busy for too long, an answer that is there already is heard first.
  const timer = setTimeout(() => setImmediate(end), target.timeoutMs);
  signal.addEventListener('abort', end, { once: true });
  try {
    return await (target.type === 'http' ? answersHttp(target, over.signal) : answersTcp(target, over.signal));
  } catch {
    return false; // a path that HTTP cannot carry
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
  }
}

function answersTcp({ host, port, from }: Target, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, localAddress: from, signal });
    socket.once('connect', () => resolve(true)).on('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

/** Nothing is kept open: each request says by a connection of its own whether connections are accepted. */
const agent = new Agent({ keepAlive: false, maxSockets: Number.POSITIVE_INFINITY });

/** 200 to 399 is an answer; redirections are not followed. */
function answersHttp({ host, port, from, path, name }: Target, signal: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const headers = { host: name, 'user-agent': 'weft', connection: 'close' };
    const asked = request({ agent, host, port, localAddress: from, path, headers, signal }, (response) => {
      const status = response.statusCode ?? 0;
      resolve(status >= 200 && status <= 399);
      asked.destroy();
    });
    asked.on('error', () => resolve(false)).end();
  });
}
