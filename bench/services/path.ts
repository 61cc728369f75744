/** The way by a virtual address beside the direct one: the same two containers, a round of each in turns. */
import { type Ends, latency, throughput } from '../datapath/measure.ts';
import { hundredth, tenth } from '../figures.ts';

export interface Way {
  /** TCP, one stream. */
  readonly gbps: number;
  /** Of 14 bytes there and back, median, µs. */
  readonly roundTripUs: number;
}

export interface Ways {
  /** Medians of the rounds. */
  readonly direct: Way;
  readonly virtual: Way;
  /** Virtual to direct, median of the rounds' ratios: above 1 is better for throughput, worse for round trips. */
  readonly ratio: Way;
  readonly rounds: readonly { readonly direct: Way; readonly virtual: Way }[];
}

/** @param virtual address that leads to the server and to nobody else, by the same ports */
export async function ways(ends: Ends, virtual: string, turns: { rounds: number; seconds: number }): Promise<Ways> {
  const measured: { direct: Way; virtual: Way }[] = [];
  const one = async (by: Ends): Promise<Way> => ({
    gbps: hundredth((await throughput(by, turns.seconds)).gbps),
    roundTripUs: tenth(await latency(by, turns.seconds)),
  });
  for (let round = 0; round < turns.rounds; round++) {
    const direct = await one(ends);
    measured.push({ direct, virtual: await one({ ...ends, by: virtual }) });
  }
  const middle = (of: (round: (typeof measured)[number]) => Way): Way => ({
    gbps: median(measured.map((m) => of(m).gbps)),
    roundTripUs: median(measured.map((m) => of(m).roundTripUs)),
  });
  return {
    direct: middle((m) => m.direct),
    virtual: middle((m) => m.virtual),
    ratio: middle((m) => ({
      gbps: hundredth(m.virtual.gbps / m.direct.gbps),
      roundTripUs: hundredth(m.virtual.roundTripUs / m.direct.roundTripUs),
    })),
    rounds: measured,
  };
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
