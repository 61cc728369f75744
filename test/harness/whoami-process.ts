/**
 * Who is seen to call: `node whoami-process.ts serve PORT [BYTES]` answers every TCP connection and UDP datagram, of both families, with
 * the address that it comes from, in TCP filled up with spaces to that size; `ask tcp|udp HOST PORT [FROM]` prints the answer, FROM is the
 * port that it asks from. Runs in the namespace that it is started in.
 */
import { createSocket } from 'node:dgram';
import { connect, createServer, isIPv6 } from 'node:net';

const LIMIT_MS = 3_000;
const plain = (address: string | undefined): string => (address ?? '').replace(/^::ffff:/, '');

const [what = '', ...rest] = process.argv.slice(2);
if (what === 'serve') serve(Number(rest[0]), Number(rest[1] ?? 0));
else ask(rest[0] ?? '', rest[1] ?? '', Number(rest[2]), Number(rest[3] ?? 0));

function serve(port: number, bytes: number): void {
  createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end(plain(socket.remoteAddress).padEnd(bytes));
  }).listen({ port, host: '::' }, () => {
    const udp = createSocket({ type: 'udp6' });
    udp.on('message', (_, from) => udp.send(plain(from.address), from.port, from.address));
    udp.bind(port, '::', () => process.stdout.write('ready\n'));
  });
}

function ask(protocol: string, host: string, port: number, from: number): void {
  setTimeout(() => {
    process.stderr.write('no answer\n');
    process.exit(1);
  }, LIMIT_MS).unref();
  if (protocol === 'udp') {
    const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
    socket.on('message', (answer) => done(answer.toString()));
    socket.on('error', fail);
    // Connected: it hears that nobody listens.
    socket.on('connect', () => socket.send('?'));
    socket.bind(from, () => socket.connect(port, host));
    return;
  }
  let answer = '';
  const socket = connect({ host, port });
  socket.on('data', (part: Buffer) => {
    answer += part.toString();
  });
  socket.on('end', () => done(answer));
  socket.on('error', fail);
}

function done(answer: string): void {
  process.stdout.write(answer, () => process.exit(0));
}

function fail(error: Error): void {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
}
