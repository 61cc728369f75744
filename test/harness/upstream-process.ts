/**
 * A resolver of the world: `node upstream-process.ts ADDRESS JSON` answers questions by UDP with what the JSON says: name to records, each
 * [type, data]. An alias is answered with what it leads to. Runs in the namespace that it is started in; says "ready".
 */
import { createSocket } from 'node:dgram';
import { type Answer, decode, encode } from 'dns-packet';

const [address = '', json = '{}'] = process.argv.slice(2);
const zone = JSON.parse(json) as Record<string, [string, string][]>;

function answersTo(name: string, type: string): Answer[] {
  return (zone[name.toLowerCase()] ?? []).flatMap(([kind, data]): Answer[] => {
    if (kind === 'CNAME') return [{ name, type: 'CNAME', ttl: 30, data }, ...answersTo(data, type)];
    return kind === type ? [{ name, type: kind as 'A', ttl: 30, data }] : [];
  });
}

const socket = createSocket('udp4');
socket.on('message', (message, from) => {
  const { id = 0, questions = [] } = decode(message);
  const [asked] = questions;
  if (asked === undefined) return;
  const answers = answersTo(asked.name, asked.type);
  const reply = encode({ type: 'response', id, flags: 0x0180, questions: [asked], answers });
  socket.send(reply, from.port, from.address);
});
socket.bind(53, address, () => process.stdout.write('ready\n'));
