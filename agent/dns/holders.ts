/** Who has names on a network, and what a name is. Pure. */
import { formatIp, tryParseIp } from '../../lib/addr.ts';
import type { Endpoint } from '../../lib/model.ts';
import type { LocalEndpoint } from '../contract.ts';

/** Of a label, and of a whole name as text (RFC 1035 §2.3.4: 255 bytes on the wire). */
const MAX_LABEL = 63;
const MAX_NAME = 253;
/** Digits of a container's id by which Docker lets people call it. */
const SHORT_ID = 12;

/** Who has a name on a network. */
export interface Holder {
  /** The same for all endpoints of a container: it answers once, whatever networks it shares with who asks. */
  readonly owner: string;
  /** What an address is resolved to: the container's name, as written. Empty when no DNS name can be made of it. */
  readonly name: string;
  /** The container's short id; empty: it is none, or has not got it as a name. */
  readonly short: string;
  /** Canonical, IPv4 first. */
  readonly ips: readonly string[];
  /** On this host. */
  readonly own: boolean;
}

/** What an endpoint brings. */
export interface Entry {
  readonly of: LocalEndpoint | Endpoint;
  readonly holder: Holder;
  /** Lower-case, each once. */
  readonly names: readonly string[];
}

/**
 * @param name empty while it has none
 * @param own on this host
 */
export function entryOf(
  of: LocalEndpoint | Endpoint,
  name: string,
  container: { readonly id: string } | undefined,
  ips: readonly string[],
  own: boolean,
): Entry {
  const short = container === undefined ? [] : [container.id.slice(0, SHORT_ID)];
  const holder = {
    owner: container === undefined ? of.id : container.id,
    name: [name, ...short].find(isDnsName) ?? '',
    short: short.find(isDnsName) ?? '',
    ips: canonical(ips),
    own,
  };
  const names = new Set([name, ...of.aliases, ...short].map(normalName).filter(isDnsName));
  return { of, holder, names: [...names] };
}

/** What is no address is left out. */
export const canonical = (ips: readonly string[]): string[] =>
  ips
    .map(tryParseIp)
    .filter((ip) => ip !== null)
    .map(formatIp);

export const byFirstIp = (a: Holder, b: Holder): number => {
  const [x = '', y = ''] = [a.ips[0], b.ips[0]];
  return x < y ? -1 : x > y ? 1 : 0;
};

/** Names are compared without regard to case and to a dot at the end. */
export const normalName = (name: string): string => (name.endsWith('.') ? name.slice(0, -1) : name).toLowerCase();

/** True when DNS can carry it: labels of 1 to 63 bytes, 253 together. */
export function isDnsName(name: string): boolean {
  if (Buffer.byteLength(name) > MAX_NAME) return false;
  return name.split('.').every((label) => label !== '' && Buffer.byteLength(label) <= MAX_LABEL);
}
