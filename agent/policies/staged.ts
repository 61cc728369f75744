/**
 * What staged policies would have decided otherwise: the switch counts it, rule by rule; a few of these connections are also told of,
 * with their ends. While the agent is away nobody is told, and the switch goes on counting.
 */
import { Event } from '../../gen/weft/v1/types.ts';
import { formatIp } from '../../lib/addr.ts';
import { type Clock, rfc3339 } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { NetworkModel } from '../flows/model.ts';
import { REG, TABLE } from '../flows/pipeline.ts';
import type { Direction, RuleModel, StagedRule, Verdict } from '../flows/policy-model.ts';
import { PUNT } from '../flows/punt.ts';
import { VERDICTS } from '../flows/staged.ts';
import type { FlowStats } from '../openflow/driver.ts';
import type { FieldName, Flow } from '../openflow/flow.ts';
import type { Packets } from '../openflow/packets.ts';
import type { PacketIn } from '../openflow/punted.ts';

/** The same connection's attempts are told once in this time. */
const AGAIN_MS = 60_000;
/** Connections that are remembered as told. */
const MOST_TOLD = 1024;

export interface StagedSources {
  /** As they were rendered last. */
  readonly networks: () => readonly Pick<NetworkModel, 'index' | 'policies'>[];
  /** Name of a network by its local index. */
  readonly nameOf: (index: number) => string;
  /** Table `staged`, with its counters. */
  readonly read: () => Promise<readonly FlowStats[]>;
}

/** Of one rule. */
export interface StagedCount {
  readonly network: string;
  readonly policy: string;
  readonly rule: number;
  readonly direction: Direction;
  /** First packets of connections that it would have decided otherwise, since the agent started. */
  readonly packets: number;
}

export class StagedCounts {
  readonly #s: StagedSources;
  /** By flow: what it said last. */
  readonly #seen = new Map<string, bigint>();
  readonly #totals = new Map<string, bigint>();

  constructor(sources: StagedSources) {
    this.#s = sources;
  }

