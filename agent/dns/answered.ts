/** Which addresses a reply gives to the name of its question, by however many aliases (CNAME). Trusts nothing in it. Pure. */
import { decode } from 'dns-packet';

/** An alias of an alias …; resolvers give up earlier. */
const MOST_ALIASES = 16;

/** @returns TTLs in seconds, the least on the way; empty for what is no answer, or cannot be read */
export function answeredBy(reply: Buffer): { readonly ip: string; readonly ttl: number }[] {
  const packet = tryDecode(reply);
  const [question] = packet?.questions ?? [];
  if (packet === null || question === undefined) return [];
  let name = question.name.toLowerCase();
  let least = Number.POSITIVE_INFINITY;
  const records = packet.answers ?? [];
  for (let i = 0; i < MOST_ALIASES; i++) {
    const own = records.filter((r) => r.name.toLowerCase() === name);
    const found = own.flatMap((r) =>
      r.type === 'A' || r.type === 'AAAA' ? [{ ip: r.data, ttl: Math.min(least, r.ttl ?? 0) }] : [],
    );
    if (found.length > 0) return found;
    const alias = own.find((r) => r.type === 'CNAME');
    if (alias?.type !== 'CNAME') return [];
    name = alias.data.toLowerCase();
    least = Math.min(least, alias.ttl ?? 0);
  }
  return [];
}

function tryDecode(reply: Buffer) {
  try {
    return decode(reply);
  } catch {
    return null;
  }
}
