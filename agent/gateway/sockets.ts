/** Ports of the host that processes listen on, as the kernel's tables have them (proc(5), /proc/net/tcp). Pure but for readListening. */
import { readFile } from 'node:fs/promises';
import type { PublishedPort } from '../../lib/model.ts';

export interface Listening {
  readonly protocol: string;
  /** Every address of the family. */
  readonly any: boolean;
  readonly family: 4 | 6;
  readonly port: number;
}

export const SOCKET_TABLES = ['tcp', 'tcp6', 'udp', 'udp6'] as const;
/** States: a TCP socket that listens, a UDP socket without a peer (include/net/tcp_states.h). */
const STATE = { tcp: '0A', udp: '07' } as const;

/** @param text one of SOCKET_TABLES; lines that are not as expected are left out */
export function parseListening(table: (typeof SOCKET_TABLES)[number], text: string): Listening[] {
  const protocol = table.startsWith('tcp') ? 'tcp' : 'udp';
  const out: Listening[] = [];
  for (const line of text.split('\n').slice(1)) {
    const m = /^\s*\d+: ([0-9A-F]{8,32}):([0-9A-F]{4}) \S+ ([0-9A-F]{2}) /.exec(line);
    if (m === null || m[3] !== STATE[protocol]) continue;
    const any = /^0+$/.test(m[1] ?? '');
    out.push({ protocol, any, family: table.endsWith('6') ? 6 : 4, port: Number.parseInt(m[2] ?? '', 16) });
  }
  return out;
}

export async function readListening(): Promise<Listening[]> {
  const texts = SOCKET_TABLES.map(async (table) =>
    parseListening(table, await readFile(`/proc/self/net/${table}`, 'utf8').catch(() => '')),
  );
  return (await Promise.all(texts)).flat();
}

/** Whether nobody listens on a port, on whatever address. Who has every IPv6 address mostly has IPv4 too (ipv6(7), IPV6_V6ONLY). */
export function isFree(asked: Omit<PublishedPort, 'port'>, listening: readonly Listening[]): boolean {
  const family = asked.hostIp.includes(':') ? 6 : 4;
  return !listening.some(
    (l) =>
      l.protocol === asked.protocol &&
      l.port === asked.hostPort &&
      (l.family === family || (l.any && l.family === 6 && family === 4)),
  );
}
