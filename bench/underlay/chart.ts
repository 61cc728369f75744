/** Latency and shares as an SVG picture. Pure. */
import { expected, type Latency, loadText, type Shares, type When, WORDS } from './figures.ts';

const WIDTH = 1080;
const GAP = 24;
const TOP = 64;
const HEIGHT = 380;
const LEFT = 560;
const COLOURS: Readonly<Record<When, string>> = { idle: '#8a8f98', unshaped: '#2f6fb3', shaped: '#d9601a' };
const CLASS_COLOURS = { high: '#b8430a', normal: '#e9a15f', low: '#5b6472' } as const;

const words = (x: number, y: number, text: string, more = ''): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${more}>${text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</text>`;
const box = (x: number, y: number, width: number, height: number, fill: string, more = ''): string =>
  `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${width.toFixed(1)}" height="${height.toFixed(1)}" fill="${fill}"${more}/>`;

/** @param subtitle when and where it was measured. */
export function chart(latency: readonly Latency[], shares: readonly Shares[], subtitle: string): string {
  const height = TOP + HEIGHT + GAP;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="13" fill="#222">`,
    box(0, 0, WIDTH, height, '#fff'),
    words(
      GAP,
      28,
      'Priority classes on the underlay: before and after underlay.shape',
      ' font-size="18" font-weight="bold"',
    ),
    words(GAP, 48, subtitle, ' fill="#555"'),
    latencies(latency, GAP, TOP),
    bars(shares, GAP + LEFT + GAP, TOP),
    '</svg>\n',
  ].join('\n');
}

/** How many round trips took at most so long; all rounds together. Milliseconds on a logarithmic scale. */
function latencies(latency: readonly Latency[], x: number, y: number): string {
  const cases = (['idle', 'shaped', 'unshaped'] as const).map((when) => ({
    when,
    times: latency
      .filter((l) => l.when === when)
      .flatMap((l) => l.times)
      .toSorted((a, b) => a - b),
  }));
  const all = cases.flatMap((c) => [c.times[0] ?? 1, c.times.at(-1) ?? 1]);
  const [low, high] = [Math.floor(Math.log10(Math.min(...all))), Math.ceil(Math.log10(Math.max(...all)))];
  const [plotX, plotY, width, depth] = [x + 48, y + 44, LEFT - 72, HEIGHT - 160];
  const at = (ms: number): number => plotX + ((Math.log10(ms) - low) / (high - low)) * width;
  const down = (share: number): number => plotY + (1 - share) * depth;
  const parts = [
    box(x, y, LEFT, HEIGHT, '#f7f7f5', ' rx="4"'),
    words(x + 12, y + 22, 'Round trips of high priority: share that took at most … ms', ' font-weight="bold"'),
  ];
  for (let power = low; power <= high; power++)
    parts.push(
      `<line x1="${at(10 ** power).toFixed(1)}" x2="${at(10 ** power).toFixed(1)}" y1="${plotY}" y2="${plotY + depth}" stroke="#ddd"/>`,
      words(at(10 ** power) - 10, plotY + depth + 16, String(10 ** power), ' fill="#555" font-size="12"'),
    );
  for (const share of [0, 0.5, 0.99])
    parts.push(
      `<line x1="${plotX}" x2="${plotX + width}" y1="${down(share).toFixed(1)}" y2="${down(share).toFixed(1)}" stroke="#ddd"/>`,
      words(x + 12, down(share) + 4, `${100 * share} %`, ' fill="#555" font-size="12"'),
    );
  for (const [i, { when, times }] of cases.entries()) {
    const step = Math.max(1, Math.floor(times.length / 400));
    const points = times.flatMap((ms, n) =>
      n % step === 0 || n === times.length - 1
        ? [`${at(ms).toFixed(1)},${down((n + 1) / times.length).toFixed(1)}`]
        : [],
    );
    const quantile = (q: number): string => (times[Math.max(0, Math.ceil(q * times.length) - 1)] ?? 0).toFixed(2);
    const line = plotY + depth + 44 + i * 22;
    parts.push(
      `<polyline points="${points.join(' ')}" fill="none" stroke="${COLOURS[when]}" stroke-width="2"/>`,
      box(x + 12, line - 10, 14, 10, COLOURS[when]),
      words(x + 34, line, `${WORDS[when]}: p50 ${quantile(0.5)} ms, p99 ${quantile(0.99)} ms`),
    );
  }
  return parts.join('\n');
}

/** A bar for each load, cut into the classes' shares (the middle one of the rounds); ticks where they should be. */
function bars(shares: readonly Shares[], x: number, y: number): string {
  const width = WIDTH - GAP - x;
  const room = width - 24;
  const parts = [
    box(x, y, width, HEIGHT, '#f7f7f5', ' rx="4"'),
    words(x + 12, y + 22, 'Shares when all of them want everything', ' font-weight="bold"'),
  ];
  let at = y + 44;
  for (const [load, rows] of Map.groupBy(shares, (s) => loadText(s.load))) {
    parts.push(words(x + 12, at, load));
    for (const shaped of [false, true]) {
      const some = rows.filter((r) => r.shaped === shaped);
      const [first] = some;
      if (first === undefined) continue;
      let from = x + 12;
      for (const name of ['high', 'normal', 'low'] as const) {
        const all = some.flatMap((r) => r.got[name] ?? []).toSorted((a, b) => a - b);
        const share = all[Math.floor(all.length / 2)];
        if (share === undefined) continue;
        parts.push(box(from, at + 6, share * room, 14, CLASS_COLOURS[name], shaped ? '' : ' fill-opacity="0.45"'));
        if (share > 0.06)
          parts.push(words(from + 4, at + 17, `${Math.round(share * 100)}`, ' fill="#fff" font-size="11"'));
        from += share * room;
      }
      let sum = 0;
      for (const share of shaped ? Object.values(expected(first.load)).slice(0, -1) : []) {
        sum += share;
        parts.push(box(x + 11 + sum * room, at + 2, 2, 22, '#000'));
      }
      at += 18;
    }
    at += 24;
  }
  const names = Object.entries(CLASS_COLOURS);
  for (const [i, [name, colour]] of names.entries())
    parts.push(box(x + 12 + i * 90, y + HEIGHT - 24, 14, 10, colour), words(x + 32 + i * 90, y + HEIGHT - 14, name));
  parts.push(words(x + 290, y + HEIGHT - 14, 'pale: not shaped; | expected', ' fill="#555" font-size="12"'));
  return parts.join('\n');
}
