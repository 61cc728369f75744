/**
 * The classes of the underlay: a tree of HTB (tc-htb(8)) with a class for each priority, told apart by the outer DSCP. What is wanted, as
 * lines of `tc -batch`, and what tc shows of it. Pure.
 */
import { HANDLE } from './steps.ts';

export type LeafKind = 'fq_codel' | 'bfifo';

/** Rates are bits per second of frames, bursts bytes. */
export interface ClassRate {
  readonly id: string;
  /** "root" or another class's id. */
  readonly parent: string;
  /** What it gets whatever the others do. */
  readonly rate: number;
  /** What it may have of what the others leave. */
  readonly ceil: number;
  readonly burst: number;
  readonly cburst: number;
  /** The lowest number is asked first; null: it has classes below it. */
  readonly prio: number | null;
}

/** Where frames of a class wait: each flow by itself where the kernel can (fq_codel), else one after the other. */
export type Leaf = { readonly classId: string; readonly handle: string } & (
  | { readonly kind: 'fq_codel'; readonly targetUs: number; readonly intervalUs: number }
  | { readonly kind: 'bfifo'; readonly limit: number }
);

export interface Filter {
  readonly protocol: 'ip' | 'ipv6';
  /** Of the first 32 bits of the outer IP header. */
  readonly value: number;
  readonly mask: number;
  readonly classId: string;
}

export interface ClassTree {
  readonly classes: readonly ClassRate[];
  readonly leaves: readonly Leaf[];
  readonly filters: readonly Filter[];
}

const ROOT = `${HANDLE}1`;
const IDS = { high: `${HANDLE}10`, normal: `${HANDLE}20`, low: `${HANDLE}30` } as const;
export type ClassName = keyof typeof IDS;
/** Where frames go that no filter names. */
const OTHERS = 0x20;
/** Each has a number of its own, so that what one leaves goes to the highest that wants it. */
const ORDER: readonly ClassName[] = ['high', 'normal', 'low'];
/** Of the whole, guaranteed. */
export const SHARES: Readonly<Record<ClassName, number>> = { high: 0.5, normal: 0.4, low: 0.1 };
/**
 * DSCPs: what Weft writes (AF41, LE: agent/rates.ts), and what the host's other traffic is marked with for the same: EF (RFC 3246), CS6
 * of routing protocols (RFC 4594 §3.2), CS1, the low class before LE (RFC 3662).
 */
export const CLASSIFIED: readonly (readonly [dscp: number, name: ClassName])[] = [
  [34, 'high'],
  [46, 'high'],
  [48, 'high'],
  [1, 'low'],
  [8, 'low'],
];

/** Seconds of a rate that may go at once: timers of a busy machine come that much too late. */
const BURST_S = 0.004;
const MIN_BURST = 3_200;
/** fq_codel's defaults (tc-fq_codel(8)), in microseconds; a frame alone must not look like a queue (RFC 8290 §4.2.2). */
const TARGET_US = 5_000;
const INTERVAL_US = 100_000;
const FRAME_BITS = 1_514 * 8;
const FLOWS_LIMIT = 10_240;
/** Without fq_codel: seconds of the guaranteed rate, and at least two segments of 64 KiB. */
const WAIT_S = 0.1;
const MIN_LIMIT = 2 ** 17;
/** Classes never compete at one number, so that it says nothing; without it the kernel warns of its own choice. */
const QUANTUM = 1_514;

/** The kernel counts whole bytes. */
const wholeBytes = (bits: number): number => Math.floor(bits / 8) * 8;
const burstOf = (bits: number): number => Math.max(MIN_BURST, Math.round((bits / 8) * BURST_S));

/** @param bits per second of frames, all classes together */
export function classTree(bits: number, leaf: LeafKind): ClassTree {
  const ceil = wholeBytes(bits);
  const cburst = burstOf(ceil);
  const classes = ORDER.map((name, prio): ClassRate => {
    const rate = wholeBytes(ceil * SHARES[name]);
    return { id: IDS[name], parent: ROOT, rate, ceil, burst: burstOf(rate), cburst, prio };
  });
  return {
    classes: [{ id: ROOT, parent: 'root', rate: ceil, ceil, burst: cburst, cburst, prio: null }, ...classes],
    leaves: classes.map((c, i) => leafOf(c, `57e${i + 1}:`, leaf)),
    filters: (['ip', 'ipv6'] as const).flatMap((protocol) =>
      CLASSIFIED.map(([dscp, name]) => filterOf(protocol, dscp, IDS[name])),
    ),
  };
}

