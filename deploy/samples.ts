/** What becomes of the sample configurations on a real machine. Pure text. */
import { WeftError } from '../lib/errors.ts';

/** agent.yaml of a host. @param sample deploy/agent.yaml @param underlay its address, or where to find it */
export function agentConfig(
  sample: string,
  coordinators: readonly string[],
  underlay: { readonly vtep: string } | { readonly on: string },
  name?: string,
): string {
  const list = coordinators.map((address) => `  - ${address}\n`).join('');
  const own = 'vtep' in underlay ? `  vtep: ${underlay.vtep}\n` : `  on: ${JSON.stringify(underlay.on)}\n`;
  const text = swap(swap(sample, '  - 192.0.2.1:7470\n', list), '  vtep: 192.0.2.11\n', own);
  return named(text, name, '#name: h1\n');
}

/** coordinator.yaml. @param etcd "embedded", or URLs with commas between them */
export function coordinatorConfig(sample: string, etcd: string, name?: string, advertise?: string): string {
  const urls = etcd.split(',').map((url) => `    - ${url}\n`);
  const store = etcd === 'embedded' ? 'etcd: embedded\n' : `etcd:\n  endpoints:\n${urls.join('')}`;
  const text = named(swap(sample, '\netcd: embedded\n', `\n${store}`), name, '#name: c1\n');
  return advertise === undefined ? text : swap(text, '#advertise: c1:7470\n', `advertise: ${advertise}\n`);
}

const named = (text: string, name: string | undefined, line: string): string =>
  name === undefined ? text : swap(text, line, `name: ${name}\n`);

function swap(text: string, from: string, to: string): string {
  if (text.split(from).length !== 2)
    throw new WeftError('INTERNAL', `The sample configuration has no line ${JSON.stringify(from)}.`);
  return text.replace(from, () => to);
}

/** daemon.json with live-restore on; null = it is on. @param text the file, null = there is none. */
export function withLiveRestore(text: string | null, file: string): string | null {
  let value: unknown;
  try {
    value = text === null || text.trim() === '' ? {} : JSON.parse(text);
  } catch {
    value = null;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new WeftError('FAILED_PRECONDITION', `${file} is not a JSON object.`, {
      hint: 'mend it, or add "live-restore": true by hand',
    });
  if ((value as Record<string, unknown>)['live-restore'] === true) return null;
  return `${JSON.stringify({ ...value, 'live-restore': true }, null, 2)}\n`;
}
