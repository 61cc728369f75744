/** DNS names that policies are about. Pure. */

/** Lower case, without a final dot; null for what is none. "*." stands in front of it only. */
export function dnsName(text: string): string | null {
  const name = text.toLowerCase().replace(/\.$/, '');
  const labels = (name.startsWith('*.') ? name.slice(2) : name).split('.');
  const ok = name.length <= 253 && labels.every((label) => /^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/.test(label));
  return ok ? name : null;
}
