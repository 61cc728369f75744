/** Which services an endpoint's labels put it behind. Pure. */
import type { Service } from '../../lib/model.ts';
import { selects } from '../../lib/selector.ts';

type Labels = Readonly<Record<string, string>>;

/** Answers for labels without looking at each service: by one label of each selector. */
export function bySelector(services: Iterable<Service>): (labels: Labels) => Service[] {
  const index = new Map<string, Map<string, Service[]>>();
  for (const service of services) {
    const [pair] = Object.entries(service.selector).sort(([a], [b]) => (a < b ? -1 : 1));
    if (pair === undefined) continue;
    const [key, value] = pair;
    const values = index.get(key) ?? new Map<string, Service[]>();
    index.set(key, values);
    const known = values.get(value);
    if (known === undefined) values.set(value, [service]);
    else known.push(service);
  }
  return (labels) => {
    const out: Service[] = [];
    for (const [key, values] of index)
      for (const service of values.get(labels[key] ?? '') ?? [])
        if (selects(service.selector, labels)) out.push(service);
    return out;
  };
}
