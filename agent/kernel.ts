/** The kernel side of this host (eBPF maps and programs): planned with the rest of a pass, applied after links and ports. */
import { describeValue } from './bpf/describe.ts';
import type { BpfDriver } from './bpf/driver.ts';
import { type EncodedMaps, encode } from './bpf/encode.ts';
import type { NetworkModel } from './flows/model.ts';
import type { Link } from './link/steps.ts';
import { type KernelSide, kernelLinks, kernelSide } from './plan/kernel.ts';
import { type AttachedProgram, type BpfStep, mapEntryId, planMaps, planPrograms } from './plan/maps.ts';
import type { Planned } from './plan/planned.ts';
import type { Wiring } from './wiring.ts';

export class Kernel {
  readonly #driver: BpfDriver;
  readonly #wiring: Wiring;
  /** By ifindex: what is at our place, as this process knows it. A link that is new has nothing. */
  #attached: Map<number, AttachedProgram> | null = null;
  #encoded: { side: KernelSide; maps: EncodedMaps } | null = null;
  /** What was wanted last, as kind and id → text, and of which bytes it was told. */
  #told: { readonly maps: EncodedMaps; readonly wanted: ReadonlyMap<string, string> } | null = null;

  constructor(driver: BpfDriver, wiring: Wiring) {
    this.#driver = driver;
    this.#wiring = wiring;
  }

  /** Somebody else may have been at work. */
  forget(): void {
    this.#attached = null;
  }

  /**
   * @param links as known now; the numbers of new ones are asked for.
   * @param fresh reads maps and programs anew
   */
  async plan(
    models: readonly NetworkModel[],
    links: ReadonlyMap<string, Link>,
    fresh: boolean,
  ): Promise<{ planned: Planned<BpfStep>[]; wanted: () => Map<string, string> }> {
    const side = kernelSide(models, this.#wiring, await this.#numbers(models, links));
    const maps = encode(side.model);
    const actual = (fresh ? null : this.#driver.observe()) ?? (await this.#driver.observeFresh());
    const places = [...side.attachments, ...side.bare];
    if (fresh || this.#attached === null) this.#attached = await this.#driver.attached(places.map((a) => a.ifindex));
    const known = this.#attached;
    const programs = planPrograms(
      side.attachments,
      new Map(places.map(({ ifindex }) => [ifindex, known.get(ifindex) ?? null])),
      side.bare,
    );
    this.#encoded = { side, maps };
    return {
      planned: [...planMaps(maps, actual), ...programs],
      wanted: () => this.#wantedOf(side, maps),
    };
  }

  /** @throws the first failure; what is known is then forgotten. */
  async apply(planned: readonly Planned<BpfStep>[]): Promise<void> {
    try {
      await this.#driver.apply(planned.map((p) => p.step));
    } catch (error) {
      this.forget();
      throw error;
    }
    for (const { step } of planned) {
      if (step.kind === 'attach') this.#attached?.set(step.ifindex, step.program);
      else if (step.kind === 'detach') this.#attached?.delete(step.ifindex);
    }
  }

  /** Readable text of what is wanted. */
  dump(): string {
    if (this.#encoded === null) return '';
    return [...this.#wantedOf(this.#encoded.side, this.#encoded.maps)]
      .map(([id, text]) => `${id} = ${text}`)
      .join('\n');
  }

  async #numbers(
    models: readonly NetworkModel[],
    links: ReadonlyMap<string, Link>,
  ): Promise<(name: string) => number | null> {
    const names = kernelLinks(models, this.#wiring);
    const unknown = names.filter((name) => (links.get(name)?.ifindex ?? null) === null);
    const asked = unknown.length === 0 ? new Map<string, number>() : await this.#driver.ifindexes(unknown);
    return (name) => links.get(name)?.ifindex ?? asked.get(name) ?? null;
  }

  /** Each pass asks, and what did not change is not put into words again. */
  #wantedOf(side: KernelSide, maps: EncodedMaps): Map<string, string> {
    const before = this.#told;
    const wanted = new Map<string, string>();
    for (const [map, entries] of maps) {
      const old = before?.maps.get(map);
      for (const [key, value] of entries) {
        const id = `map ${mapEntryId(map, key)}`;
        const kept = old?.get(key) === value ? before?.wanted.get(id) : undefined;
        wanted.set(id, kept ?? describeValue(map, value));
      }
    }
    for (const { link, program } of side.attachments) wanted.set(`program ${link}`, program);
    this.#told = { maps, wanted };
    return wanted;
  }
}
