/** bench:datapath in small: Weft's throughput beside bare veth on the same underlay, and by counters which of its paths it was. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Ends, throughput } from '../../bench/datapath/measure.ts';
import { rawPath } from '../../bench/datapath/plain.ts';
import { EXPRESS_MOST, OVS_LEAST } from '../../bench/datapath/run.ts';
import { removeNodes, underlayOf } from '../../bench/datapath/underlay.ts';
import { hostFacts, ovsBytes, pathOf, weftPath } from '../../bench/datapath/weft.ts';
import { auditClean, clean, weftOk } from '../harness/lab.ts';
import { figure, labStatus } from '../harness/lab-direct.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
/** Of raw, at least: a quarter of what it should be, for machines with other things to do. Every byte through userspace costs most. */
const LEAST = { 'weft-express': 0.15, 'weft-system': 0.15, 'weft-netdev': 0.005 } as const;
const SECONDS = 1;

let raw: Ends;
beforeAll(async () => {
  raw = (await rawPath(underlayOf((await labStatus()).name))).ends;
});
afterAll(async () => {
  await removeNodes(underlayOf((await labStatus()).name));
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

it('Weft carries a fair part of what bare veth carries, by the path that its hosts say', async () => {
  const [host] = await hostFacts();
  const path = pathOf(host ?? { datapath: null, express: false });
  const { ends } = await weftPath(path, ['h1', 'h2']);
  const ratios: number[] = [];
  let share = Number.NaN;
  for (let round = 0; round < 2; round++) {
    const bare = await throughput(raw, SECONDS);
    const before = await ovsBytes('h1');
    const weft = await throughput(ends, SECONDS);
    share = ((await ovsBytes('h1')) - before) / weft.carried;
    ratios.push(weft.gbps / bare.gbps);
    figure(`bench: ${path} beside raw, Gb/s`, { weft: weft.gbps, raw: bare.gbps });
  }

  if (path === 'weft-express') expect(share).toBeLessThan(EXPRESS_MOST);
  else expect(share).toBeGreaterThan(OVS_LEAST);
  expect(Math.max(...ratios)).toBeGreaterThan(path in LEAST ? LEAST[path as keyof typeof LEAST] : 1);
});
