/**
 * Asks for names without end, in the namespace that it is started in: `dns-asker-process.ts SERVER PERIOD_MS NAME…`. Each name is asked for
 * (A, by UDP) once a period, unless its last question still waits. Prints `[number of the name, sent, received, addresses]` for each
 * answer, epoch ms; addresses are null when there was none, or SERVFAIL.
 */
import { createSocket } from 'node:dgram';
import { decode, encode } from 'dns-packet';

/** A question is lost then. */
const LOST_MS = 3000;
const NXDOMAIN = 3;

const [server = '', period = '100', ...names] = process.argv.slice(2);
const waiting = new Map<number, { readonly of: number; readonly sent: number }>();
let id = 0;

const told = (of: number, sent: number, ips: readonly string[] | null): void => {
  process.stdout.write(`${JSON.stringify([of, sent, Date.now(), ips])}\n`);
};

const socket = createSocket('udp4');
socket.on('message', (message) => {
  const reply = decode(message);
  const asked = waiting.get(reply.id ?? -1);
  if (asked === undefined) return;
  waiting.delete(reply.id ?? -1);
  const rcode = message.readUInt16BE(2) & 15;
  const ips = (reply.answers ?? []).flatMap((record) => (record.type === 'A' ? [record.data] : []));
  told(asked.of, asked.sent, rcode === 0 || rcode === NXDOMAIN ? ips : null);
});
socket.on('error', () => undefined);
socket.connect(53, server, () => {
  const busy = (of: number): boolean => waiting.values().some((asked) => asked.of === of);
  let next = 0;
  setInterval(() => {
    for (const [lost, { of, sent }] of waiting)
      if (Date.now() - sent > LOST_MS) {
        waiting.delete(lost);
        told(of, sent, null);
      }
    const of = next++ % names.length;
    if (busy(of)) return;
    id = (id + 1) & 0xffff;
    waiting.set(id, { of, sent: Date.now() });
    const questions = [{ type: 'A' as const, name: names[of] ?? '' }];
    socket.send(encode({ type: 'query', id, flags: 0x0100, questions }), () => undefined);
  }, Number(period) / names.length);
});
