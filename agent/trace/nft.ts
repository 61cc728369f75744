/**
 * What the host's packet filter (table `inet weft`, gateway/nft.ts) does with a packet, from its real listing (`nft -j list table`,
 * libnftables-json(5)): chains of a hook in turn, rules in turn, until one decides. A rule with something in it that is not known here is
 * passed over and named: nothing is guessed. Pure.
 */
import { cidrOf, containsIp, familyOfText, parseIp, tryParseIp } from '../../lib/addr.ts';
import type { TracePacket } from '../../lib/model.ts';
import { is6 } from './packet.ts';

export interface NftPacket {
  readonly packet: TracePacket;
  /** Empty: none (yet). */
  readonly iif: string;
  readonly oif: string;
  /** The destination is an address of the host. */
  readonly toLocal: boolean;
  /** Its connection has been led to another destination. */
  readonly dnat: boolean;
  /** Kind of the link that it leaves by ("bridge"); empty: a plain one, or not known. */
  readonly oifKind?: string;
}

export type NftVerdict =
  | { readonly kind: 'accept' | 'drop' | 'reject' }
  | { readonly kind: 'dnat'; readonly ip: string; readonly port: number | null }
  /** Null: the address of the interface that it leaves by. */
  | { readonly kind: 'snat'; readonly ip: string | null };

export interface NftDecision {
  readonly chain: string;
  readonly verdict: NftVerdict;
  /** The rule, in nft's words as far as they are known here. */
  readonly rule: string;
}

interface Json {
  readonly [key: string]: Json;
}
type Any = Json | string | number | boolean | null | readonly Any[];

interface Chain {
  readonly name: string;
  readonly hook: string;
  readonly prio: number;
  readonly policy: string;
}

export class NftTable {
  readonly #chains: Chain[] = [];
  readonly #rules: { readonly chain: string; readonly expr: readonly Any[] }[] = [];
  /** Elements by name of set or map. */
  readonly #sets = new Map<string, readonly Any[]>();
  /** Rules with something in them that is not known here. */
  readonly unread: string[] = [];

