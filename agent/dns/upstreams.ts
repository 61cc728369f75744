/**
 * The resolvers that names of the outside are asked from: given ones, or those of a resolv.conf, which others write: it is looked at
 * again when it may have changed, at most once a second, and only when there is something to ask. (A watch on it would be lost
 * each time that it is replaced.)
 */
import { readFile, stat } from 'node:fs/promises';
import { isIP } from 'node:net';
import type { Clock } from '../../lib/clock.ts';

export interface Upstream {
  /** Without brackets; IPv6 may have a zone. */
  readonly address: string;
  readonly port: number;
}

export type Upstreams = () => Promise<readonly Upstream[]>;

const DNS_PORT = 53;
/** As many as resolv.conf(5) has. */
const MAX_UPSTREAMS = 3;
const LOOK_MS = 1000;

/** The nameserver lines of a resolv.conf; what is no address is left out. Pure. */
export const nameservers = (text: string): string[] =>
  text.split('\n').flatMap((line) => {
    const [, address = ''] = /^\s*nameserver\s+(\S+)/.exec(line) ?? [];
    return isIP(address) === 0 ? [] : [address];
  });

/** Those of them that are asked. Pure. */
export const parseResolvConf = (text: string): readonly Upstream[] =>
  nameservers(text)
    .slice(0, MAX_UPSTREAMS)
    .map((address) => ({ address, port: DNS_PORT }));

/** @param path e.g. /etc/resolv.conf; while it cannot be read, there are no resolvers */
export function resolvConf(path: string, clock: Clock): Upstreams {
  let known: Promise<readonly Upstream[]> = Promise.resolve([]);
  let mark = '';
  let lookedAt = Number.NEGATIVE_INFINITY;
  const read = async (before: readonly Upstream[]): Promise<readonly Upstream[]> => {
    try {
      const { mtimeNs, ino, size } = await stat(path, { bigint: true });
      const now = `${mtimeNs}/${ino}/${size}`;
      if (now === mark) return before;
      const upstreams = parseResolvConf(await readFile(path, 'utf8'));
      mark = now;
      return upstreams;
    } catch {
      mark = '';
      return [];
    }
  };
  return () => {
    if (clock.monotonic() - lookedAt >= LOOK_MS) {
      lookedAt = clock.monotonic();
      known = known.then(read);
    }
    return known;
  };
}
