/**
 * Ends of connections, in the namespace that it is started in, led by lines.
 *
 * `serve PORT NAME` answers TCP ("who", "get BYTES", "put BYTES" and then so many bytes; a line each) and UDP (whatever is asked), of both
 * families, by its name and whom it sees. `ask` reads requests from stdin, and answers each with a line:
 *
 *   open ID HOST PORT FROM   TCP from that port, 0 = any
 *   who ID | get ID BYTES | put ID BYTES | close ID
 *   udp HOST PORT FROM BYTES a datagram of that size, which is answered by one
 */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, isIPv6, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

const LIMIT_MS = 5_000;
const CHUNK = 1 << 20;
const plain = (address: string | undefined): string => (address ?? '').replace(/^::ffff:/, '');
const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');

/** Bytes that do not repeat within any segment. */
function pattern(size: number): Buffer {
  const out = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += 4) out.writeUInt32LE((at * 2_654_435_761) >>> 0, at);
  return out;
}

/** Lines, or a number of bytes, as they come. */
class Reader {
  readonly #socket: Socket;
  #have: Buffer[] = [];
  #size = 0;
  #failed: Error | null = null;
  #wake: () => void = () => undefined;

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (part: Buffer) => {
      this.#have.push(part);
      this.#size += part.length;
      this.#wake();
    });
    socket.on('error', (error) => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('closed')));
  }

  #fail(error: Error): void {
    this.#failed ??= error;
    this.#wake();
  }

  async bytes(size: number): Promise<Buffer> {
    while (this.#size < size) await this.#more();
    const all = Buffer.concat(this.#have);
    this.#have = [all.subarray(size)];
    this.#size = all.length - size;
    return all.subarray(0, size);
  }

  async line(): Promise<string> {
    for (;;) {
      const all = Buffer.concat(this.#have);
      const end = all.indexOf(10);
      if (end >= 0) return (await this.bytes(end + 1)).toString().trim();
      this.#have = [all];
      await this.#more();
    }
  }

  async #more(): Promise<void> {
    if (this.#failed !== null) throw this.#failed;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
  }

  get socket(): Socket {
    return this.#socket;
  }
}

async function send(socket: Socket, bytes: Buffer): Promise<void> {
  for (let at = 0; at < bytes.length; at += CHUNK)
    if (!socket.write(bytes.subarray(at, at + CHUNK))) await once(socket, 'drain');
}

const [what = '', ...rest] = process.argv.slice(2);
if (what === 'serve') serve(Number(rest[0]), rest[1] ?? '');
else await ask();

function serve(port: number, name: string): void {
  const answerAll = async (socket: Socket): Promise<void> => {
    const reader = new Reader(socket);
    for (;;) {
      const [verb = '', size = '0'] = (await reader.line()).split(' ');
      if (verb === 'get') await send(socket, pattern(Number(size)));
      else if (verb === 'put') socket.write(`${digest(await reader.bytes(Number(size)))}\n`);
      else socket.write(`${name} ${plain(socket.remoteAddress)} ${socket.remotePort}\n`);
    }
  };
  createServer((socket) => void answerAll(socket).catch(() => socket.destroy())).listen({ port, host: '::' }, () => {
    const udp = createSocket({ type: 'udp6' });
    udp.on('message', (asked, from) => {
      const said = `${name} ${plain(from.address)} ${digest(asked).slice(0, 8)} `;
      udp.send(said.padEnd(asked.length, '.'), from.port, from.address);
    });
    udp.bind(port, '::', () => process.stdout.write('ready\n'));
  });
}

async function ask(): Promise<void> {
  const open = new Map<string, Reader>();
  for await (const line of createInterface({ input: process.stdin })) {
    const words = line.split(' ');
    const said = await answer(open, words).catch((error: NodeJS.ErrnoException) => error.code ?? error.message);
    process.stdout.write(`${said}\n`);
  }
  process.exit(0);
}

async function answer(open: Map<string, Reader>, words: readonly string[]): Promise<string> {
  const [verb = '', id = '', ...args] = words;
  if (verb === 'udp') return await datagram(id, Number(args[0]), Number(args[1]), Number(args[2]));
  if (verb === 'open') {
    const socket = connect({ host: args[0] ?? '', port: Number(args[1]), localPort: Number(args[2]) });
    await once(socket, 'connect', { signal: AbortSignal.timeout(LIMIT_MS) }).catch((error: NodeJS.ErrnoException) => {
      socket.destroy();
      throw error;
    });
    open.set(id, new Reader(socket));
    return 'open';
  }
  const reader = open.get(id);
  if (reader === undefined) throw new Error('no such connection');
  const size = Number(args[0] ?? 0);
  if (verb === 'close') {
    // Without TIME_WAIT: the port is free again.
    reader.socket.resetAndDestroy();
    open.delete(id);
    return 'closed';
  }
  reader.socket.write(`${verb} ${size}\n`);
  if (verb === 'get') return digest(await reader.bytes(size)) === digest(pattern(size)) ? 'right' : 'wrong';
  if (verb === 'who') return await reader.line();
  await send(reader.socket, pattern(size));
  return (await reader.line()) === digest(pattern(size)) ? 'right' : 'wrong';
}

/** Its answer without the padding; connected, so that errors are heard. */
async function datagram(host: string, port: number, from: number, size: number): Promise<string> {
  const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  const asked = pattern(size);
  try {
    socket.bind(from);
    await once(socket, 'listening');
    socket.connect(port, host);
    await once(socket, 'connect');
    const answered = once(socket, 'message', { signal: AbortSignal.timeout(LIMIT_MS) });
    socket.send(asked);
    const [message] = (await answered) as [Buffer];
    const [name, seen, mark] = message.toString().split(' ');
    return message.length === size && mark === digest(asked).slice(0, 8) ? `${name} ${seen}` : 'wrong';
  } finally {
    socket.close();
  }
}