  /** @param listing `nft -j list table inet weft` @throws SyntaxError */
  constructor(listing: string) {
    const all = (JSON.parse(listing) as { nftables?: readonly Record<string, Record<string, Any>>[] }).nftables ?? [];
    for (const item of all) {
      const { chain, rule, set, map } = item;
      if (chain !== undefined && typeof chain['hook'] === 'string')
        this.#chains.push({
          name: textOf(chain['name']),
          hook: chain['hook'],
          prio: Number(chain['prio']),
          policy: textOf(chain['policy'] ?? 'accept'),
        });
      if (rule !== undefined) this.#rules.push({ chain: textOf(rule['chain']), expr: listOf(rule['expr']) });
      const named = set ?? map;
      if (named !== undefined) this.#sets.set(textOf(named['name']), listOf(named['elem']));
    }
    this.#chains.sort((a, b) => a.prio - b.prio);
  }

  /** What the chains of a hook decide; more than one, where one translates and another lets pass. */
  run(hook: string, p: NftPacket): NftDecision[] {
    const decisions: NftDecision[] = [];
    let now = p;
    for (const chain of this.#chains.filter((c) => c.hook === hook)) {
      const found = this.#chain(chain, now);
      if (found === null) {
        if (chain.policy !== 'drop') continue;
        return [...decisions, { chain: chain.name, verdict: { kind: 'drop' }, rule: 'the policy of the chain' }];
      }
      decisions.push(found);
      if (found.verdict.kind === 'drop' || found.verdict.kind === 'reject') return decisions;
      now = { ...now, packet: translated(now.packet, found.verdict), dnat: now.dnat || found.verdict.kind === 'dnat' };
    }
    return decisions;
  }

  #chain(chain: Chain, p: NftPacket): NftDecision | null {
    for (const { chain: name, expr } of this.#rules) {
      if (name !== chain.name) continue;
      try {
        const verdict = this.#rule(expr, p);
        if (verdict !== null) return { chain: name, verdict, rule: ruleText(expr) };
      } catch (error) {
        if (!(error instanceof Unread)) throw error;
        this.unread.push(`${name}: ${error.message}`);
      }
    }
    return null;
  }

  /** @returns null: it does not match, or does not decide */
  #rule(expr: readonly Any[], p: NftPacket): NftVerdict | null {
    for (const statement of expr) {
      const [name = '', value] = Object.entries(objectOf(statement))[0] ?? [];
      const body = objectOf(value);
      switch (name) {
        case 'match':
          if (!this.#matches(body, p)) return null;
          break;
        case 'accept':
        case 'drop':
        case 'reject':
          return { kind: name };
        case 'masquerade':
          return { kind: 'snat', ip: null };
        case 'snat':
        case 'dnat': {
          const to = this.#target(body, p);
          if (to === null) return null;
          return name === 'snat' ? { kind: 'snat', ip: to.ip } : { kind: 'dnat', ip: to.ip, port: to.port };
        }
        case 'counter':
        case 'log':
        case 'comment':
          break;
        default:
          throw new Unread(`${name} in ${ruleText(expr)}`);
      }
    }
    return null;
  }

  #matches(body: Json, p: NftPacket): boolean {
    const left = this.#value(body['left'] as Any, p);
    // It is of another family or protocol: nft asks for that first.
    if (left === null) return false;
    const [op, right] = [textOf(body['op'] as Any), body['right'] as Any];
    const held = this.#holds(left, right);
    return op === '!=' ? !held : held;
  }

  #holds(left: Any, right: Any): boolean {
    if (typeof right === 'string' && right.startsWith('@')) return this.#elements(right).some((e) => fits(left, e));
    if (Array.isArray(right)) return right.some((one: Any) => fits(left, one));
    const set = objectOf(right)['set'] as Any | undefined;
    if (set !== undefined) return listOf(set).some((one) => fits(left, one));
    return fits(left, right);
  }

  #elements(name: string): readonly Any[] {
    const found = this.#sets.get(name.slice(1));
    if (found === undefined) throw new Unread(`the set ${name} is not there`);
    return found.map((e) => (objectOf(objectOf(e)['elem'] as Any)['val'] as Any | undefined) ?? e);
  }

  /** An address, perhaps by a map; null: the map does not have it. */
  #target(body: Json, p: NftPacket): { ip: string; port: number | null } | null {
    const family = textOf(body['family'] ?? '');
    if (family !== '' && (family === 'ip6') !== is6(p.packet)) return null;
    let addr = body['addr'] as Any;
    const map = objectOf(addr)['map'] as Json | undefined;
    if (map !== undefined) {
      const key = this.#value(map['key'] as Any, p);
      if (key === null) return null;
      const data = map['data'] as Any;
      const pairs = typeof data === 'string' ? this.#elements(data) : listOf(objectOf(data)['set'] as Any);
      const pair = pairs.find((one) => fits(key, listOf(one)[0] ?? null));
      if (pair === undefined) return null;
      addr = listOf(pair)[1] ?? null;
    }
    const parts = partsOf(addr);
    const port = parts[1] ?? (body['port'] as Any | undefined);
    return { ip: textOf(parts[0]), port: typeof port === 'number' ? port : null };
  }

  /** What an expression is of this packet; null: it has no such thing. */
  #value(expr: Any, { packet, ...p }: NftPacket): Any {
    const [name = '', value] = Object.entries(objectOf(expr))[0] ?? [];
    const body = objectOf(value);
    if (name === 'concat') {
      const parts = listOf(value as Any).map((one) => this.#value(one, { packet, ...p }));
      return parts.includes(null) ? null : { concat: parts as unknown as Json };
    }
    const key = textOf(body['key'] ?? body['field'] ?? body['result'] ?? '');
    switch (`${name} ${key}`) {
      case 'meta iifname':
        return p.iif;
      case 'meta oifname':
        return p.oif;
      case 'meta oifkind':
        return p.oifKind ?? '';
      case 'meta nfproto':
        return is6(packet) ? 'ipv6' : 'ipv4';
      case 'meta l4proto':
        return L4[packet.protocol] ?? packet.protocol;
      case 'fib type':
        return p.toLocal ? 'local' : 'unicast';
      case 'ct status':
        return p.dnat ? 'dnat' : 'none';
      case 'ct state':
        return packet.established ? 'established' : 'new';
    }
    if (name !== 'payload') throw new Unread(`${name} ${key}`);
    return payload(textOf(body['protocol']), key, packet);
  }
}

/** Something that this interpreter does not know. */
class Unread extends Error {}

const L4: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 58: 'ipv6-icmp', 132: 'sctp' };

function payload(protocol: string, field: string, p: TracePacket): Any {
  switch (protocol) {
    case 'ip':
    case 'ip6':
      if ((protocol === 'ip6') !== is6(p)) return null;
      if (field === 'saddr') return p.sourceIp;
      if (field === 'daddr') return p.destinationIp;
      break;
    case 'tcp':
    case 'udp':
    case 'sctp':
    case 'th':
      if (protocol === 'th' ? ![6, 17, 132].includes(p.protocol) : L4[p.protocol] !== protocol) return null;
      if (field === 'sport') return p.sourcePort;
      if (field === 'dport') return p.destinationPort;
      break;
    case 'icmp':
    case 'icmpv6':
      if (p.protocol !== (protocol === 'icmp' ? 1 : 58)) return null;
      // Names of types; of requests alone: errors are not followed.
      if (field === 'type') return p.icmpType === 8 || p.icmpType === 128 ? 'echo-request' : p.icmpType;
      if (field === 'code') return p.icmpCode;
      break;
  }
  throw new Unread(`${protocol} ${field}`);
}

