/** The benches work, and what they measure is not far from its aim: gates are four times the aim, for machines with other things to do. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AttachFigures, attachRuns } from '../../bench/attach-runs.ts';
import { crowdRuns } from '../../bench/crowds.ts';
import { type Fabric, weftFabric } from '../../bench/fabrics.ts';
import { rssOf } from '../../bench/memory.ts';
import { moveRuns } from '../../bench/moves.ts';
import { auditClean, clean, weftOk } from '../harness/lab.ts';
import { figure, labStatus } from '../harness/lab-direct.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const MEMORY_MIB = { agent: 4 * 120, coordinator: 4 * 150 };

let weft: Fabric;
beforeAll(async () => {
  weft = await weftFabric();
});
afterAll(async () => {
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
});

describe('bench:attach', () => {
  it('docker run takes at most 100 ms more than on Docker’s bridge, and the parts add up', async () => {
    const attach: AttachFigures = await attachRuns(weft, null, 3);
    const median = (name: string): number => attach.rows[name]?.median ?? Number.NaN;
    const { container, dockerDns, plugin, dockerd, pluginCalls } = attach.breakdown;
    figure('bench: docker run --rm, ms', { weft: median('weft'), bridge: median('bridge'), none: median('none') });
    expect(Object.keys(pluginCalls)).toEqual(expect.arrayContaining(['CreateEndpoint', 'Join', 'DeleteEndpoint']));
    expect(container + dockerDns + plugin + dockerd).toBeCloseTo(median('weft'), 0);
    // On a machine with much to do everything is slow, the bridge too.
    expect(median('weft')).toBeLessThan(Math.max(median('bridge') + 100, 2 * median('bridge')));
  });

  it('an address moves with an outage of little more than one docker run', async () => {
    const moved = (await moveRuns([weft], 3))['weft'];
    figure('bench: handover, ms', { outage: moved?.outage.median ?? 0, run: moved?.dockerRun.median ?? 0 });
    expect(moved?.outage.median).toBeLessThan(2 * (moved?.dockerRun.median ?? 0) + 4 * 20);
    expect(moved?.afterRun.max).toBeLessThan(1_000);
  });

  it('the very first packet is answered between all of a crowd', async () => {
    for (const each of [1, 3]) {
      const crowd = (await crowdRuns([weft], each, 1))['weft'];
      figure(`bench: ${3 * each} containers at once, ms`, { all: crowd?.total.median ?? 0 });
      // Labs side by side share the kernel's one table of neighbours; when it is full, the kernel drops what they send.
      if (crowd?.neighbourTableFull === 0) expect(crowd.firstPacket).toBe(crowd.of);
      expect(crowd?.total.max).toBeLessThan(20_000);
    }
  });
});

describe('bench:daemons', () => {
  it('the daemons are as small as they should be, four times', async () => {
    const { hosts, coordinators } = await labStatus();
    const agents = hosts.flatMap((h) => h.pids['agent'] ?? []);
    expect(agents.length).toBeGreaterThan(0);
    for (const pid of agents) expect(await rssOf(pid)).toBeLessThan(MEMORY_MIB.agent);
    for (const c of coordinators) expect(await rssOf(c.pid)).toBeLessThan(MEMORY_MIB.coordinator);
  });
});
