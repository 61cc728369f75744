/** The rows as an SVG picture: a panel for each metric, a bar for each row. Pure. */
import { METRICS, type Metric, NOTE, type PathName, type Row, type Where } from './shape.ts';

const WIDTH = 1080;
const COLUMNS = 2;
const GAP = 24;
const PANEL = (WIDTH - GAP * (COLUMNS + 1)) / COLUMNS;
const BAR = 20;
const LABEL = 150;
const VALUE = 70;
const HEAD = 34;
const TOP = 64;

const COLOURS: Readonly<Record<PathName, string>> = {
  raw: '#8a8f98',
  'bridge-vxlan': '#5b6472',
  swarm: '#2f6fb3',
  'weft-express': '#d9601a',
  'weft-express-routed': '#b3784f',
  'weft-netdev': '#e9a15f',
  'weft-netdev-routed': '#c9a988',
  'weft-system': '#b8430a',
  'weft-system-routed': '#8f5a44',
};
const PLACES: Readonly<Record<Where, string>> = {
  native: 'on the machine',
  guest: 'in the guest (kernel Open vSwitch)',
};

const xmlText = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');

const words = (x: number, y: number, text: string, more = ''): string =>
  `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${more}>${xmlText(text)}</text>`;

/** @param subtitle when and where it was measured. */
export function chart(rows: readonly Row[], subtitle: string): string {
  const places = (['native', 'guest'] as const).filter((where) => rows.some((r) => r.where === where));
  const panelHeight = HEAD + rows.length * (BAR + 4) + places.length * 22 + 12;
  const lines = wrap(NOTE, 150);
  const panels = METRICS.map((metric, i) => {
    const x = GAP + (i % COLUMNS) * (PANEL + GAP);
    const y = TOP + Math.floor(i / COLUMNS) * (panelHeight + GAP);
    return panel(metric, rows, places, x, y, panelHeight);
  });
  const bottom = TOP + Math.ceil(METRICS.length / COLUMNS) * (panelHeight + GAP);
  const height = bottom + lines.length * 17 + 12;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="sans-serif" font-size="13" fill="#222">`,
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    words(GAP, 28, 'Weft beside Docker Swarm, bridge + VXLAN and bare veth', ' font-size="18" font-weight="bold"'),
    words(GAP, 48, subtitle, ' fill="#555"'),
    ...panels,
    ...lines.map((line, i) => words(GAP, bottom + i * 17, line, ' fill="#555" font-size="12"')),
    '</svg>\n',
  ].join('\n');
}

function panel(
  metric: Metric,
  rows: readonly Row[],
  places: readonly Where[],
  x: number,
  y: number,
  height: number,
): string {
  const title = `${metric.title}, ${metric.unit} (${metric.better} is better)`;
  const parts = [
    `<rect x="${x}" y="${y}" width="${PANEL}" height="${height}" fill="#f7f7f5" rx="4"/>`,
    words(x + 12, y + 22, title, ' font-weight="bold"'),
  ];
  const room = PANEL - LABEL - VALUE - 24;
  let at = y + HEAD;
  for (const where of places) {
    const mine = rows.filter((row) => row.where === where);
    // A scale of its own: a guest is slower in everything.
    const most = Math.max(...mine.map((row) => row[metric.key]));
    parts.push(words(x + 12, at + 13, PLACES[where], ' fill="#777" font-size="12"'));
    at += 22;
    for (const row of mine) {
      const value = row[metric.key];
      const width = most > 0 ? (value / most) * room : 0;
      parts.push(
        words(x + 12, at + 15, row.path),
        `<rect x="${(x + LABEL).toFixed(1)}" y="${at}" width="${width.toFixed(1)}" height="${BAR}" fill="${COLOURS[row.path]}"/>`,
        words(x + LABEL + width + 6, at + 15, String(value)),
      );
      at += BAR + 4;
    }
  }
  return parts.join('\n');
}

/** Lines of at most so many characters. */
function wrap(text: string, most: number): string[] {
  const lines: string[] = [''];
  for (const word of text.split(' ')) {
    const line = lines.at(-1) ?? '';
    if (`${line} ${word}`.length > most) lines.push(word);
    else lines[lines.length - 1] = line === '' ? word : `${line} ${word}`;
  }
  return lines;
}
