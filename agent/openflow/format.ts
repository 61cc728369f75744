/**
 * Flows as `ovs-ofctl -O OpenFlow14 dump-flows --no-stats` prints them (match_format and ofpacts_format in Open vSwitch's
 * lib/match.c and lib/ofp-actions.c). Pure.
 */
import { formatController } from './controller.ts';
import { FIELD_NAMES, FIELDS, type FieldName } from './fields.ts';
import {
  type Action,
  type CtAction,
  canonicalAction,
  canonicalMatch,
  type Flow,
  type KnownMatch,
  type MatchField,
} from './flow.ts';
import { formatLearn } from './learn.ts';
import { formatCheckLarger, formatMultipath } from './routing-actions.ts';
import { formatMatchValue, formatPort, formatSetValue, formatSubfield, hashHex } from './values.ts';

const DEFAULT_PRIORITY = 32768;
const ETH_NAMES: Readonly<Record<string, string>> = {
  [0x0800]: 'ip',
  [0x86dd]: 'ipv6',
  [0x0806]: 'arp',
  [0x8035]: 'rarp',
  [0x8847]: 'mpls',
  [0x8848]: 'mplsm',
};
const IP_NAMES: Readonly<Record<string, string>> = {
  'ip/1': 'icmp',
  'ip/6': 'tcp',
  'ip/17': 'udp',
  'ip/132': 'sctp',
  'ipv6/58': 'icmp6',
  'ipv6/6': 'tcp6',
  'ipv6/17': 'udp6',
  'ipv6/132': 'sctp6',
};
const FLAG_NAMES = ['send_flow_rem', 'check_overlap', 'reset_counts', 'no_packet_counts', 'no_byte_counts'];

/** One line, without leading blank: `cookie=0x1, table=2, priority=3,ip,nw_dst=10.0.0.1 actions=output:4`. */
export function formatFlow(flow: Flow): string {
  let text = flow.cookie === 0n ? '' : `cookie=0x${flow.cookie.toString(16)}, `;
  if (flow.table !== 0) text += `table=${flow.table}, `;
  if ((flow.idleTimeout ?? 0) !== 0) text += `idle_timeout=${flow.idleTimeout}, `;
  if ((flow.hardTimeout ?? 0) !== 0) text += `hard_timeout=${flow.hardTimeout}, `;
  for (const [bit, name] of FLAG_NAMES.entries()) if (((flow.flags ?? 0) & (1 << bit)) !== 0) text += `${name} `;
  if ((flow.importance ?? 0) !== 0) text += `importance=${flow.importance}, `;
  const match = formatMatch(flow.match);
  if (flow.priority !== DEFAULT_PRIORITY)
    text += match === '' ? `priority=${flow.priority} ` : `priority=${flow.priority},`;
  return `${text}${match}${match === '' ? '' : ' '}actions=${formatActions(flow.actions)}`;
}

/** Table, priority and match alone: which flow it is, for messages. */
export function formatFlowKey(flow: Flow): string {
  const match = formatMatch(flow.match);
  return `table=${flow.table},priority=${flow.priority}${match === '' ? '' : `,${match}`}`;
}

export function formatMatch(match: readonly MatchField[]): string {
  const canonical = canonicalMatch(match);
  const known = new Map<FieldName, KnownMatch>();
  for (const field of canonical) if (field.field !== 'raw') known.set(field.field, field);
  // A well-known protocol stands for dl_type, and for nw_proto.
  const ethName = ETH_NAMES[String(known.get('eth_type')?.value)];
  const ipName = IP_NAMES[`${ethName}/${known.get('ip_proto')?.value}`];
  const parts: string[] = [];
  for (const name of FIELD_NAMES) {
    if (name === 'reg0' && ethName !== undefined) parts.push(ipName ?? ethName);
    const field = known.get(name);
    if (name === 'vlan_vid') parts.push(...formatVlan(field, known.get('vlan_pcp')));
    else if (field === undefined || name === 'vlan_pcp') continue;
    else if (name === 'eth_type' && ethName !== undefined) continue;
    else if (name === 'ip_proto' && ipName !== undefined) continue;
    else parts.push(`${FIELDS[name].text}=${formatMatchValue(name, field.value, field.mask)}`);
  }
  for (const field of canonical) if (field.field === 'raw') parts.push(`raw=${field.raw}`);
  return parts.join(',');
}

