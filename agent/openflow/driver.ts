/** Flows of one bridge as a driver: what is installed, and changes applied as one atomic bundle. It decides nothing. */
import { WeftError } from '../../lib/errors.ts';
import type { OpenFlowClient } from './client.ts';
import { type Flow, flowKey } from './flow.ts';
import { formatFlow, formatFlowKey } from './format.ts';
import {
  BUNDLE,
  type FlowStats,
  readFlowStats,
  readMultipart,
  TYPE,
  writeBundleAdd,
  writeBundleControl,
  writeFlowMod,
  writeFlowStatsRequest,
  writeMessage,
} from './messages.ts';
import {
  formatMeter,
  METER_CONFIG,
  METER_STATS,
  type Meter,
  type MeterStats,
  readMeterConfig,
  readMeterFeatures,
  readMeterStats,
  writeMeterFeaturesRequest,
  writeMeterMod,
  writeMeterRequest,
} from './meter.ts';
import { FLOW_MONITOR, type FlowUpdate, readFlowUpdates, writeMonitorRequest } from './monitor.ts';
import { Writer } from './wire.ts';

export type { FlowStats } from './messages.ts';
export type { FlowUpdate } from './monitor.ts';

export interface FlowChanges {
  /** Installed, in place of a flow of the same key. */
  readonly add: readonly Flow[];
  /** Removed by key; cookie and actions do not matter. */
  readonly remove: readonly Flow[];
}

export type MeterStep =
  | { readonly kind: 'addMeter'; readonly meter: Meter }
  | { readonly kind: 'setMeter'; readonly meter: Meter }
  | { readonly kind: 'removeMeter'; readonly meter: Meter };

const COMMANDS = { addMeter: 'add', setMeter: 'modify', removeMeter: 'delete' } as const;

interface FlowMod {
  readonly command: 'add' | 'remove';
  readonly flow: Flow;
}

export class FlowDriver {
  readonly #client: OpenFlowClient;
  #bundle = 0;
  #monitor = 0;

  /** @param client started and closed by the caller. */
  constructor(client: OpenFlowClient) {
    this.#client = client;
  }

  /** All flows of all tables, or of one, asked of the switch now, with their counters. */
  async observe(timeoutMs = 10_000, table?: number): Promise<FlowStats[]> {
    const parts = await this.#client.request((writer, xid) => writeFlowStatsRequest(writer, xid, table), timeoutMs);
    return parts.flatMap((part) => readFlowStats(readMultipart(part.body).body));
  }

  /** The same by `flowKey`. */
  async observeByKey(timeoutMs?: number): Promise<Map<string, FlowStats>> {
    return new Map((await this.observe(timeoutMs)).map((flow) => [flowKey(flow), flow]));
  }

  /**
   * All changes or none: removals first, then additions; done when the barrier after them is answered. Throws
   * INVALID_ARGUMENT for a flow that cannot be written, INTERNAL or RESOURCE_EXHAUSTED for one that the switch refuses
   * (each names the flow), UNAVAILABLE and DEADLINE_EXCEEDED when it is not known whether they are installed.
   */
  async apply({ add, remove }: FlowChanges, options: { timeoutMs?: number } = {}): Promise<void> {
    const timeoutMs = options.timeoutMs ?? 10_000;
    const mods: FlowMod[] = [
      ...remove.map((flow) => ({ command: 'remove' as const, flow })),
      ...add.map((flow) => ({ command: 'add' as const, flow })),
    ];
    if (mods.length === 0) return this.#client.barrier(timeoutMs);
    const deadline = performance.now() + timeoutMs;
    const left = (): number => Math.max(1, deadline - performance.now());
    const bundle = ++this.#bundle;
    await this.#stage(bundle, mods, left);
    await this.#control(bundle, BUNDLE.commit, left());
    await this.#client.barrier(left());
  }

  /**
   * Opens a bundle and fills it. Open vSwitch leaves a message that it refuses out of the bundle, and would commit the
   * others: the bundle is thrown away then.
   */
  async #stage(bundle: number, mods: readonly FlowMod[], left: () => number): Promise<void> {
    const client = this.#client;
    const open = client.allocate(mods.length + 2);
    const first = open + 1;
    const barrier = first + mods.length;
    const writer = new Writer(mods.length * 256 + 256);
    writeBundleControl(writer, open, bundle, BUNDLE.open);
    for (const [index, mod] of mods.entries()) writeStaged(writer, first + index, bundle, mod);
    writeMessage(writer, TYPE.barrierRequest, barrier);

