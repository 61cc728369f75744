/** Selectors of labels: who is behind a service. Pure. */
type Labels = Readonly<Record<string, string>>;

/** True when all of the selector's labels are among them, with its values; a selector without any selects nobody. */
export function selects(selector: Labels, labels: Labels): boolean {
  const pairs = Object.entries(selector);
  return pairs.length > 0 && pairs.every(([key, value]) => Object.hasOwn(labels, key) && labels[key] === value);
}
