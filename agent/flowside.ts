/** br-weft's flows: rendered, compared with what is there, and changed in one bundle. */
import type { Entry } from './flows/memo.ts';
import { render } from './flows/memo.ts';
import type { BridgeModel } from './flows/model.ts';
import type { FlowDriver } from './openflow/driver.ts';
import type { Flow } from './openflow/flow.ts';
import { type FlowStep, type FlowTable, keyed, planFlows } from './plan/flows.ts';
import type { Planned } from './plan/planned.ts';

export class FlowSide {
  readonly #driver: FlowDriver;
  #flows: Map<string, Flow> | null = null;
  readonly #memo = new Map<number, Entry>();

  constructor(driver: FlowDriver) {
    this.#driver = driver;
  }

  get count(): number {
    return this.#flows?.size ?? 0;
  }

  /** The switch, or somebody else, may have changed them: they are read anew. */
  forget(): void {
    this.#flows = null;
  }

  /** @param reachable false: the bridge is not there, or does not speak to us until it is mended; then no flows are known. */
  async observe(reachable: boolean): Promise<void> {
    this.#flows = keyed(reachable ? await this.#driver.observe() : []);
  }

  get known(): boolean {
    return this.#flows !== null;
  }

  plan(model: BridgeModel): { planned: Planned<FlowStep>[]; table: FlowTable } {
    const table = render(model, this.#memo);
    return { planned: planFlows(table, this.#flows ?? new Map()), table };
  }

  async apply(planned: readonly Planned<FlowStep>[]): Promise<void> {
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