  /** Of the rules that are there now. Asks the switch only where there are any. @throws as FlowDriver.observe */
  async read(): Promise<StagedCount[]> {
    const rules = stagedRules(this.#s.networks());
    if (rules.size === 0) return [];
    for (const flow of await this.#s.read()) this.#count(flow);
    for (const known of [this.#seen, this.#totals])
      for (const key of known.keys()) if (!rules.has(key.split(' ')[0] ?? '')) known.delete(key);
    return [...rules].map(([key, { index, direction, staged }]) => ({
      network: this.#s.nameOf(index),
      policy: staged.policy,
      rule: staged.rule,
      direction,
      packets: Number(this.#totals.get(key) ?? 0n),
    }));
  }

  #count(flow: FlowStats): void {
    const [index, id, verdict] = [REG.network, REG.staged, REG.verdict].map((field) => fieldOf(flow, field));
    if (flow.table !== TABLE.staged || index === undefined || id === undefined) return;
    const key = keyOf(index, id);
    const before = this.#seen.get(`${key} ${verdict}`) ?? 0n;
    // A flow that was put in anew begins at zero.
    const more = flow.packets < before ? flow.packets : flow.packets - before;
    this.#seen.set(`${key} ${verdict}`, flow.packets);
    this.#totals.set(key, (this.#totals.get(key) ?? 0n) + more);
  }
}

const keyOf = (index: bigint | number, id: bigint | number): string => `${index}/${id}`;
const fieldOf = (flow: Flow, field: FieldName): bigint | undefined => {
  const found = flow.match.find((m) => m.field === field);
  return found === undefined || found.field === 'raw' ? undefined : found.value;
};

interface Rule extends RuleModel {
  readonly index: number;
  readonly staged: StagedRule;
}

/** By network and number. */
function stagedRules(networks: readonly Pick<NetworkModel, 'index' | 'policies'>[]): Map<string, Rule> {
  const rules = new Map<string, Rule>();
  for (const { index, policies } of networks)
    for (const rule of policies?.staged === true ? policies.rules : [])
      if (rule.staged !== undefined) rules.set(keyOf(index, rule.id), { ...rule, index, staged: rule.staged });
  return rules;
}

export interface StagedTold extends Omit<StagedSources, 'read'> {
  readonly host: string;
  readonly event: (event: Event) => void;
  readonly clock: Clock;
  readonly log: Log;
}

/** From now on, for as long as there are packets. */
export function tellStaged(packets: Pick<Packets, 'on'>, o: StagedTold): void {
  const told = new Map<string, number>();
  packets.on(PUNT.staged, (packet) => {
    const found = stagedOf(packet, o.networks());
    if (found === null) return;
    const { index, policy, rule, direction, would, now, ends } = found;
    const object = `${o.nameOf(index)}/${policy}`;
    const key = `${object} ${direction} ${rule} ${ends.key}`;
    const at = o.clock.monotonic();
    if (at - (told.get(key) ?? -Infinity) < AGAIN_MS) return;
    told.delete(key);
    told.set(key, at);
    for (const oldest of told.keys()) if (told.size > MOST_TOLD) told.delete(oldest);
    const message = `${direction} rule ${rule} would ${would} ${ends.text}; in force: ${now}`;
    o.log.info({ policy: object, direction, rule, would, now, connection: ends.text }, 'a staged policy differs');
    o.event(
      Event.fromPartial({ type: 'policy', time: rfc3339(o.clock), host: o.host, action: 'staged', object, message }),
    );
  });
}

interface Found {
  readonly index: number;
  readonly policy: string;
  readonly rule: number;
  readonly direction: Direction;
  readonly would: Verdict;
  readonly now: Verdict;
  readonly ends: Ends;
}

/** Which rule it was, what it would do, what is done, and with which connection; null: it has gone meanwhile, or it cannot be read. */
export function stagedOf(
  { data, fields }: Pick<PacketIn, 'data' | 'fields'>,
  networks: readonly Pick<NetworkModel, 'index' | 'policies'>[],
): Found | null {
  const index = fields.get(REG.network);
  const id = fields.get(REG.staged);
  const now = VERDICTS[Number(fields.get(REG.verdict) ?? 0n) - 1];
  const rule = stagedRules(networks).get(keyOf(index ?? 0n, id ?? 0n));
  const ends = endsOf(data);
  if (rule === undefined || now === undefined || ends === null) return null;
  const { policy, rule: place } = rule.staged;
  return { index: rule.index, policy, rule: place, direction: rule.direction, would: rule.action, now, ends };
}

interface Ends {
  readonly text: string;
  /** The same for each attempt: without the caller's port. */
  readonly key: string;
}

const ETHER = { header: 14, ip4: 0x0800, ip6: 0x86dd } as const;
const NAMES: Readonly<Record<number, string>> = { 1: 'icmp', 6: 'tcp', 17: 'udp', 58: 'icmp', 132: 'sctp' };
const PORTS = [6, 17, 132];

/** Source, destination, protocol and ports of a frame that a container has sent: nothing is trusted. */
export function endsOf(frame: Buffer): Ends | null {
  if (frame.length < ETHER.header) return null;
  const body = frame.subarray(ETHER.header);
  const four = frame.readUInt16BE(12) === ETHER.ip4;
  if (!four && frame.readUInt16BE(12) !== ETHER.ip6) return null;
  const header = four ? ((body[0] ?? 0) & 15) * 4 : 40;
  if (body.length < Math.max(20, header)) return null;
  const protocol = body[four ? 9 : 6]!;
  const [from, to] = four
    ? [body.subarray(12, 16), body.subarray(16, 20)]
    : [body.subarray(8, 24), body.subarray(24, 40)];
  const payload = body.subarray(header);
  const name = NAMES[protocol] ?? `protocol ${protocol}`;
  const [source, destination] = [addressOf(from), addressOf(to)];
  if (PORTS.includes(protocol) && payload.length >= 4) {
    const [a, b] = [payload.readUInt16BE(0), payload.readUInt16BE(2)];
    const at = (ip: string, port: number): string => (four ? `${ip}:${port}` : `[${ip}]:${port}`);
    return {
      text: `${name} ${at(source, a)} → ${at(destination, b)}`,
      key: `${name} ${source} ${destination} ${b}`,
    };
  }
  const kind = name === 'icmp' && payload.length >= 2 ? `icmp/${payload[0]}/${payload[1]}` : name;
  return { text: `${kind} ${source} → ${destination}`, key: `${kind} ${source} ${destination}` };
}

const addressOf = (bytes: Buffer): string =>
  formatIp(
    bytes.length === 4 ? 0xffff_0000_0000n | BigInt(bytes.readUInt32BE(0)) : BigInt(`0x${bytes.toString('hex')}`),
  );
