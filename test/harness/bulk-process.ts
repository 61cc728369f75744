/**
 * Bulk and errors, in the namespace that it is started in: `node bulk-process.ts give PORT` gives each caller 300,000 bytes; `take HOST PORT`
 * prints how many it gets; `collect PORT` prints how many its first caller sends; `send HOST PORT` sends them; `refused HOST PORT` prints what a
 * connected UDP socket hears. Servers print "ready" first.
 */
import { createSocket } from 'node:dgram';
import { connect, createServer, isIPv6 } from 'node:net';

const BYTES = 300_000;
/** For whoever hears nothing. */
const LIMIT_MS = 20_000;

const [what = '', host = '', port = ''] = process.argv.slice(2);
const say = (text: string | number): void => void process.stdout.write(`${text}\n`);
const late = setTimeout(() => {
  say('nothing');
  process.exit(0);
}, LIMIT_MS);

if (what === 'give') {
  clearTimeout(late);
  createServer((socket) => {
    socket.on('error', () => undefined);
    socket.end(Buffer.alloc(BYTES));
  }).listen({ host: '::', port: Number(host) }, () => say('ready'));
} else if (what === 'take') {
  let got = 0;
  const socket = connect({ host, port: Number(port) });
  socket.on('data', (part) => (got += part.length));
  socket.on('error', () => undefined);
  socket.on('close', () => end(got));
} else if (what === 'collect') {
  createServer((socket) => {
    let got = 0;
    socket.on('data', (part) => (got += part.length));
    socket.on('error', () => undefined);
    socket.on('close', () => end(got));
  }).listen({ host: '::', port: Number(host) }, () => say('ready'));
} else if (what === 'send') {
  const socket = connect({ host, port: Number(port) }, () => socket.end(Buffer.alloc(BYTES)));
  socket.on('error', () => undefined);
  socket.on('close', () => end('sent'));
} else {
  const socket = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  const again = setInterval(() => socket.send('?'), 200);
  socket.on('error', (error: NodeJS.ErrnoException) => {
    clearInterval(again);
    end(error.code ?? error.message);
  });
  socket.connect(Number(port), host, () => socket.send('?'));
}

function end(said: string | number): void {
  say(said);
  process.exit(0);
}
