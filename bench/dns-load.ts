/**
 * The load of `bench/dns.ts`, a process of its own: `dns-load.ts PORT RATE SECONDS CONTAINERS SERVICES`. Queries for names, aliases, addresses
 * and names that are not there; with SERVICES above 0, for services as well. RATE 0 keeps 64 of them on their way.
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { encode } from 'dns-packet';

export interface LoadResult {
  /** The first half second is left out of all figures. */
  readonly sent: number;
  /** Of each answered query, ms from sending to receiving. */
  readonly latencies: readonly number[];
  /** Replies with another rcode than there should be. */
  readonly wrong: number;
  readonly seconds: number;
}

const SOCKETS = 4;
const AT_ONCE = 64;
const NXDOMAIN = 3;
/** Not measured: until both processes have compiled what they run, ms. */
const WARM_UP_MS = 500;
/** How long the last answers may take, ms. */
const LAST_MS = 300;

if (process.send !== undefined) await main(process.argv.slice(2).map(Number));

async function main([port = 0, rate = 0, seconds = 1, containers = 1, services = 0]: readonly number[]): Promise<void> {
  const queries = Array.from({ length: 10_000 }, (_, i) => question(i, containers, services));
  const sentAt = new Float64Array(0x1_0000);
  const sockets: Socket[] = [];
  const latencies: number[] = [];
  let since = performance.now();
  let [sent, wrong, ended, warm] = [0, 0, false, 0];
  const send = (): void => {
    const id = sent++ & 0xffff;
    const { bytes } = queries[id % queries.length]!;
    bytes.writeUInt16BE(id, 0);
    sentAt[id] = performance.now();
    // Before the next query with the same bytes is made, the kernel has these.
    sockets[id % SOCKETS]!.send(bytes);
  };
  const received = (reply: Buffer): void => {
    const id = reply.readUInt16BE(0);
    if (sentAt[id]! >= since + WARM_UP_MS) latencies.push(performance.now() - sentAt[id]!);
    else warm++;
    if ((reply.readUInt16BE(2) & 15) !== queries[id % queries.length]!.rcode) wrong++;
    if (rate === 0 && !ended) send();
  };
  for (let i = 0; i < SOCKETS; i++) {
    const socket = createSocket('udp4').on('message', received);
    socket.connect(port, '127.0.0.1');
    await once(socket, 'connect');
    sockets.push(socket);
  }
  since = performance.now();
  if (rate === 0) for (let i = 0; i < AT_ONCE; i++) send();
  const timer = setInterval(() => {
    const due = rate === 0 ? 0 : ((performance.now() - since) * rate) / 1000;
    while (sent < due) send();
    if (performance.now() - since < 1000 * seconds) return;
    clearInterval(timer);
    ended = true;
    const took = (performance.now() - since - WARM_UP_MS) / 1000;
    setTimeout(() => {
      for (const socket of sockets) socket.close();
      process.send!({ sent: sent - warm, latencies, wrong, seconds: took } satisfies LoadResult, () =>
        process.disconnect(),
      );
    }, LAST_MS);
  }, 1);
}

/** @returns `rcode` that the reply should have */
function question(i: number, containers: number, services: number): { readonly bytes: Buffer; readonly rcode: number } {
  const n = (i * 7919) % containers;
  const plain = [
    { type: 'A', name: `c${n}` },
    { type: 'A', name: `C${n}.web` },
    { type: 'A', name: `group${n % 100}` },
    { type: 'AAAA', name: `c${n}.web.weft` },
    { type: 'PTR', name: `${n & 255}.${1 + (n >> 8)}.128.10.in-addr.arpa` },
  ] as const;
  const served = [
    { type: 'A', name: `virtual${n % services}.web` },
    { type: 'AAAA', name: `virtual${n % services}` },
    { type: 'SRV', name: `_80._tcp.virtual${n % services}` },
    { type: 'A', name: `headless${n % 20}` },
    { type: 'SRV', name: `_80._tcp.headless${n % 20}.web.weft` },
  ] as const;
  const known = [...plain, ...(services > 0 ? served : [])];
  const at = i % (known.length + 1);
  const asked = known[at] ?? { type: 'A', name: `nobody${n}.web.weft` };
  return {
    bytes: encode({ type: 'query', id: 0, flags: 0x0100, questions: [asked] }),
    rcode: at < known.length ? 0 : NXDOMAIN,
  };
}