    let refusal: WeftError | null = null;
    const unsubscribe = client.onRefusal(({ xid, error }) => {
      const mod = mods[xid - first];
      if (mod !== undefined) refusal ??= withFlow(error, mod.flow);
    });
    try {
      const replies = [client.reply(open, left()), client.reply(barrier, left())];
      await Promise.all([...replies, client.send(writer.bytes())]);
    } finally {
      unsubscribe();
    }
    if (refusal === null) return;
    await this.#control(bundle, BUNDLE.discard, left());
    throw refusal as WeftError;
  }

  /** All meters by id, asked of the switch now. */
  async observeMeters(timeoutMs = 10_000): Promise<Map<number, Meter>> {
    const parts = await this.#multipart(METER_CONFIG, timeoutMs);
    return new Map(parts.flatMap(readMeterConfig).map((meter) => [meter.id, meter]));
  }

  /** Greatest number that a meter can have; 0 = this datapath has none. */
  async maxMeters(timeoutMs = 10_000): Promise<number> {
    const parts = await this.#client.request(writeMeterFeaturesRequest, timeoutMs);
    return parts.reduce((most, part) => Math.max(most, readMeterFeatures(readMultipart(part.body).body)), 0);
  }

  /** What meters let pass and dropped, by id. */
  async meterStats(timeoutMs = 10_000): Promise<Map<number, MeterStats>> {
    const parts = await this.#multipart(METER_STATS, timeoutMs);
    return new Map(parts.flatMap(readMeterStats).map((stats) => [stats.id, stats]));
  }

  /**
   * One after the other, done when the barrier after them is answered. A flow may name a meter only once it is there, and one that is
   * removed takes the flows that name it along. Throws what the switch refuses first, naming the meter.
   */
  async applyMeters(steps: readonly MeterStep[], timeoutMs = 10_000): Promise<void> {
    if (steps.length === 0) return;
    const client = this.#client;
    const first = client.allocate(steps.length + 1);
    const writer = new Writer(steps.length * 32 + 16);
    for (const [index, { kind, meter }] of steps.entries()) writeMeterMod(writer, first + index, COMMANDS[kind], meter);
    const barrier = first + steps.length;
    writeMessage(writer, TYPE.barrierRequest, barrier);
    let refusal: WeftError | null = null;
    const unsubscribe = client.onRefusal(({ xid, error }) => {
      const step = steps[xid - first];
      if (step !== undefined)
        refusal ??= new WeftError(error.code, `${error.message} The meter: ${formatMeter(step.meter)}`);
    });
    try {
      await Promise.all([client.reply(barrier, timeoutMs), client.send(writer.bytes())]);
    } finally {
      unsubscribe();
    }
    if (refusal !== null) throw refusal as WeftError;
  }

  async #multipart(kind: number, timeoutMs: number): Promise<Buffer[]> {
    const parts = await this.#client.request((writer, xid) => writeMeterRequest(writer, xid, kind), timeoutMs);
    return parts.map((part) => readMultipart(part.body).body);
  }

  /**
   * Tells of flows changed by anybody but this driver's own connection; also of `paused`, after which a change may have
   * gone untold. Watching begins anew with each connection (whose `onUp` is the notice for what happened in between), and
   * is silently not there with a switch that cannot do it. Returns the function that ends it.
   */
  watchFlows(listener: (updates: readonly FlowUpdate[]) => void): () => void {
    const id = ++this.#monitor;
    const stopUp = this.#client.onUp(() => {
      this.#client.request((writer, xid) => writeMonitorRequest(writer, xid, id)).catch(() => undefined);
    });
    const stopMessages = this.#client.onMessage((message) => {
      if (message.type !== TYPE.multipartReply) return;
      const { kind, body } = readMultipart(message.body);
      if (kind !== FLOW_MONITOR) return;
      const updates = readFlowUpdates(body).filter((update) => update.event !== 'abbreviated');
      if (updates.length > 0) listener(updates);
    });
    return () => {
      stopUp();
      stopMessages();
    };
  }

  async #control(bundle: number, type: number, timeoutMs: number): Promise<void> {
    await this.#client.request((writer, xid) => writeBundleControl(writer, xid, bundle, type), timeoutMs);
  }
}

function writeStaged(writer: Writer, xid: number, bundle: number, { command, flow }: FlowMod): void {
  try {
    writeBundleAdd(writer, xid, bundle, () => writeFlowMod(writer, xid, command, flow));
  } catch (error) {
    const { code, message } = WeftError.from(error);
    throw new WeftError(code, `The flow ${describe(flow)} cannot be written: ${message}`, { cause: error });
  }
}

const withFlow = (error: WeftError, flow: Flow): WeftError =>
  new WeftError(error.code, `${error.message} The flow: ${formatFlow(flow)}`, { cause: error });

/** What can be said of a flow that may not make sense. */
function describe(flow: Flow): string {
  try {
    return formatFlowKey(flow);
  } catch {
    return `of table ${flow.table}`;
  }
}
