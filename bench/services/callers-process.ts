/**
 * `callers-process.ts HOST PORT EVERY`: a new TCP connection every EVERY ms, however those before it fare, until its input ends. Prints a line
 * for each when it is over: "BEGUN ANSWER", epoch milliseconds and "-" where nobody answered within a second. Runs in the namespace that it is started in.
 */
import { connect } from 'node:net';

const LIMIT_MS = 1_000;
const [host = '', port = '', every = ''] = process.argv.slice(2);

const timer = setInterval(call, Number(every));
process.stdin.resume().on('end', () => {
  clearInterval(timer);
  setTimeout(() => process.exit(0), LIMIT_MS + 100);
});

function call(): void {
  const begun = Date.now();
  let answer = '';
  let over = false;
  const socket = connect({ host, port: Number(port) }, () => void socket.write('bye\n'));
  const end = (said: string): void => {
    if (!over) process.stdout.write(`${begun} ${said || '-'}\n`);
    over = true;
    socket.destroy();
  };
  socket.setTimeout(LIMIT_MS, () => end(''));
  socket.on('data', (part: Buffer) => {
    answer += part.toString();
  });
  socket.on('end', () => end(answer));
  socket.on('error', () => end(''));
}