function leafOf({ id: classId, rate }: ClassRate, handle: string, kind: LeafKind): Leaf {
  if (kind === 'bfifo') return { classId, handle, kind, limit: Math.max(MIN_LIMIT, Math.round((rate / 8) * WAIT_S)) };
  const targetUs = Math.max(TARGET_US, Math.ceil((1.5 * FRAME_BITS * 1e6) / rate));
  return { classId, handle, kind, targetUs, intervalUs: Math.max(INTERVAL_US, targetUs) };
}

/** The class is in IPv4's second byte (RFC 791), in IPv6 four bits later (RFC 8200 §3); ECN's two bits are behind it. */
const filterOf = (protocol: 'ip' | 'ipv6', dscp: number, classId: string): Filter => ({
  protocol,
  value: dscp << (protocol === 'ip' ? 18 : 22),
  mask: 0x3f << (protocol === 'ip' ? 18 : 22),
  classId,
});

export const classText = (c: ClassRate): string =>
  `htb ${c.prio === null ? '' : `prio ${c.prio} `}rate ${c.rate}bit ceil ${c.ceil}bit burst ${c.burst}b cburst ${c.cburst}b`;
export const leafText = (l: Leaf): string =>
  l.kind === 'bfifo'
    ? `bfifo limit ${l.limit}b`
    : `fq_codel limit ${FLOWS_LIMIT} target ${l.targetUs}us interval ${l.intervalUs}us`;
/** As it is read back, too. */
export const filterText = ({ protocol, value, mask, classId }: Filter): string =>
  `${protocol} ${hex(value)}/${hex(mask)} ${classId}`;
const hex = (n: number): string => n.toString(16).padStart(8, '0');
export const treeText = ({ classes }: ClassTree): string => `htb ${HANDLE} ${classes[0] ? classText(classes[0]) : ''}`;

export const classLine = (dev: string, c: ClassRate): string => {
  const parent = c.parent === 'root' ? HANDLE : c.parent;
  return `class replace dev ${dev} parent ${parent} classid ${c.id} ${classText(c)} quantum ${QUANTUM}`;
};
export const leafLine = (dev: string, l: Leaf): string =>
  `qdisc replace dev ${dev} parent ${l.classId} handle ${l.handle} ${leafText(l)}`;
const PREFERENCE = { ip: 1, ipv6: 2 } as const;
const filterLine = (dev: string, { protocol, value, mask, classId }: Filter): string =>
  `filter add dev ${dev} parent ${HANDLE} protocol ${protocol} pref ${PREFERENCE[protocol]} u32 ` +
  `match u32 0x${hex(value)} 0x${hex(mask)} at 0 classid ${classId}`;
/** @param instead there are some */
export const filterLines = (dev: string, filters: readonly Filter[], instead: boolean): string[] => [
  ...(instead ? [`filter del dev ${dev} parent ${HANDLE}`] : []),
  ...filters.map((f) => filterLine(dev, f)),
];

/** All of it. Until the classes are there, frames pass as they come. @param instead something of ours is there, and has to go first */
export const treeLines = (dev: string, tree: ClassTree, instead: boolean): string[] => [
  ...(instead ? [`qdisc del dev ${dev} root`] : []),
  `qdisc replace dev ${dev} root handle ${HANDLE} htb default 0x${OTHERS.toString(16)}`,
  ...tree.classes.map((c) => classLine(dev, c)),
  ...tree.leaves.map((l) => leafLine(dev, l)),
  ...filterLines(dev, tree.filters, false),
];

/** A queueing discipline as `tc -j -r qdisc show` has it. */
export interface FoundQdisc {
  readonly kind: string;
  readonly handle: string;
  /** Null: at the root. */
  readonly parent: string | null;
  readonly options: Readonly<Record<string, unknown>>;
}

/** A class as `tc class show` has it: rates as text ("100Mbit"), bursts in bytes. */
export interface FoundClass {
  readonly id: string;
  readonly parent: string;
  readonly prio: number | null;
  readonly rate: string;
  readonly ceil: string;
  readonly burst: number;
  readonly cburst: number;
}

/** What an interface has. */
export interface FoundTree {
  readonly ifindex: number;
  readonly qdiscs: readonly FoundQdisc[];
  readonly classes: readonly FoundClass[];
  /** As filterText(), in order; others as tc shows them. */
  readonly filters: readonly string[];
}

