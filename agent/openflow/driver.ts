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
import { Writer } from './wire.ts';

export type { FlowStats } from './messages.ts';

export interface FlowChanges {
  /** Installed, in place of a flow of the same key. */
  readonly add: readonly Flow[];
  /** Removed by key; cookie and actions do not matter. */
  readonly remove: readonly Flow[];
}

export class FlowDriver {
  readonly #client: OpenFlowClient;
  #bundle = 0;

  /** @param client started and closed by the caller. */
  constructor(client: OpenFlowClient) {
    this.#client = client;
  }

  /** All flows of all tables, asked of the switch now, with their counters. */
  async observe(timeoutMs = 10_000): Promise<FlowStats[]> {
    const parts = await this.#client.request(writeFlowStatsRequest, timeoutMs);
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
    const mods = [
      ...remove.map((flow) => ({ command: 'remove' as const, flow })),
      ...add.map((flow) => ({ command: 'add' as const, flow })),
    ];
    if (mods.length === 0) return this.#client.barrier(timeoutMs);
    const client = this.#client;
    const bundle = ++this.#bundle;
    const open = client.allocate(mods.length + 3);
    const [first, commit, barrier] = [open + 1, open + 1 + mods.length, open + 2 + mods.length];
    const writer = new Writer(mods.length * 256 + 256);
    writeBundleControl(writer, open, bundle, BUNDLE.open);
    for (const [index, { command, flow }] of mods.entries()) {
      const xid = first + index;
      try {
        writeBundleAdd(writer, xid, bundle, () => writeFlowMod(writer, xid, command, flow));
      } catch (error) {
        const { code, message } = WeftError.from(error);
        throw new WeftError(code, `The flow ${describe(flow)} cannot be written: ${message}`, { cause: error });
      }
    }
    writeBundleControl(writer, commit, bundle, BUNDLE.commit);
    writeMessage(writer, TYPE.barrierRequest, barrier);

    let refusal: WeftError | null = null;
    const unsubscribe = client.onRefusal(({ xid, error }) => {
      const mod = mods[xid - first];
      if (mod === undefined || refusal !== null) return;
      refusal = new WeftError(error.code, `${error.message} The flow: ${formatFlow(mod.flow)}`, { cause: error });
    });
    try {
      const replies = [client.reply(open, timeoutMs), client.reply(commit, timeoutMs), client.reply(barrier, timeoutMs)];
      await Promise.all([Promise.allSettled(replies), client.send(writer.bytes())]);
      if (refusal !== null) throw refusal as WeftError;
      await Promise.all(replies);
    } finally {
      unsubscribe();
    }
  }
}

/** What can be said of a flow that may not make sense. */
function describe(flow: Flow): string {
  try {
    return formatFlowKey(flow);
  } catch {
    return `of table ${flow.table}`;
  }
}
