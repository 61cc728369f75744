/** What of a host's endpoints its blocks describe, and what needs an entry of its own. Pure. */
import {
  blockSpace,
  byBase,
  type Cidr,
  containsCidr,
  containsIp,
  isIp4,
  lengthOf,
  lowOf,
  ofFamily,
  parseCidr,
  parseIp,
} from '../../lib/addr.ts';
import { aliasMac, isNear, parseMac } from '../../lib/mac.ts';
import type { Block, Endpoint } from '../../lib/model.ts';
import type { LocalEndpoint } from '../contract.ts';
import type { Entry, LocalPort, Remote } from '../flows/model.ts';

/** A local endpoint's addresses as its port has them. */
export function addressesOf(e: Pick<LocalEndpoint, 'ip' | 'ip6' | 'prefix6'>): Pick<LocalPort, 'ip' | 'ip6' | 'alias'> {
  const ip6 = e.ip6 === '' ? null : parseIp(e.ip6);
  const near = ip6 !== null && isNear(ip6, e.prefix6);
  return { ip: e.ip === '' ? null : lowOf(parseIp(e.ip)), ip6, alias: near ? aliasMac(ip6) : null };
}

/** @param subnet6 of the network; null = it has none */
export function behindHost(
  blocks: readonly Block[],
  endpoints: readonly Endpoint[],
  subnet6: Cidr | null,
): Pick<Remote, 'blocks' | 'blocks6' | 'entries' | 'withheld'> {
  const cidrs = blocks.map((b) => parseCidr(b.cidr)).sort(byBase);
  const own4 = cidrs.filter((c) => isIp4(c.base));
  // Of others the last 32 bits do not tell the address.
  const own6 = cidrs.filter((c) => subnet6 !== null && containsCidr(blockSpace(subnet6), c));
  const entries: Entry[] = [];
  const withheld: bigint[] = [];
  for (const e of endpoints) {
    const mac = parseMac(e.mac);
    const told = (ip: bigint | null, own: readonly Cidr[]): boolean =>
      ip === null || (!e.givenMac && own.some((block) => containsIp(block, ip)));
    const [ip4, ip6] = [firstOf(e, 4), firstOf(e, 6)];
    const [told4, told6] = [told(ip4, own4), told(ip6, own6)];
    if (!told4 || !told6) {
      const ip = told4 || ip4 === null ? null : lowOf(ip4);
      entries.push({ mac, ip, ip6: told6 ? null : ip6, express: e.express });
    } else if (!e.express) withheld.push(mac);
    if (ip6 !== null && told6 && !e.express && aliasMac(ip6) !== mac) withheld.push(aliasMac(ip6));
  }
  return {
    blocks: own4.map((c) => ({ base: lowOf(c.base), prefix: lengthOf(c) })),
    blocks6: own6,
    entries: entries.sort((a, b) => compare(a.mac, b.mac)),
    withheld: withheld.sort(compare),
  };
}

function firstOf(e: Endpoint, family: 4 | 6): bigint | null {
  const [text] = ofFamily(e.ips, family);
  return text === undefined ? null : parseIp(text);
}

const compare = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0);
