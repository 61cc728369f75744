/**
 * What `ofproto/trace` says (ovs-vswitchd(8); ofproto/ofproto-dpif-trace.c), read: the flows that a packet meets, where it leaves, and as
 * what. Each conntrack action forks the packet; what goes on is a section of its own. Lines that another version adds are passed over.
 * Pure.
 */

/** A flow that the packet has met. */
export interface MetFlow {
  readonly table: number;
  /** As printed, without priority and cookie; null: no flow matched. */
  readonly match: string | null;
  readonly priority: number;
  readonly cookie: bigint;
  /** As printed, one each. */
  readonly actions: string[];
  /** Values that its actions have given to fields, in order: "eth_dst", "reg0"; of a part of one ("NXM_OF_ETH_DST[0..31]") that part's. */
  readonly effects: { readonly field: string; readonly value: string }[];
  /** It was called by a flow before it, which then went on. */
  readonly called: boolean;
}

export interface Section {
  /** State of the connection, where it is what came out of a conntrack action; else null. */
  readonly state: string | null;
  readonly flows: MetFlow[];
  /** OpenFlow ports to which it was sent, in order; "in_port": back to where it came from. */
  readonly outputs: (number | 'in_port')[];
  /** Controller actions: packets for the agent. */
  readonly punts: string[];
  /** What it is at the end, by field; empty: as it came. */
  readonly final: Map<string, string>;
}

export interface Traced {
  readonly sections: readonly Section[];
}

const FLOW = /^( *)(\d+)\. (?:(.*), )?priority (\d+)(?:, cookie (0x[0-9a-f]+))?/;
const MISS = /^( *)(\d+)\. No match/;
const REMARK = /^\s*->/;
const OUTPUT = /^\s*-> output port is (\d+)/;
const MOVED = /^\s*-> (\S+) is now (\S+)/;
const SET = /^set_field:(.*)->(\w+)$/;
const RESUMED = /^recirc\(0x[0-9a-f]+\) - resume conntrack with ct_state=(.*)$/;
const BRIDGE = /^bridge\("(.*)"\)/;
/** A flow that another one has called is this much further right. Tables of one digit have one blank more. */
const NESTED = 4;
/** And its actions, from where it stands itself; of the first level only NESTED. */
const DEEPER = 8;

/** @param bridge flows of others, which a tunnel in user space passes too, are not read */
export function parseTrace(text: string, bridge: string): Traced {
  const sections: Section[] = [];
  let here = true;
  /** Flows by the indent of their actions: what a called one does ends with the next line of its caller. */
  let open = new Map<number, MetFlow>();
  let now = sectionOf(null);
  sections.push(now);
  for (const line of text.split('\n')) {
    const resumed = RESUMED.exec(line);
    if (resumed !== null) {
      now = sectionOf(resumed[1] ?? '');
      sections.push(now);
      here = true;
      open = new Map();
      continue;
    }
    const named = BRIDGE.exec(line);
    if (named !== null) here = named[1] === bridge;
    else if (line.startsWith('Final flow: ')) readFinal(line.slice('Final flow: '.length), now.final);
    else if (here) readLine(line, now, open);
  }
  return { sections };
}

const sectionOf = (state: string | null): Section => ({
  state,
  flows: [],
  outputs: [],
  punts: [],
  final: new Map(),
});

function readLine(line: string, section: Section, open: Map<number, MetFlow>): void {
  const met = FLOW.exec(line) ?? MISS.exec(line);
  if (met !== null) {
    const [all, blanks = '', table = '', match = '', priority = '0', cookie = '0'] = met;
    const missed = all.includes('No match');
    const flow: MetFlow = {
      table: Number(table),
      match: missed ? null : match,
      priority: Number(priority),
      cookie: BigInt(cookie),
      actions: [],
      effects: [],
      called: blanks.length >= NESTED,
    };
    section.flows.push(flow);
    const indent = blanks.length - (blanks.length % NESTED);
    open.set(indent === 0 ? NESTED : indent + DEEPER, flow);
    return;
  }
  const output = OUTPUT.exec(line);
  if (output !== null) section.outputs.push(Number(output[1]));
  const moved = MOVED.exec(line);
  if (moved !== null) section.flows.at(-1)?.effects.push({ field: moved[1] ?? '', value: moved[2] ?? '' });
  if (REMARK.test(line) || !line.startsWith('    ')) return;
  const action = line.trim();
  const flow = open.get(line.length - line.trimStart().length) ?? section.flows.at(-1);
  flow?.actions.push(action);
  const set = SET.exec(action);
  if (set !== null) flow?.effects.push({ field: set[2] ?? '', value: set[1] ?? '' });
  const direct = /^output:(\d+)$/.exec(action);
  if (direct !== null) section.outputs.push(Number(direct[1]));
  if (action === 'IN_PORT') section.outputs.push('in_port');
  if (/^controller\(|^CONTROLLER/.test(action)) section.punts.push(action);
}

/** A name alone (tcp) says what kind of packet it is. */
function readFinal(text: string, into: Map<string, string>): void {
  into.clear();
  if (text === 'unchanged') return;
  for (const part of text.split(',')) {
    const at = part.indexOf('=');
    if (at > 0) into.set(part.slice(0, at), part.slice(at + 1));
  }
}

/** Fields of a final flow; those of sections before it where it is as it came. */
export function finalFields(sections: readonly Section[]): ReadonlyMap<string, string> {
  return sections.findLast((s) => s.final.size > 0)?.final ?? new Map<string, string>();
}

/** The last value that an action has given to a field; null: none has. */
export function lastSet(sections: readonly Section[], field: string): string | null {
  const all = sections.flatMap((s) => s.flows.flatMap((f) => f.actions));
  const found = all.findLast((action) => action.startsWith('set_field:') && action.endsWith(`->${field}`));
  return found === undefined ? null : found.slice('set_field:'.length, -`->${field}`.length);
}

/** Of a match as printed: "reg0=0x1". */
export const fieldOf = (match: string | null, name: string): string | null =>
  new RegExp(`(?:^|,)${name}=([^,]+)`).exec(match ?? '')?.[1] ?? null;