/** Of a string, number or truth; others as JSON. */
const textOf = (value: Any | undefined): string => {
  if (value === undefined) return '';
  return typeof value === 'object' ? JSON.stringify(value) : `${value}`;
};
const objectOf = (value: Any | undefined): Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
const listOf = (value: Any | undefined): readonly Any[] =>
  Array.isArray(value) ? (value as readonly Any[]) : value === undefined || value === null ? [] : [value];
const partsOf = (value: Any): readonly Any[] => {
  const concat = objectOf(value)['concat'] as Any | undefined;
  return concat === undefined ? [value] : listOf(concat);
};

/** A value is what is written: itself, a prefix or range that it is in, a name with a star. */
function fits(value: Any, written: Any): boolean {
  const [parts, pattern] = [partsOf(value), partsOf(written)];
  if (parts.length > 1 || pattern.length > 1)
    return parts.length === pattern.length && parts.every((part, i) => fits(part, pattern[i] ?? null));
  const prefix = objectOf(written)['prefix'] as Json | undefined;
  if (prefix !== undefined) return inPrefix(textOf(value), textOf(prefix['addr']), Number(prefix['len']));
  const range = objectOf(written)['range'] as Any | undefined;
  if (range !== undefined) {
    const [low, high] = listOf(range).map((end) => numberOf(end));
    const n = numberOf(value);
    return n !== null && low != null && high != null && n >= low && n <= high;
  }
  if (typeof written === 'string' && written.endsWith('*')) return textOf(value).startsWith(written.slice(0, -1));
  const [a, b] = [tryParseIp(textOf(value)), tryParseIp(textOf(written))];
  return a !== null && b !== null ? a === b : textOf(value) === textOf(written);
}

const numberOf = (value: Any): bigint | null =>
  typeof value === 'number' ? BigInt(value) : typeof value === 'string' ? tryParseIp(value) : null;

function inPrefix(ip: string, base: string, length: number): boolean {
  const address = tryParseIp(ip);
  if (address === null || familyOfText(ip) !== familyOfText(base)) return false;
  return containsIp(cidrOf(parseIp(base), length + (familyOfText(base) === 4 ? 96 : 0)), address);
}

export function translated(p: TracePacket, v: NftVerdict, leavesFrom = ''): TracePacket {
  if (v.kind === 'dnat') return { ...p, destinationIp: v.ip, destinationPort: v.port ?? p.destinationPort };
  if (v.kind !== 'snat') return p;
  const ip = v.ip ?? leavesFrom;
  return ip === '' ? p : { ...p, sourceIp: ip };
}

/** In nft's words, near enough to be found in `nft list table inet weft`. */
function ruleText(expr: readonly Any[]): string {
  return expr.map((statement) => wordsOf(statement)).join(' ');
}

function wordsOf(value: Any): string {
  if (typeof value !== 'object' || value === null) return textOf(value);
  if (Array.isArray(value)) return value.map((one: Any) => wordsOf(one)).join(',');
  const [name = '', inner] = Object.entries(value)[0] ?? [];
  const body = objectOf(inner as Any);
  const of = (key: string): string => wordsOf((body[key] as Any | undefined) ?? '');
  switch (name) {
    case 'match':
      return `${of('left')} ${of('op') === '!=' ? '!= ' : ''}${of('right')}`;
    case 'meta':
      return of('key').endsWith('ifname') ? of('key') : `meta ${of('key')}`;
    case 'ct':
      return `ct ${of('key')}`;
    case 'payload':
      return `${of('protocol')} ${of('field')}`;
    case 'fib':
      return `fib ${of('flags')} ${of('result')}`;
    case 'prefix':
      return `${of('addr')}/${of('len')}`;
    case 'set':
      return `{ ${listOf(inner as Any)
        .map((one) => wordsOf(one))
        .join(', ')} }`;
    case 'concat':
      return listOf(inner as Any)
        .map((one) => wordsOf(one))
        .join(' . ');
    case 'map':
      return `${of('key')} map ${of('data')}`;
    case 'snat':
    case 'dnat':
      return `${name} ${of('family')} to ${of('addr')}`.replace('  ', ' ');
    default:
      return name;
  }
}
