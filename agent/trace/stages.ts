/** Flows of br-weft in plain words: what a packet meets in each table (flows/pipeline.ts), and why it goes no further. Pure. */
import type { TraceHop, TracePacket } from '../../lib/model.ts';
import { PRIORITY, type Stage, TABLE } from '../flows/pipeline.ts';
import { packetAfter, registerOf } from './effects.ts';
import { fieldOf, type MetFlow, type Section } from './ofproto.ts';
import { serviceText } from './packet.ts';
import { type Policing, ruleOf, ruleText } from './rules.ts';

/** What the words are about. */
export interface Words {
  readonly host: string;
  /** Of an OpenFlow port: an endpoint's name, "the tunnels", "the host". */
  port(n: number): string;
  /** Name of a network by its local index. */
  network(index: number): string;
  policing(index: number): Policing;
  /** MAC of the endpoint at an OpenFlow port; null: none is there. */
  mac(port: number): string | null;
  /** Virtual addresses are translated here. */
  readonly translates: boolean;
  /** Service whose virtual address it is; null: none. */
  service(index: number, ip: string): string | null;
}

/** Where the packet is: it changes with each flow. */
export interface At {
  readonly inPort: number;
  readonly packet: TracePacket;
  /** Port to leave by (reg2), as far as it is known. */
  readonly out: number | null;
  /** Local network index (reg0). */
  readonly index: number;
}

const STAGES = new Map<number, Stage>(Object.entries(TABLE).map(([name, n]) => [n, name as Stage]));
const OWNER = 0x57656674n;
/** A cookie's low 16 bits. */
const indexOf = (f: MetFlow): number => Number(f.cookie & 0xffffn);
const isOurs = (f: MetFlow): boolean => f.cookie >> 32n === OWNER;

/** The name of a table as docs/pipeline.md has it. */
export const stageOf = (table: number): string => STAGES.get(table) ?? `table ${table}`;

/** A flow's own text. */
export function flowLine(f: MetFlow): string {
  if (f.match === null) return 'no flow matches';
  const match = f.match === '' ? '' : `${f.match},`;
  return `table=${f.table},${match}priority=${f.priority} actions=${f.actions.join(',')}`;
}

/** What a flow does to the packet; `reason`: why it ends, if it ends there. */
export function tell(f: MetFlow, at: At, w: Words): { readonly what: string; readonly reason: string } {
  if (f.match === null) return same(`no flow of table ${f.table} matches: dropped`);
  if (!isOurs(f)) return same(`a flow that is not Weft’s (cookie 0x${f.cookie.toString(16)})`);
  switch (stageOf(f.table)) {
    case 'classify':
      return classify(f, at, w);
    case 'portSecurity':
      return security(f, at, w);
    case 'conntrack':
      return same(`connections of network ${w.network(at.index)} are tracked`);
    case 'policyEgress':
      return judged('egress', at.inPort, f, at, w);
    case 'policyIngress':
      return judged('ingress', at.out ?? 0, f, at, w);
    case 'routing':
      return f.priority === PRIORITY.default ? nowhere(f, at, w) : same(`to ${w.host} itself, ${setText(f)}`);
    case 'l2':
      return l2(f, at, w);
    case 'commit':
      return same(f.priority === 0 ? 'the connection is known already' : 'the connection is remembered as allowed');
    case 'revoke':
      return same(f.priority === 0 ? 'nothing to take back' : 'the connection is marked as not allowed any more');
    case 'output':
      return same(at.out === null ? 'out' : `out to ${w.port(at.out)}`);
    case 'learned':
      return f.priority === PRIORITY.default ? nowhere(f, at, w) : same('to a learned MAC');
    case 'punt':
      return same('to the agent');
    default: {
      // A router's: the frame is of another network from now on.
      const into = registerOf(f, 'reg0');
      if (into !== null) return same(`routed into network ${w.network(into)}`);
      return f.actions.join() === 'drop' || f.actions.length === 0
        ? same(`dropped by table ${f.table} (${stageOf(f.table)})`)
        : same(setText(f) === '' ? 'goes on' : setText(f));
    }
  }
}

const same = (text: string): { what: string; reason: string } => ({ what: text, reason: text });

const SETS = /^set_field:(.*)->(ip_src|ip_dst|ipv6_src|ipv6_dst|reg0)$/;
const SAID: Readonly<Record<string, string>> = {
  ip_src: 'source',
  ipv6_src: 'source',
  ip_dst: 'destination',
  ipv6_dst: 'destination',
  reg0: 'network index',
};

const setText = (f: MetFlow): string =>
  f.actions
    .flatMap((action) => {
      const [, value, field] = SETS.exec(action) ?? [];
      return field === undefined ? [] : [`${SAID[field] ?? field} becomes ${value}`];
    })
    .join(', ');

function classify(f: MetFlow, at: At, w: Words): { what: string; reason: string } {
  const index = indexOf(f);
  if (f.priority === PRIORITY.default || f.actions.length === 0 || f.actions.includes('drop')) {
    const who = w.port(at.inPort);
    return same(`nothing that comes from ${who} is of a network of ${w.host} like this: its host knows nothing of it`);
  }
  const set = setText({ ...f, actions: f.actions.filter((a) => !a.includes('reg0')) });
  return same(`from ${w.port(at.inPort)}: network ${w.network(index)}${set === '' ? '' : `, ${set}`}`);
}

function security(f: MetFlow, at: At, w: Words): { what: string; reason: string } {
  const { sourceIp, sourceMac } = at.packet;
  const who = w.port(at.inPort);
  if (f.actions.some((a) => a.startsWith('goto_table') || a.startsWith('resubmit')))
    return same(`${who} may send from ${sourceIp} and ${sourceMac}`);
  const mac = w.mac(at.inPort);
  if (mac === null || mac === sourceMac) return same(`port security: ${sourceIp} is not an address of ${who}`);
  return same(`port security: ${sourceMac} is not the MAC of ${who}`);
}

