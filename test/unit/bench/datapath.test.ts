/** What is made of samples: medians, ratios, the picture. */
import { describe, expect, it } from 'vitest';
import { chart } from '../../../bench/datapath/chart.ts';
import { aimsOf, median, quiet, ratio, ratiosOf, reportText, rowsOf } from '../../../bench/datapath/report.ts';
import { METRICS, NOTE, type PathName, type Sample, type Where } from '../../../bench/datapath/shape.ts';

const sample = (path: PathName, where: Where, round: number, gbps: number, us: number): Sample => ({
  path,
  where,
  round,
  tcp1_gbps: gbps,
  tcp4_gbps: 2 * gbps,
  rr_p50_us: us,
  rr_p99_us: 2 * us,
  udp64_kpps: 10 * gbps,
  cpu_s_per_gbit: us / 100,
  retransmits: 0,
  udp64_sent_kpps: 11 * gbps,
  idle_cpus: 0.1,
  ovs_share: null,
});
const samples = [
  sample('weft-system', 'guest', 1, 3, 200),
  sample('swarm', 'guest', 1, 3, 200),
  ...[3, 1, 2].flatMap((n) => [
    sample('swarm', 'native', n, 10 * n, 50),
    sample('weft-express', 'native', n, 12 * n, 40),
  ]),
  sample('raw', 'native', 1, 40, 20),
];
const rows = rowsOf(samples);
const [tcp1, , p50] = METRICS;

describe('rows', () => {
  it('are medians, in a fixed order, in exactly the published shape', () => {
    expect(rows.map((r) => `${r.path} ${r.where}`)).toEqual([
      'raw native',
      'swarm native',
      'weft-express native',
      'swarm guest',
      'weft-system guest',
    ]);
    expect(rows[1]).toEqual({
      path: 'swarm',
      where: 'native',
      tcp1_gbps: 20,
      tcp4_gbps: 40,
      rr_p50_us: 50,
      rr_p99_us: 100,
      udp64_kpps: 200,
      cpu_s_per_gbit: 0.5,
    });
  });

  it('the median of an even number is between the middle ones; of nothing there is none', () => {
    expect(median([4, 1, 3, 2])).toBe(2.5);
    expect(() => median([])).toThrow('nothing was measured');
  });

  it('say whether others were at work', () => {
    expect(quiet(samples)).toEqual({ idle_cpus: 0.1, quiet: true });
    expect(quiet(samples.map((s) => ({ ...s, idle_cpus: 1.2 }))).quiet).toBe(false);
  });
});

describe('ratios', () => {
  it('above 1 is better, whichever way the metric goes, and only within one place', () => {
    const express = rows[2]!;
    expect(ratio(rows, express, 'swarm', tcp1!)).toBe(1.2);
    expect(ratio(rows, express, 'swarm', p50!)).toBe(1.25);
    expect(ratio(rows, rows[4]!, 'raw', tcp1!)).toBeNull();
    expect(ratiosOf(rows)).toContainEqual(
      expect.objectContaining({
        path: 'weft-system',
        where: 'guest',
        to: 'swarm',
        ratios: expect.objectContaining({ tcp1_gbps: 1 }),
      }),
    );
  });

  it('the aims name what was not measured', () => {
    const aims = aimsOf(rows);
    expect(aims.find((a) => a.what === 'weft-express (native) to swarm, tcp1_gbps')).toMatchObject({ aim: 1, is: 1.2 });
    expect(aims.find((a) => a.what.startsWith('weft-netdev'))).toMatchObject({ aim: 0.6, is: null });
  });
});

describe('what people read', () => {
  it('the tables have every row, what is missing, and how the underlay was', () => {
    const text = reportText(rows, [{ path: 'weft-netdev', where: 'native', reason: 'no host' }], 3, {
      idle_cpus: 1.5,
      quiet: false,
    });
    for (const part of [
      'weft-express',
      '1.2 ×',
      'compared with swarm',
      'left out: weft-netdev (native): no host',
      NOTE,
    ])
      expect(text).toContain(part);
  });

  it('the picture has a bar for each figure, and how the underlay was', () => {
    const svg = chart(rows, 'a < b');
    expect(svg).toContain('a &lt; b');
    expect(svg.match(/<rect [^>]*height="20"/g)).toHaveLength(rows.length * METRICS.length);
    expect(svg.replaceAll(/\s*<[^>]*>\s*/g, ' ')).toContain('unsegmented');
    expect(svg).not.toContain('NaN');
  });
});
