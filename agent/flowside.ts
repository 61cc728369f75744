/** br-weft's flows and meters: rendered, compared with what is there, and changed, the flows in one bundle. */
import { type Memo, render } from './flows/memo.ts';
import type { BridgeModel } from './flows/model.ts';
import { renderMeters } from './flows/punt.ts';
import type { FlowDriver, MeterStep } from './openflow/driver.ts';
import type { Flow } from './openflow/flow.ts';
import type { Meter } from './openflow/meter.ts';
import { type FlowStep, type FlowTable, keyed, planFlows } from './plan/flows.ts';
import { planMeters } from './plan/meters.ts';
import type { Planned } from './plan/planned.ts';
import { Settled } from './plan/settled.ts';

export interface FlowPlan {
  readonly flows: Planned<FlowStep>[];
  readonly meters: Planned<MeterStep>[];
  /** All flows that are wanted. */
  readonly table: FlowTable;
  /** Meters that are wanted, as kind and id → text. */
  readonly wanted: () => Map<string, string>;
}

export class FlowSide {
  readonly #driver: FlowDriver;
  #flows: Map<string, Flow> | null = null;
  #meters: Map<number, Meter> = new Map();
  #maxMeters = 0;
  #rendered: FlowTable = new Map();
  #networks: BridgeModel['networks'] = [];
  readonly #memo: Memo = new Map();

  constructor(driver: FlowDriver) {
    this.#driver = driver;
  }

  get count(): number {
    return this.#flows?.size ?? 0;
  }

  /** As they were rendered last. */
  get networks(): BridgeModel['networks'] {
    return this.#networks;
  }

  /** The switch, or somebody else, may have changed them: they are read anew. */
  forget(): void {
    this.#flows = null;
  }

  /** @param reachable false: the bridge is not there, or does not speak to us until it is mended; then no flows are known. */
  async observe(reachable: boolean): Promise<void> {
    if (!reachable) {
      this.#flows = new Map();
      this.#meters = new Map();
      return;
    }
    const [flows, meters, most] = await Promise.all([
      this.#driver.observe(),
      this.#driver.observeMeters(),
      this.#driver.maxMeters(),
    ]);
    this.#flows = keyed(flows);
    this.#meters = meters;
    this.#maxMeters = most;
  }

  get known(): boolean {
    return this.#flows !== null;
  }

  plan(model: Omit<BridgeModel, 'maxMeters'>): FlowPlan {
    const whole = { ...model, maxMeters: this.#maxMeters };
    const table = render(whole, this.#memo);
    const wanted = renderMeters(whole);
    this.#rendered = table;
    this.#networks = model.networks;
    const flows = planFlows(table, this.#flows ?? new Map());
    this.#adopt(table, flows);
    return {
      flows,
      meters: planMeters(wanted, this.#meters),
      table,
      wanted: () => new Map(planMeters(wanted, new Map()).map((p) => [Settled.key(p.kind, p.id), p.want])),
    };
  }

  /** What was found to be as it is wanted is known by identity from now on: the next passes compare only what changed. */
  #adopt(table: FlowTable, planned: readonly Planned<FlowStep>[]): void {
    const changing = new Set(planned.map((p) => p.id));
    for (const [key, want] of table) if (!changing.has(key)) this.#flows?.set(key, want);
  }

  /** A flow may name a meter only once it is there, and goes with it. */
  async apply(flows: readonly Planned<FlowStep>[], meters: readonly Planned<MeterStep>[]): Promise<void> {
    const [down, up] = [meters.filter((p) => p.change === 'extra'), meters.filter((p) => p.change !== 'extra')];
    await this.#applyMeters(up.map((p) => p.step));
    await this.#applyFlows(flows);
    await this.#applyMeters(down.map((p) => p.step));
  }

  /** Flows that end by themselves begin anew. */
  async repeat(): Promise<void> {
    const add = [...this.#rendered].filter(([key, f]) => f.hardTimeout !== undefined && this.#flows?.has(key) === true);
    if (add.length > 0) await this.#driver.apply({ add: add.map(([, f]) => f), remove: [] });
  }

  async #applyMeters(steps: readonly MeterStep[]): Promise<void> {
    try {
      await this.#driver.applyMeters(steps);
    } catch (error) {
      this.#flows = null;
      throw error;
    }
    for (const { kind, meter } of steps) {
      if (kind === 'removeMeter') this.#meters.delete(meter.id);
      else this.#meters.set(meter.id, meter);
    }
  }

  async #applyFlows(planned: readonly Planned<FlowStep>[]): Promise<void> {
    if (planned.length === 0) return;
    const add = planned.filter((p) => p.step.kind === 'addFlow').map((p) => p.step.flow);
    const remove = planned.filter((p) => p.step.kind === 'removeFlow').map((p) => p.step.flow);
    try {
      await this.#driver.apply({ add, remove });
    } catch (error) {
      this.#flows = null;
      throw error;
    }
    const flows = this.#flows;
    if (flows === null) return;
    for (const key of keyed(remove).keys()) flows.delete(key);
    for (const [key, flow] of keyed(add)) flows.set(key, flow);
  }
}
