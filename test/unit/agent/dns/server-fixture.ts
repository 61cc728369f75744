/** A resolver on loopback, and clients that speak to it by UDP and TCP. */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect } from 'node:net';
import { type DecodedPacket, decode, encode, type Packet } from 'dns-packet';
import type { Asker } from '../../../../agent/dns/answer.ts';
import { type DnsCounters, type HandlerOptions, makeHandler } from '../../../../agent/dns/handle.ts';
import { DnsServer, type DnsServerOptions, type Ports } from '../../../../agent/dns/server.ts';
import { framed } from '../../../../agent/dns/wire.ts';
import { systemClock } from '../../../../lib/clock.ts';
import { silentLog } from '../../../../lib/log.ts';
import { indexOf, local, network, remote } from './names-fixture.ts';

export const CROWD = 100;
const many = Array.from({ length: CROWD }, (_, i) =>
  remote({ network: 'web', name: `m${i}`, ips: [`10.128.1.${i + 2}`], aliases: ['many'] }),
);
export const INDEX = indexOf(
  [network('web')],
  [local({ network: 'web', name: 'one', ips: ['10.128.0.2', 'fd00:1::2'], aliases: ['api.example.org'] })],
  many,
);

export interface Counted extends DnsCounters {
  readonly seen: string[];
}

export const counters = (): Counted => {
  const seen: string[] = [];
  return {
    seen,
    query: (transport, outcome) => void seen.push(`${transport} ${outcome}`),
    dropped: (transport, why) => void seen.push(`${transport} dropped ${why}`),
  };
};

export interface Running extends AsyncDisposable {
  readonly server: DnsServer;
  readonly ports: Ports;
  readonly counted: Counted;
}

export async function running(
  handler: Partial<HandlerOptions> = {},
  options: Partial<DnsServerOptions> = {},
): Promise<Running> {
  const counted = counters();
  const asker = (): Asker => ({ networks: ['web'] });
  const server = new DnsServer({
    address: '127.0.0.1',
    port: 0,
    clock: systemClock(),
    log: silentLog(),
    counters: counted,
    handler: makeHandler({
      index: () => INDEX,
      asker,
      forward: () => Promise.resolve(null),
      order: { random: () => 0 },
      counters: counted,
      clock: systemClock(),
      ...handler,
    }),
    ...options,
  });
  server.start();
  const ports = await server.up();
  return { server, ports, counted, [Symbol.asyncDispose]: () => server.close() };
}

export const query = (name: string, type: string, more: Partial<Packet> = {}): Buffer =>
  encode({
    type: 'query',
    id: 4711,
    flags: 0x0100,
    questions: [{ type: type as 'A', class: 'IN', name }],
    ...more,
  });

export const edns = (udpPayloadSize: number, ednsVersion = 0): Partial<Packet> => ({
  additionals: [
    { type: 'OPT', name: '.', udpPayloadSize, ednsVersion, extendedRcode: 0, flags: 0, flag_do: false, options: [] },
  ],
});

export interface Reply extends DecodedPacket {
  readonly rcode?: string;
}

/** Sends datagrams one after the other, and resolves with the first thing that comes back. */
export async function udp(port: number, ...messages: readonly Uint8Array[]): Promise<Reply> {
  return decode(await udpBytes(port, ...messages));
}

export async function udpBytes(port: number, ...messages: readonly Uint8Array[]): Promise<Buffer> {
  const socket = createSocket('udp4');
  try {
    for (const message of messages) socket.send(message, port, '127.0.0.1');
    const [reply] = (await once(socket, 'message', { signal: AbortSignal.timeout(10_000) })) as [Buffer];
    return reply;
  } finally {
    socket.close();
  }
}

/** Sends bytes over a connection, then its end; resolves with all messages that came back. */
export async function tcp(port: number, ...chunks: readonly Uint8Array[]): Promise<Reply[]> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => undefined);
  const received: Buffer[] = [];
  socket.on('data', (chunk) => received.push(chunk));
  for (const chunk of chunks) socket.write(chunk);
  socket.end();
  await once(socket, 'close', { signal: AbortSignal.timeout(10_000) });
  const replies: Reply[] = [];
  for (let rest = Buffer.concat(received); rest.length >= 2; rest = rest.subarray(2 + rest.readUInt16BE(0)))
    replies.push(decode(rest.subarray(2, 2 + rest.readUInt16BE(0))));
  return replies;
}

export const tcpQuery = (name: string, type: string, more: Partial<Packet> = {}): Buffer =>
  framed(query(name, type, more));
