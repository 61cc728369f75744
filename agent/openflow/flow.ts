/** A flow as data: what renderers make, what the driver installs and observes. Pure. */
import { canonicalController } from './controller.ts';
import { ENCODE_ORDER, FIELDS, type FieldName, fullMask } from './fields.ts';

import { canonicalLearn } from './learn-data.ts';

export type { FieldName } from './fields.ts';

export interface Flow {
  readonly table: number;
  readonly priority: number;
  readonly cookie: bigint;
  /** In any order. */
  readonly match: readonly MatchField[];
  /** Empty = drop. */
  readonly actions: readonly Action[];
  /** Seconds; absent or 0 = never. */
  readonly idleTimeout?: number;
  readonly hardTimeout?: number;
  /** OFPFF_* bits. */
  readonly flags?: number;
  readonly importance?: number;
}

/** No mask = the whole field. Integers, addresses and MACs alike are big-endian numbers. */
export interface KnownMatch {
  readonly field: FieldName;
  readonly value: bigint;
  readonly mask?: bigint;
}
/** A field that this program does not know, as its bytes in hexadecimal. Only ever observed. */
export interface RawMatch {
  readonly field: 'raw';
  readonly raw: string;
}
export type MatchField = KnownMatch | RawMatch;

/** Part of a field: `nBits` bits from bit `ofs` on, counted from the lowest. */
export interface Subfield {
  readonly field: FieldName;
  readonly ofs: number;
  readonly nBits: number;
}

export type Action =
  /** `port` is an OpenFlow 1.1+ number: reserved ones are in OFPP. */
  | { readonly type: 'output'; readonly port: number }
  /** Out where it came in: the only way to do that. */
  | { readonly type: 'in_port' }
  /** To the port whose number stands in a field. */
  | { readonly type: 'output_reg'; readonly field: FieldName; readonly ofs?: number; readonly nBits?: number }
  | { readonly type: 'set_field'; readonly field: FieldName; readonly value: bigint; readonly mask?: bigint }
  | {
      readonly type: 'move';
      readonly src: FieldName;
      readonly srcOfs: number;
      readonly dst: FieldName;
      readonly dstOfs: number;
      readonly nBits: number;
    }
  | {
      readonly type: 'load';
      readonly field: FieldName;
      readonly ofs: number;
      readonly nBits: number;
      readonly value: bigint;
    }
  /** Look up in another table, then go on here. `port`: with that as in_port. */
  | { readonly type: 'resubmit'; readonly table: number; readonly port?: number }
  /** The last action. */
  | { readonly type: 'goto'; readonly table: number }
  /** The first action. */
  | { readonly type: 'meter'; readonly meter: number }
  | { readonly type: 'group'; readonly group: number }
  | ControllerAction
  | { readonly type: 'push_vlan'; readonly etherType: number }
  | { readonly type: 'pop_vlan' }
  | { readonly type: 'dec_ttl' }
  | { readonly type: 'set_queue'; readonly queue: number }
  | { readonly type: 'conjunction'; readonly id: number; readonly clause: number; readonly nClauses: number }
  | CtAction
  | { readonly type: 'ct_clear' }
  /** A number below `links`, the same for all packets of a connection, both ways. */
  | {
      readonly type: 'multipath';
      readonly hash: 'symmetric_l3l4+udp' | 'symmetric_l3l4' | 'symmetric_l3';
      readonly algorithm: 'hrw';
      readonly links: number;
      readonly to: Subfield;
    }
  /** Sets the bit where the frame has more bytes, its Ethernet header among them. */
  | { readonly type: 'check_larger'; readonly bytes: number; readonly field: FieldName; readonly bit: number }
  | LearnAction
  /** An action, or an instruction, that this program does not know, as its bytes in hexadecimal. Only ever observed. */
  | { readonly type: 'raw'; readonly raw: string }
  | { readonly type: 'raw_instruction'; readonly raw: string };

export interface CtAction {
  readonly type: 'ct';
  readonly commit?: boolean;
  /** Only with commit: an entry of the other direction is replaced. */
  readonly force?: boolean;
  /** Absent = zone 0. */
  readonly zone?: number | Subfield;
  /** Recirculate to this table. */
  readonly table?: number;
  /** Port number of a helper: 21 = ftp, 69 = tftp. */
  readonly alg?: number;
  /** Only with commit: set ct_mark, ct_label; or `raw` (nat). */
  readonly exec?: readonly Action[];
}

/** To whoever listens for packet-ins. */
export interface ControllerAction {
  readonly type: 'controller';
  /** Bytes of the frame; 0xffff = all. */
  readonly maxLen: number;
  /** Comes with the packet, hexadecimal. */
  readonly userdata?: string;
  /** This action alone is metered. */
  readonly meter?: number;
  /** Controller id, default 0. */
  readonly id?: number;
  /** OFPR_*, default OFPR_ACTION. */
  readonly reason?: number;
}

/** A constant or a part of the packet becomes a match, is loaded, or names the port to send to. */
export type LearnSpec =
  | { readonly to: 'match' | 'load'; readonly dst: Subfield; readonly from: bigint | Subfield }
  | { readonly to: 'output'; readonly from: Subfield };

