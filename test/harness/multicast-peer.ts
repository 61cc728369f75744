/**
 * Run inside a container's network namespace: listens to UDP of a group (IPv4 or IPv6, or the word "broadcast"), or sends it.
 *   listen GROUP PORT           "joined", then a line "got N" whenever N packets have come
 *   send GROUP PORT COUNT GAP   COUNT packets, a pause of GAP milliseconds after every ten (0: as fast as it goes), then "sent"
 */
import dgram from 'node:dgram';
import { networkInterfaces } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';

const [what, said = '', portText = '', countText = '0', gapText = '1'] = process.argv.slice(2);
const port = Number(portText);
const v6 = said.includes(':');
const broadcast = said === 'broadcast';
const [name = 'eth0', addresses = []] = Object.entries(networkInterfaces()).find(([n]) => n !== 'lo') ?? [];
const ours = addresses.find((a) => a.family === (v6 ? 'IPv6' : 'IPv4'));
const own = ours?.address ?? '';
const group = broadcast ? lastOf(own, ours?.netmask ?? '') : said;
const socket = dgram.createSocket({ type: v6 ? 'udp6' : 'udp4', reuseAddr: true, recvBufferSize: 4 << 20 });

if (what === 'listen') {
  let got = 0;
  socket.on('message', () => console.log(`got ${++got}`));
  socket.bind(port, () => {
    if (!broadcast) socket.addMembership(group, v6 ? `::%${name}` : own);
    console.log('joined');
  });
} else {
  const sendAll = async (): Promise<void> => {
    if (broadcast) socket.setBroadcast(true);
    else {
      socket.setMulticastTTL(4);
      socket.setMulticastInterface(v6 ? `::%${name}` : own);
    }
    const send = (): Promise<void> =>
      new Promise((resolve, reject) => {
        socket.send('x', port, v6 ? `${group}%${name}` : group, (error) =>
          error === null ? resolve() : reject(error),
        );
      });
    for (let i = 1; i <= Number(countText); i++) {
      await send();
      if (i % 10 === 0 && Number(gapText) > 0) await delay(Number(gapText));
    }
    console.log('sent');
    socket.close();
  };
  socket.bind(0, () => void sendAll());
}

/** The broadcast address of a subnet. */
function lastOf(address: string, mask: string): string {
  const masks = mask.split('.').map(Number);
  return address
    .split('.')
    .map((byte, i) => Number(byte) | (~(masks[i] ?? 0) & 255))
    .join('.');
}