/** Of `tc -j -r qdisc show`, by interface. What is at the ingress (clsact) is left out. */
export function parseQdiscs(json: string): Map<string, FoundQdisc[]> {
  const out = new Map<string, FoundQdisc[]>();
  const items: unknown = json.trim() === '' ? [] : JSON.parse(json);
  for (const item of Array.isArray(items) ? (items as Record<string, unknown>[]) : []) {
    const { kind, handle, dev, root, parent, options } = item;
    if (typeof dev !== 'string' || (root !== true && String(parent).startsWith('ffff:'))) continue;
    const one = {
      kind: String(kind),
      handle: String(handle),
      parent: root === true ? null : String(parent),
      options: (options ?? {}) as Readonly<Record<string, unknown>>,
    };
    out.set(dev, [...(out.get(dev) ?? []), one]);
  }
  return out;
}

const CLASS =
  /^class htb (\S+) (?:parent )?(\S+) (?:leaf \S+ )?(?:prio (\d+) )?(?:quantum \S+ )?rate (\S+) ceil (\S+) .*?burst (\S+) .*?cburst (\S+)/;

/** Of HTB; what leaves have by themselves is left out. (iproute2 6.1 has no JSON for it.) */
export const parseClasses = (text: string): FoundClass[] =>
  text.split('\n').flatMap((line) => {
    const m = CLASS.exec(line);
    if (m === null || m[1]?.startsWith(HANDLE) !== true) return [];
    const [, id, parent = '', prio, rate = '', ceil = '', burst = '', cburst = ''] = m;
    const bursts = { burst: bytesOf(burst), cburst: bytesOf(cburst) };
    return [{ id, parent, prio: prio === undefined ? null : Number(prio), rate, ceil, ...bursts }];
  });

/** "1600b", "128Kb", "2Mb" (print_size() in iproute2's lib/utils_math.c). */
function bytesOf(text: string): number {
  const [, n = '', unit = ''] = /^([\d.]+)([KM]?)b/.exec(text) ?? [];
  return Number(n) * (unit === 'M' ? 2 ** 20 : unit === 'K' ? 1024 : 1);
}

/** Of `tc filter show dev …`: a line for each filter, with its matches and actions below it. */
export function parseFilters(text: string): string[] {
  const out: string[] = [];
  for (const block of text.split(/^(?=filter )/m)) {
    const [head = '', ...below] = block.split('\n').map((line) => line.trim());
    const rest = below.filter((line) => line !== '');
    const [, protocol, kind] = /protocol (\S+) pref \d+ (\S+)/.exec(head) ?? [];
    // A line for the preference, and one for u32's table, say nothing.
    if (protocol === undefined || (kind === 'u32' && !head.includes('::'))) continue;
    if (kind !== 'u32' && / chain \d+ *$/.test(head) && rest.length === 0) continue;
    const [, match] = /^match (\S+) at 0$/.exec(rest[0] ?? '') ?? [];
    const [, classId] = /flowid (\S+)/.exec(head) ?? [];
    out.push(match !== undefined && rest.length === 1 ? `${protocol} ${match} ${classId}` : [head, ...rest].join(' '));
  }
  return out;
}

/** As tc shows a rate (print_rate() in iproute2's lib/utils_math.c): whole units, cut off above a million of them. */
export function rateText(bits: number): string {
  let n = bits;
  let unit = 0;
  while (unit < 4 && n >= 1000 && !(n % 1000 !== 0 && n < 1e6)) {
    n = Math.floor(n / 1000);
    unit++;
  }
  return `${n}${['', 'K', 'M', 'G', 'T'][unit]}bit`;
}

/** Bursts are kept as whole microseconds of the rate, and shown in whole units where that is nearly right. */
export const isSameClass = (want: ClassRate, have: FoundClass): boolean =>
  want.parent === have.parent &&
  want.prio === have.prio &&
  rateText(want.rate) === have.rate &&
  rateText(want.ceil) === have.ceil &&
  Math.abs(want.burst - have.burst) <= (want.rate / 8) * 2e-6 + 1024 &&
  Math.abs(want.cburst - have.cburst) <= (want.ceil / 8) * 2e-6 + 1024;

/** Times come back a microsecond shorter. */
export function isSameLeaf(want: Leaf, { kind, handle, options }: FoundQdisc): boolean {
  if (kind !== want.kind || handle !== want.handle) return false;
  if (want.kind === 'bfifo') return options['limit'] === want.limit;
  const near = (n: unknown, us: number): boolean => Math.abs(Number(n) - us) <= 2;
  return (
    options['limit'] === FLOWS_LIMIT &&
    near(options['target'], want.targetUs) &&
    near(options['interval'], want.intervalUs)
  );
}

/** Our root, with frames of no filter in the right class. */
export const isOurRoot = (root: FoundQdisc | undefined): boolean => root?.kind === 'htb' && root.handle === HANDLE;
export const isWhole = (root: FoundQdisc | undefined): boolean =>
  isOurRoot(root) && Number(root?.options['default']) === OTHERS;