/** Both parts of the tag are one field to Open vSwitch. */
function formatVlan(vid: KnownMatch | undefined, pcp: KnownMatch | undefined): string[] {
  const value = (vid?.value ?? 0n) | ((pcp?.value ?? 0n) << 13n);
  const vidMask = vid === undefined ? 0n : (vid.mask ?? 0x1fffn);
  const mask = vidMask | (pcp === undefined ? 0n : 0xe000n);
  if (mask === 0n) return [];
  const tagged = (value & mask & 0x1000n) !== 0n;
  const vidBits = vidMask & 0xfffn;
  if (tagged && (vidBits === 0n || vidBits === 0xfffn) && (vidBits !== 0n || pcp !== undefined)) {
    return [
      ...(vidBits === 0n ? [] : [`dl_vlan=${value & 0xfffn}`]),
      ...(pcp === undefined ? [] : [`dl_vlan_pcp=${pcp.value}`]),
    ];
  }
  const digits = (n: bigint): string => `0x${n.toString(16).padStart(4, '0')}`;
  return [mask === 0xffffn ? `vlan_tci=${digits(value)}` : `vlan_tci=${digits(value)}/${digits(mask)}`];
}

/** What stands after `actions=`. */
export const formatActions = (actions: readonly Action[]): string =>
  actions.length === 0 ? 'drop' : actions.map((action) => formatAction(canonicalAction(action))).join(',');

function formatAction(action: Action): string {
  switch (action.type) {
    case 'output': {
      const port = formatPort(action.port);
      return port === String(action.port) ? `output:${port}` : port;
    }
    case 'in_port':
      return 'IN_PORT';
    case 'output_reg':
      return `output:${formatSubfield(action.field, action.ofs ?? 0, action.nBits ?? FIELDS[action.field].subfieldBits)}`;
    case 'set_field':
      return `set_field:${formatSetValue(action.field, action.value, action.mask)}->${FIELDS[action.field].setName}`;
    case 'move': {
      const { src, srcOfs, dst, dstOfs, nBits } = action;
      return `move:${formatSubfield(src, srcOfs, nBits)}->${formatSubfield(dst, dstOfs, nBits)}`;
    }
    case 'load':
      return `load:${hashHex(action.value)}->${formatSubfield(action.field, action.ofs, action.nBits)}`;
    case 'resubmit': {
      const port = action.port === undefined ? '' : formatPort(action.port);
      if (action.table === 255 && port !== '') return `resubmit:${port}`;
      return `resubmit(${port},${action.table === 255 ? '' : action.table})`;
    }
    case 'goto':
      return `goto_table:${action.table}`;
    case 'meter':
      return `meter:${action.meter}`;
    case 'group':
      return `group:${action.group}`;
    case 'controller':
      return formatController(action);
    case 'learn':
      return formatLearn(action);
    case 'push_vlan':
      return `push_vlan:0x${action.etherType.toString(16).padStart(4, '0')}`;
    case 'set_queue':
      return `set_queue:${action.queue}`;
    case 'conjunction':
      return `conjunction(${action.id},${action.clause + 1}/${action.nClauses})`;
    case 'ct':
      return formatCt(action);
    case 'multipath':
      return formatMultipath(action);
    case 'check_larger':
      return formatCheckLarger(action);
    case 'pop_vlan':
    case 'dec_ttl':
    case 'ct_clear':
      return action.type;
    case 'raw':
    case 'raw_instruction':
      return `${action.type}:${action.raw}`;
  }
}

function formatCt({ commit, force, table, zone, exec = [], alg }: CtAction): string {
  const parts: string[] = [];
  if (commit === true) parts.push('commit');
  if (force === true) parts.push('force');
  if (table !== undefined) parts.push(`table=${table}`);
  if (typeof zone === 'object') parts.push(`zone=${formatSubfield(zone.field, zone.ofs, zone.nBits)}`);
  else if (zone !== undefined && zone !== 0) parts.push(`zone=${zone}`);
  if (exec.length > 0) parts.push(`exec(${formatActions(exec)})`);
  if (alg !== undefined && alg !== 0)
    parts.push(`alg=${({ 21: 'ftp', 69: 'tftp' } as Record<number, string>)[alg] ?? alg}`);
  return `ct(${parts.join(',')})`;
}
