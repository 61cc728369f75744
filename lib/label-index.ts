/** Finds by selector without looking at everything: by the rarest of its labels. Pure. */
import { selects } from './selector.ts';

type Labels = Readonly<Record<string, string>>;

export class LabelIndex<T> {
  readonly #labels: (item: T) => Labels;
  readonly #items: readonly T[];
  #byPair: Map<string, T[]> | null = null;

  constructor(items: readonly T[], labels: (item: T) => Labels) {
    this.#items = items;
    this.#labels = labels;
  }

  /** Those that have all of the selector's labels, in their order; a selector without any selects nobody. */
  find(selector: Labels): T[] {
    const pairs = Object.entries(selector);
    if (pairs.length === 0) return [];
    this.#byPair ??= this.#index();
    let fewest: readonly T[] | null = null;
    for (const [key, value] of pairs) {
      const having = this.#byPair.get(pairOf(key, value)) ?? [];
      if (fewest === null || having.length < fewest.length) fewest = having;
    }
    return (fewest ?? []).filter((item) => selects(selector, this.#labels(item)));
  }

  #index(): Map<string, T[]> {
    const byPair = new Map<string, T[]>();
    for (const item of this.#items)
      for (const [key, value] of Object.entries(this.#labels(item))) {
        const pair = pairOf(key, value);
        const having = byPair.get(pair);
        if (having === undefined) byPair.set(pair, [item]);
        else having.push(item);
      }
    return byPair;
  }
}

/** A key cannot swallow a part of a value: its length stands first. */
const pairOf = (key: string, value: string): string => `${key.length} ${key} ${value}`;