/** Adds a flow (ovs-actions(7), learn). Timeouts in seconds; absent or 0 = never, no limit. */
export interface LearnAction {
  readonly type: 'learn';
  readonly table: number;
  readonly priority: number;
  readonly idleTimeout?: number;
  readonly hardTimeout?: number;
  /** Timeouts once a TCP FIN or RST was seen. */
  readonly finIdleTimeout?: number;
  readonly finHardTimeout?: number;
  readonly cookie?: bigint;
  /** Flows that this action may have in the table under its cookie. */
  readonly limit?: number;
  /** Bits of LEARN (learn.ts). */
  readonly flags?: number;
  readonly specs: readonly LearnSpec[];
}

/** Reserved ports, OpenFlow 1.1+ numbers. Open vSwitch's database writes LOCAL as 65534. */
export const OFPP = Object.freeze({
  MAX: 0xffffff00,
  IN_PORT: 0xfffffff8,
  TABLE: 0xfffffff9,
  NORMAL: 0xfffffffa,
  FLOOD: 0xfffffffb,
  ALL: 0xfffffffc,
  CONTROLLER: 0xfffffffd,
  LOCAL: 0xfffffffe,
});

const rank = (field: MatchField): number => (field.field === 'raw' ? 1000 : (ENCODE_ORDER.get(field.field) ?? 999));

/** Wide registers and the VLAN tag are reported by Open vSwitch in these parts. */
function split({ field, value, mask = fullMask(field) }: KnownMatch): readonly KnownMatch[] {
  if (field === 'vlan_tci') {
    const vid: KnownMatch = { field: 'vlan_vid', value: value & 0x1fffn, mask: mask & 0x1fffn };
    return (mask & 0xe000n) === 0n ? [vid] : [vid, { field: 'vlan_pcp', value: value >> 13n }];
  }
  const wide = /^(x{1,2})reg(\d)$/.exec(field);
  if (wide === null) return [{ field, value, mask }];
  const count = wide[1] === 'x' ? 2 : 4;
  return Array.from({ length: count }, (_, i) => {
    const shift = BigInt(32 * (count - 1 - i));
    const word = (n: bigint): bigint => (n >> shift) & 0xffff_ffffn;
    return { field: `reg${Number(wide[2]) * count + i}` as FieldName, value: word(value), mask: word(mask) };
  });
}

/** One spelling for each match: ordered, value bits outside of the mask zero, no full and no empty masks. */
export function canonicalMatch(match: readonly MatchField[]): MatchField[] {
  const fields: MatchField[] = [];
  for (const item of match) {
    if (item.field === 'raw') fields.push(item);
    else {
      for (const { field, value, mask } of needsSplit(item.field) ? split(item) : [item]) {
        const full = fullMask(field);
        if (mask === undefined || mask === full) fields.push({ field, value });
        else if (mask !== 0n) fields.push({ field, value: value & mask, mask });
      }
    }
  }
  return fields.sort((a, b) => rank(a) - rank(b));
}

const needsSplit = (field: FieldName): boolean => field === 'vlan_tci' || field.startsWith('x');

/** Identity of a flow in a switch: table, priority, match. Two flows of one key replace each other. */
export function flowKey(flow: Flow): string {
  let key = `${flow.table},${flow.priority}`;
  for (const field of canonicalMatch(flow.match)) {
    if (field.field === 'raw') key += `,raw=${field.raw}`;
    else if (field.mask === undefined) key += `,${field.field}=${field.value.toString(16)}`;
    else key += `,${field.field}=${field.value.toString(16)}/${field.mask.toString(16)}`;
  }
  return key;
}

/** Same key, and same in everything else. */
export const flowEquals = (a: Flow, b: Flow): boolean =>
  a.cookie === b.cookie &&
  (a.idleTimeout ?? 0) === (b.idleTimeout ?? 0) &&
  (a.hardTimeout ?? 0) === (b.hardTimeout ?? 0) &&
  (a.flags ?? 0) === (b.flags ?? 0) &&
  (a.importance ?? 0) === (b.importance ?? 0) &&
  sameData(a.actions.map(canonicalAction), b.actions.map(canonicalAction)) &&
  flowKey(a) === flowKey(b);

/** One spelling for each action. */
export function canonicalAction(action: Action): Action {
  if (action.type === 'output' && action.port === OFPP.IN_PORT) return { type: 'in_port' };
  if (action.type === 'output_reg') {
    const { type, field, ofs = 0, nBits = FIELDS[field].subfieldBits - ofs } = action;
    return { type, field, ofs, nBits };
  }
  if (action.type === 'set_field' && action.mask !== undefined) {
    const { type, field, value, mask } = action;
    return mask === fullMask(field) ? { type, field, value } : { type, field, value: value & mask, mask };
  }
  if (action.type === 'controller') return canonicalController(action);
  if (action.type === 'learn') return canonicalLearn(action);
  if (action.type === 'ct' && action.exec !== undefined) return { ...action, exec: action.exec.map(canonicalAction) };
  return action;
}

/** Plain data compared; an absent property equals one that is undefined or false. */
function sameData(a: unknown, b: unknown): boolean {
  if (a === b) return true;
  if ((a === undefined || a === false) && (b === undefined || b === false)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  const [left, right] = [a as Record<string, unknown>, b as Record<string, unknown>];
  for (const key in left) if (!sameData(left[key], right[key])) return false;
  for (const key in right) if (!(key in left) && !sameData(undefined, right[key])) return false;
  return Array.isArray(a) === Array.isArray(b);
}
