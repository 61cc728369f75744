/** bench:datapath in small: Weft's throughput beside bare veth on the same underlay, and by counters which of its paths it was. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Ends, throughput } from '../../bench/datapath/measure.ts';
import { rawPath } from '../../bench/datapath/plain.ts';
import { EXPRESS_MOST, OVS_LEAST } from '../../bench/datapath/run.ts';
import { removeNodes, underlayOf } from '../../bench/datapath/underlay.ts';
import { hostFacts, ovsBytes, pathOf, setExpress, weftPath } from '../../bench/datapath/weft.ts';
import { auditClean, clean, weftOk } from '../harness/lab.ts';
import { figure, labStatus } from '../harness/lab-direct.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const PAIR = ['h1', 'h2'] as const;
/** Of raw, at least: a quarter of what it should be, for machines with other things to do. */
const LEAST = { 'weft-express': 0.15, 'weft-system': 0.15, 'weft-netdev': 0.05 } as const;
const SECONDS = 1;

let raw: Ends;
let weft: Ends;
beforeAll(async () => {
  raw = (await rawPath(underlayOf((await labStatus()).name))).ends;
});
afterAll(async () => {
  await removeNodes(underlayOf((await labStatus()).name));
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

/** Measured twice, the better one: in between others may be at work. @returns what was carried of raw, and the part that OVS saw */
async function beside(path: string): Promise<{ ratio: number; share: number }> {
  const ratios: number[] = [];
  let share = Number.NaN;
  for (let round = 0; round < 2; round++) {
    const bare = await throughput(raw, SECONDS);
    const before = await ovsBytes(PAIR[0]);
    const mine = await throughput(weft, SECONDS);
    share = ((await ovsBytes(PAIR[0])) - before) / mine.carried;
    ratios.push(mine.gbps / bare.gbps);
    figure(`bench: ${path} beside raw, Gb/s`, { weft: mine.gbps, raw: bare.gbps });
  }
  return { ratio: Math.max(...ratios), share };
}

const pathNow = async (): Promise<keyof typeof LEAST> =>
  pathOf((await hostFacts())[0] ?? { datapath: null, express: false }) as keyof typeof LEAST;

it('Weft carries a fair part of what bare veth carries, by the path that its hosts say', async () => {
  const path = await pathNow();
  weft = (await weftPath(path, PAIR)).ends;
  const { ratio, share } = await beside(path);
  if (path === 'weft-express') expect(share).toBeLessThan(EXPRESS_MOST);
  else expect(share).toBeGreaterThan(OVS_LEAST);
  expect(ratio).toBeGreaterThan(LEAST[path]);
});

it('and when the express path is switched off under running containers, through Open vSwitch; and on again', async (context) => {
  if ((await pathNow()) !== 'weft-express') context.skip();
  try {
    await setExpress(PAIR, false);
    const { ratio, share } = await beside('weft-netdev');
    expect(share).toBeGreaterThan(OVS_LEAST);
    expect(ratio).toBeGreaterThan(LEAST['weft-netdev']);
  } finally {
    await setExpress(PAIR, true);
  }
  expect((await beside('weft-express')).share).toBeLessThan(EXPRESS_MOST);
});
