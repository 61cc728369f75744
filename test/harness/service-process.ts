/**
 * Behind a service, and before it: `node service-process.ts serve PORT NAME` answers TCP connections and UDP datagrams of both families
 * with "NAME CALLER"; `call tcp|udp HOST PORT COUNT PAUSE` prints a line for each call: "END-OF-CALL ANSWER", epoch milliseconds and
 * "-" where nobody answers; COUNT 0 = for ever; `hold HOST PORT` keeps one connection, says each line of its input and prints what comes
 * back. Runs in the namespace that it is started in.
 */
import { createSocket } from 'node:dgram';
import { connect, createServer, isIPv6 } from 'node:net';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';

const LIMIT_MS = 1_000;
const plain = (address: string | undefined): string => (address ?? '').replace(/^::ffff:/, '');

const [what = '', ...rest] = process.argv.slice(2);
if (what === 'serve') serve(Number(rest[0]), rest[1] ?? '');
else if (what === 'hold') hold(rest[0] ?? '', Number(rest[1]));
else await call(rest[0] ?? '', rest[1] ?? '', Number(rest[2]), Number(rest[3]), Number(rest[4]));

/** Who sends something is answered each time; who does not is answered at once, and left. */
function serve(port: number, name: string): void {
  const server = createServer((socket) => {
    const answer = `${name} ${plain(socket.remoteAddress)}`;
    socket.on('error', () => undefined);
    socket.on('data', (said: Buffer) => {
      if (said.toString().startsWith('bye')) socket.end(answer);
      else socket.write(`${answer}\n`);
    });
  });
  server.listen({ port, host: '::' }, () => {
    const udp = createSocket({ type: 'udp6' });
    udp.on('message', (_, from) => udp.send(`${name} ${plain(from.address)}`, from.port, from.address));
    udp.bind(port, '::', () => process.stdout.write('ready\n'));
  });
}

async function call(protocol: string, host: string, port: number, count: number, every: number): Promise<void> {
  for (let i = 0; count === 0 || i < count; i++) {
    const answer = await (protocol === 'udp' ? overUdp(host, port) : overTcp(host, port));
    process.stdout.write(`${Date.now()} ${answer ?? '-'}\n`);
    if (every > 0) await pause(every);
  }
}

function overTcp(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    let answer = '';
    const socket = connect({ host, port }, () => void socket.write('bye\n'));
    const end = (said: string | null): void => {
      socket.destroy();
      resolve(said);
    };
    socket.setTimeout(LIMIT_MS, () => end(null));
    socket.on('data', (part: Buffer) => {
      answer += part.toString();
    });
    socket.on('end', () => end(answer === '' ? null : answer));
    socket.on('error', () => end(null));
  });
}

function overUdp(host: string, port: number): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
    const end = (said: string | null): void => {
      clearTimeout(timer);
      socket.close();
      resolve(said);
    };
    const timer = setTimeout(() => end(null), LIMIT_MS);
    socket.on('message', (answer) => end(answer.toString()));
    socket.on('error', () => end(null));
    socket.send('?', port, host);
  });
}

function hold(host: string, port: number): void {
  const socket = connect({ host, port }, () => process.stdout.write('ready\n'));
  socket.on('data', (part: Buffer) => process.stdout.write(part));
  socket.on('error', () => process.exit(1));
  socket.on('close', () => process.exit(0));
  createInterface({ input: process.stdin }).on('line', (line) => socket.write(`${line}\n`));
}
