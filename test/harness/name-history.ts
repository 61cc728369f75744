/**
 * Judges what resolvers said of names while containers came and went: pure, over a recorded history. A container's life is known by
 * moments of its own host's Docker: when its start was asked for (no answer may name its address before), when the start had returned
 * (from then on it is known), when it ended, and when Docker had taken it off its network, of which it tells nobody before. All times
 * are epoch milliseconds of one clock.
 */

export interface Life {
  readonly name: string;
  readonly host: string;
  readonly ip: string;
  readonly asked: number;
  readonly known: number;
  /** Infinity: it still runs. */
  readonly ended: number;
  readonly left: number;
}

/** A question, asked in a container. */
export interface Ask {
  readonly host: string;
  readonly name: string;
  readonly sent: number;
  readonly received: number;
  /** Empty: there is no such name, or it has no address. Null: nobody answered, or SERVFAIL. */
  readonly ips: readonly string[] | null;
}

export type Fault =
  /** An address of a container of that name that had to be forgotten `late` ms before. */
  | { readonly kind: 'stale'; readonly ask: Ask; readonly ip: string; readonly late: number }
  /** An address that no container of that name had by then. */
  | { readonly kind: 'wrong'; readonly ask: Ask; readonly ip: string }
  /** A container that ran all the while, and was known for longer than the bound, is not in the answer. `late`: since then, ms. */
  | { readonly kind: 'missing'; readonly ask: Ask; readonly life: Life; readonly late: number };

export interface Verdict {
  readonly faults: readonly Fault[];
  /** Answers that named a container that had ended already, within the bound or not: ms since its end. */
  readonly goneMs: readonly number[];
  /** Of each life, on each host that asked: from being known to the first answer that names it, ms; 0: at once. */
  readonly foundMs: readonly number[];
  /** Questions for which an answer was owed or forbidden: those that could have failed. */
  readonly judged: number;
}

/**
 * @param boundMs how much later than it happened a start, or an end, may still be unknown. Where Docker itself has taken longer to take
 * a container off its network, a quarter of that is left from then on.
 */
export function judge(lives: readonly Life[], asks: readonly Ask[], boundMs: number): Verdict {
  const byName = Map.groupBy(lives, (life) => life.name);
  const faults: Fault[] = [];
  const goneMs: number[] = [];
  let judged = 0;
  for (const ask of asks) {
    const known = byName.get(ask.name) ?? [];
    for (const ip of ask.ips ?? []) {
      const fault = judgeAddress(ask, ip, known, boundMs, goneMs);
      if (fault !== null) faults.push(fault);
    }
    const owed = known.filter((life) => life.known + boundMs < ask.sent && ask.received < life.ended);
    for (const life of owed)
      if (!(ask.ips ?? []).includes(life.ip))
        faults.push({ kind: 'missing', ask, life, late: ask.sent - life.known - boundMs });
    if (owed.length > 0 || known.some((life) => forgotten(life, boundMs) < ask.sent)) judged++;
  }
  return { faults, goneMs, foundMs: foundTimes(lives, asks), judged };
}

const forgotten = (life: Life, boundMs: number): number => Math.max(life.ended + boundMs, life.left + boundMs / 4);

function judgeAddress(
  ask: Ask,
  ip: string,
  known: readonly Life[],
  boundMs: number,
  goneMs: number[],
): Extract<Fault, { ip: string }> | null {
  const had = known.filter((life) => life.ip === ip && life.asked <= ask.received);
  if (had.length === 0) return { kind: 'wrong', ask, ip };
  // It may have ended while the answer was on its way.
  const since = ask.sent - Math.max(...had.map((life) => life.ended));
  if (since <= 0) return null;
  goneMs.push(since);
  const late = ask.sent - Math.max(...had.map((life) => forgotten(life, boundMs)));
  return late > 0 ? { kind: 'stale', ask, ip, late } : null;
}

/** Lives that nobody asked for while they ran, or that ended before they were found, say nothing. */
function foundTimes(lives: readonly Life[], asks: readonly Ask[]): number[] {
  const byName = Map.groupBy(asks, (ask) => ask.name);
  return lives.flatMap((life) => {
    const during = (byName.get(life.name) ?? []).filter((a) => a.received >= life.known && a.received < life.ended);
    return Map.groupBy(during, (a) => a.host)
      .values()
      .toArray()
      .flatMap((of) => {
        const first = of.find((a) => a.ips?.includes(life.ip));
        return first === undefined ? [] : [first === of[0] ? 0 : first.received - life.known];
      });
  });
}

/** For whoever reads why a test failed: one line each. */
export const faultText = (fault: Fault): string => {
  const { ask } = fault;
  const told = ask.ips === null ? 'no answer' : ask.ips.length === 0 ? 'no such name' : ask.ips.join(', ');
  const asked = `${ask.name} asked on ${ask.host} at ${ask.sent}, answered after ${ask.received - ask.sent} ms: ${told}`;
  switch (fault.kind) {
    case 'stale':
      return `stale by ${fault.late} ms: ${asked}`;
    case 'wrong':
      return `wrong ${fault.ip}: ${asked}`;
    case 'missing':
      return `missing for ${fault.late} ms: ${asked}; ${fault.life.ip} on ${fault.life.host} was known at ${fault.life.known}`;
  }
};
