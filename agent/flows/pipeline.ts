/**
 * Names of br-weft's tables, registers, priorities and cookies: the one place where their numbers stand. docs/pipeline.md explains
 * the same. Stages without flows yet keep their number; flows go to the next stage that has some.
 */

export const TABLE = {
  /** Which network, from which side. */
  classify: 0,
  /** A local endpoint sends only with its own MAC and address. */
  portSecurity: 4,
  /** ARP requests are answered here, on the sender's host. */
  arpNd: 8,
  /** An answer of neighbour discovery gets its last field. */
  ndReply: 9,
  conntrack: 12,
  policyEgress: 16,
  service: 20,
  /** To the host. */
  routing: 24,
  /** Between networks: where a packet goes on. */
  route: 25,
  /** By which of several ways; and whether it is too big for it. */
  hop: 26,
  /** Whose MAC it is, in the network that it goes on in. */
  neighbour: 27,
  /** Destination MAC to a local port, or to a tunnel. */
  l2: 28,
  /** Is it known who wants which multicast group? It is while the agent says so again and again. */
  snoop: 29,
  /** Copies of broadcasts and multicasts. */
  multicast: 30,
  policyIngress: 32,
  /** A routed packet is tracked in the network that it has come to, and judged then. */
  entered: 33,
  commit: 36,
  /** A connection that was allowed and is not any more. */
  revoke: 37,
  /** What a staged policy would have decided otherwise. */
  staged: 38,
  qos: 40,
  output: 44,
  /** MACs learned from trusted endpoints and external peers. */
  learned: 48,
  /** To the agent, metered. */
  punt: 52,
} as const;

export type Stage = keyof typeof TABLE;

/**
 * reg0: local network index (1..65535), also the conntrack zone. reg1: side. reg2: port to leave by. reg4: scratch. reg5: 1 = routed from
 * another network. reg6: 1 = copies go to a group's receivers. reg7: bit 0 = too big for its route, bits 31..16 = which of its hops. reg8 to reg11:
 * the address that it is sent to next, in IPv4 reg8 alone. reg12: the staged rule that would decide, 0 = none; reg13: what is decided instead, 1 drop,
 * 2 reject, 3 allow.
 */
export const REG = {
  network: 'reg0',
  side: 'reg1',
  out: 'reg2',
  scratch: 'reg4',
  routed: 'reg5',
  snooped: 'reg6',
  path: 'reg7',
  next4: 'reg8',
  next6: 'xxreg2',
  next6Low: 'reg11',
  staged: 'reg12',
  verdict: 'reg13',
} as const;

/** Where a frame came in: an endpoint of this host, another host, this host itself. */
export const SIDE = { local: 1n, tunnel: 2n, host: 3n } as const;

export const PRIORITY = {
  /** ICMP errors that the agent translates. */
  error: 520,
  /** The host's own questions, before what it passes on. */
  check: 510,
  /** Exceptions to what a local endpoint may do. */
  guard: 500,
  /** What is for a virtual address, and no port of it. */
  virtual: 490,
  /** What the gateway does not lead out. */
  barred: 480,
  /** Where a router leads to. */
  routed: 460,
  /** Broadcasts and multicasts of an endpoint of this host: counted. */
  capped: 450,
  /** An endpoint of this host. */
  local: 400,
  /** An endpoint of another host that its block does not describe. */
  entry: 300,
  /** Whatever a trusted endpoint sends. */
  trusted: 360,
  /** Neighbour discovery that is not true of a local endpoint. */
  ndDrop: 350,
  /** What a local endpoint sends otherwise. */
  plain: 300,
  /** A remote block, plus its prefix length: the longer one wins. */
  block: 100,
  /** More than an answer's: the question whether an address is taken. */
  probe: 50,
  flood: 50,
  default: 0,
} as const;

const OWNER = 0x57656674n; // "Weft"

/**
 * A flow's cookie: bits 63..32 say that it is Weft's, 31..24 the table, 15..0 the local network index (0 = no network).
 * Tools filter by it: `ovs-ofctl dump-flows br-weft cookie=0x5765667404000001/-1`.
 */
export const cookie = (stage: Stage, index: number): bigint =>
  (OWNER << 32n) | (BigInt(TABLE[stage]) << 24n) | BigInt(index);

/** Bits of a learned entry's cookie: it was not rendered, and comes and goes by itself. Bits 15..0: OpenFlow port, or network index. */
const LEARNED = { port: 1n << 23n, network: 1n << 22n } as const;

/** @param which tells peers of a network apart, 0..63 */
export const learnedCookie = (by: keyof typeof LEARNED, number: number, which = 0): bigint =>
  cookie('learned', number) | LEARNED[by] | (BigInt(which) << 16n);

export const isLearned = (f: { readonly table: number; readonly cookie: bigint }): boolean =>
  f.table === TABLE.learned && (f.cookie & (LEARNED.port | LEARNED.network)) !== 0n;
