/** What tests of drift need of the lab: foreign tools, events of drift, audits, metrics, configuration. */
import { readFile, writeFile } from 'node:fs/promises';
import { parseDocument } from 'yaml';
import { on, run, until, weft, weftJson, weftOk } from './lab.ts';
import { labStatus } from './lab-direct.ts';

export interface DriftItem {
  readonly kind: string;
  readonly object: string;
  readonly change: string;
  readonly want: string | null;
  readonly have: string | null;
}

export interface HostAudit {
  readonly host: string;
  readonly drift: readonly DriftItem[];
  readonly error: string | null;
}

export interface DriftEvent {
  readonly host: string;
  readonly kind: string;
  readonly object: string;
  readonly action: string;
  readonly detectedAt: string;
  readonly healedAt: string | null;
}

/** etcdctl on the lab's etcd; what it printed. */
export async function etcdctl(...args: string[]): Promise<string> {
  const status = JSON.parse(await weftOk('lab', 'status', '--json')) as { etcd: { clientUrl: string }[] };
  const endpoints = status.etcd.map((one) => one.clientUrl).join(',');
  const r = await run('etcdctl', [`--endpoints=${endpoints}`, ...args], { env: { ETCDCTL_API: '3' } });
  if (r.code !== 0) throw new Error(`etcdctl ${args.join(' ')}: ${r.stderr}`);
  return r.stdout.trimEnd();
}

/** Value of a key; null when it is not there. */
export async function etcdGet(key: string): Promise<string | null> {
  const text = await etcdctl('get', key, '--print-value-only');
  return text === '' ? null : text;
}

/** Keys and values below a prefix. */
export async function etcdAll(prefix = '/weft/v1/'): Promise<Map<string, string>> {
  const lines = (await etcdctl('get', '--prefix', prefix)).split('\n');
  const found = new Map<string, string>();
  for (let i = 0; i + 1 < lines.length; i += 2) found.set(lines[i] ?? '', lines[i + 1] ?? '');
  return found;
}

/** Events of drift detected since a moment (epoch ms). */
export async function driftEvents(since: number): Promise<DriftEvent[]> {
  const lines = (await weftOk('events', '--json')).split('\n').filter((line) => line !== '');
  return lines
    .map((line) => JSON.parse(line) as DriftEvent & { type: string })
    .filter((event) => event.type === 'drift' && Date.parse(event.detectedAt) >= since);
}

/** weft audit --no-heal: its exit code and what it names. */
export async function audit(...flags: string[]): Promise<{ code: number; hosts: readonly HostAudit[] }> {
  const r = await weft('audit', '--json', ...flags);
  if (r.code !== 0 && r.code !== 1 && r.code !== 3) throw new Error(`audit: exit ${r.code}\n${r.stderr}`);
  return { code: r.code, hosts: (JSON.parse(r.stdout) as { hosts: HostAudit[] }).hosts };
}

/** Sum of a Prometheus metric over its labels that match; 0 when there is none. */
export function metricOf(text: string, name: string, labels: Readonly<Record<string, string>> = {}): number {
  let sum = 0;
  for (const line of text.split('\n')) {
    const [, metric, given = '', value] = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line) ?? [];
    if (metric !== name) continue;
    if (Object.entries(labels).every(([key, want]) => given.includes(`${key}="${want}"`))) sum += Number(value);
  }
  return sum;
}

/** The agent's metrics, which it serves on its host's loopback only. */
export async function agentMetrics(host: string): Promise<string> {
  const script = "fetch('http://127.0.0.1:7472/metrics').then((r) => r.text()).then((t) => process.stdout.write(t))";
  const r = await on(host, process.execPath, '-e', script);
  if (r.code !== 0) throw new Error(`${host}: no metrics: ${r.stderr}`);
  return r.stdout;
}

export async function coordinatorMetrics(): Promise<string[]> {
  const { coordinators } = await labStatus();
  return Promise.all(
    coordinators.map(async ({ address }) => {
      const response = await fetch(`http://${address.replace(/:\d+$/, '')}:7471/metrics`);
      return response.text();
    }),
  );
}

/** Every host is connected and has applied everything. */
export async function settled(hosts: readonly string[]): Promise<void> {
  await until(`${hosts.join(', ')} connected`, async () => {
    const list = await weftJson<{ name: string; state: string }[]>('host', 'ls');
    return hosts.every((name) => list.find((h) => h.name === name)?.state === 'connected');
  });
  await weftOk('wait', '--timeout', '30');
}

/** Changes keys of an agent’s or a coordinator’s configuration (null: takes them away), and starts the daemon with it. */
export async function configure(machine: string, values: Readonly<Record<string, unknown>>): Promise<void> {
  const { hosts } = await labStatus();
  const host = hosts.find((one) => one.name === machine);
  const dir = (host ?? hosts[0])?.stateDir ?? '';
  const file = host === undefined ? `${dir}/../${machine}/coordinator.yaml` : `${dir}/agent.yaml`;
  const document = parseDocument(await readFile(file, 'utf8'));
  for (const [key, value] of Object.entries(values))
    if (value === null) document.delete(key);
    else document.set(key, value);
  const target = host === undefined ? [machine] : [machine, 'agent'];
  await weftOk('lab', 'stop', ...target);
  await writeFile(file, document.toString());
  await weftOk('lab', 'start', ...target);
}