/** Priorities of table 16 and 32 that are no rules' (flows/policies.ts). */
const JUDGE: Readonly<Record<number, string>> = {
  64900: 'not judged: ARP, or not tracked',
  64800: 'it belongs to no connection, and opens none (conntrack: invalid)',
  64700: 'it belongs to a connection that was allowed',
  64690: 'its connection is not allowed any more',
  64600: 'never judged: the resolver, or a health check',
};
const PENDING = 65_000;

function judged(
  direction: 'egress' | 'ingress',
  subject: number,
  f: MetFlow,
  at: At,
  w: Words,
): { what: string; reason: string } {
  const who = `${direction} of ${w.port(subject)}`;
  const { rules } = w.policing(at.index);
  const allowed = f.actions.some((a) => /^goto_table|^resubmit\(,(28|36)\)/.test(a));
  const action = f.actions.some((a) => a.startsWith('controller(')) ? 'reject' : allowed ? 'allow' : 'drop';
  const say = (by: string): { what: string; reason: string } => ({ what: `${who}: ${action}, ${by}`, reason: by });
  if (f.priority === PENDING)
    return say(`the labels of ${w.port(subject)} are not known yet, and rules ask for labels`);
  const known = JUDGE[f.priority];
  if (known !== undefined) return say(known);
  if (f.priority <= 1) return say(`no rule is about it: the default of network ${w.network(at.index)}`);
  const rule = ruleOf(rules, direction, f, at.packet, subject);
  if (rule === null) return say(`a rule of no policy that ${w.host} knows (${flowLine(f)})`);
  const reason = `policy ${rule.policy.name}, ${direction} rule ${rule.rule} of network ${w.network(at.index)}`;
  return { what: say(ruleText(rule)).what, reason };
}

function l2(f: MetFlow, at: At, w: Words): { what: string; reason: string } {
  const { destinationIp: ip, destinationMac: mac } = at.packet;
  const network = w.network(at.index);
  const out = outOf(f);
  if (f.actions.includes('IN_PORT')) return same(`${ip} is answered for by ${w.host}`);
  if (f.actions.some((a) => a.startsWith('controller('))) return same('to the agent');
  if (f.actions.includes('drop') || f.actions.length === 0) {
    if (f.priority === PRIORITY.virtual) {
      const service = w.service(at.index, ip);
      const name = service === null ? `the virtual address ${ip}` : `service ${service} (${ip})`;
      if (!w.translates) return same(`${w.host} cannot translate virtual addresses: ${name} is not reached from it`);
      return same(`${name} has nothing at ${serviceText(at.packet)}`);
    }
    if (f.priority === PRIORITY.barred) return same(`${ip} does not lead out of network ${network}: no host holds it`);
    return nowhere(f, at, w);
  }
  if (f.priority === 1 || f.priority === 2) return same(`${w.host} does not know ${mac}: it may have been learned`);
  if (f.actions.some((a) => /resubmit\(,2[4-7]\)/.test(a))) return same(`${mac} is the gateway of ${network}`);
  if (out === null) return same(`${mac} is found`);
  const block = fieldOf(f.match, 'dl_dst')?.includes('/') === true ? `the block of ${ip} is behind` : `${ip} is behind`;
  const vtep = f.actions.flatMap((a) => /^set_field:(.*)->tun_(?:ipv6_)?dst$/.exec(a)?.[1] ?? [])[0];
  if (vtep !== undefined) return same(`${block} VTEP ${vtep}`);
  return same(f.actions.some((a) => a.startsWith('push_vlan')) ? `${block} a tunnel` : `${mac} is ${w.port(out)}’s`);
}

const nowhere = (f: MetFlow, at: At, w: Words): { what: string; reason: string } => {
  const { destinationIp: ip, destinationMac: mac } = at.packet;
  const where = f.table === TABLE.l2 ? '' : ` (table ${stageOf(f.table)})`;
  return same(`no endpoint of network ${w.network(at.index)} that ${w.host} knows has ${ip} (${mac})${where}`);
};

/** Port that a flow sets to leave by. */
export const outOf = (f: MetFlow): number | null => registerOf(f, 'reg2');

/**
 * Hops of one way through the bridge, a flow each.
 * @param packet as it came in
 * @returns `reason`: of the last flow that is not one that others have called
 */
export function bridgeHops(
  sections: readonly Section[],
  start: Omit<At, 'out' | 'index'>,
  w: Words,
): { hops: TraceHop[]; reason: string; last: MetFlow | null } {
  const hops: TraceHop[] = [];
  let at: At = { ...start, out: null, index: 0 };
  let reason = '';
  let last: MetFlow | null = null;
  for (const section of sections)
    for (const f of section.flows) {
      if (f.match !== null && f.table === TABLE.classify) at = { ...at, index: indexOf(f) };
      // A router's flow: the frame is of another network from now on.
      const moved = registerOf(f, 'reg0');
      const told = tell(f, at, w);
      // Called for nothing: no connection is marked.
      const idle = f.called && f.priority === PRIORITY.default && stageOf(f.table) === 'revoke';
      if (!idle)
        hops.push({
          host: w.host,
          engine: 'openvswitch',
          stage: stageOf(f.table),
          table: f.table,
          what: told.what,
          detail: flowLine(f),
        });
      if (!f.called && stageOf(f.table) !== 'revoke') {
        reason = told.reason;
        last = f;
      }
      at = { ...at, packet: packetAfter(at.packet, f), out: outOf(f) ?? at.out, index: moved ?? at.index };
    }
  return { hops, reason, last };
}
