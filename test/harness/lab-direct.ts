/** The lab without the CLI: gRPC to each of its coordinators with the lab's certificate, and calls on a host's plugin socket. */
import { request as httpRequest } from 'node:http';
import { AgentClient, AgentService } from '../../gen/weft/v1/agent.ts';
import { ControlClient } from '../../gen/weft/v1/control.ts';
import type { Drift } from '../../gen/weft/v1/types.ts';
import { callUnary, channelCredentials, channelOptions, insecureChannelCredentials } from '../../lib/rpc.ts';
import { readTls } from '../../lib/tls.ts';
import { onOk, weftOk } from './lab.ts';

export interface LabStatus {
  readonly name: string;
  readonly hosts: readonly {
    readonly name: string;
    readonly netns: string;
    readonly dockerSocket: string;
    readonly pluginSocket: string;
    readonly agentSocket: string;
    readonly underlay: { readonly interface: string; readonly ip: string };
    readonly stateDir: string;
    readonly logDir: string;
    readonly pids: Readonly<Record<string, number | null>>;
  }[];
  readonly coordinators: readonly { readonly name: string; readonly address: string; readonly pid: number | null }[];
  readonly etcd: readonly { readonly name: string; readonly clientUrl: string; readonly pid: number | null }[];
  readonly tls: { readonly ca: string; readonly cert: string; readonly key: string };
}

export const labStatus = async (): Promise<LabStatus> =>
  JSON.parse(await weftOk('lab', 'status', '--json')) as LabStatus;

/** One client for each coordinator of the lab; the caller closes them. */
export async function controlClients(): Promise<ControlClient[]> {
  const { coordinators, tls } = await labStatus();
  const made = channelCredentials(await readTls(tls));
  return coordinators.map((c) => new ControlClient(c.address, made, channelOptions()));
}

/** A call as dockerd makes it on a plugin socket. Rejects with what the plugin says is wrong. */
export function pluginCall<T>(socketPath: string, method: string, body: object): Promise<T> {
  return new Promise((resolve, reject) => {
    const call = httpRequest({ socketPath, path: `/${method}`, method: 'POST', agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => {
        const answer = JSON.parse(text) as T & { Err?: string };
        if (answer.Err === undefined) resolve(answer);
        else reject(new Error(answer.Err));
      });
    });
    call.on('error', reject);
    call.end(JSON.stringify(body));
  });
}

/** A measurement, for whoever reads the run's output: one line. */
export function figure(what: string, values: Readonly<Record<string, number>>): void {
  const parts = Object.entries(values).map(([key, value]) => `${key}=${Math.round(value * 10) / 10}`);
  process.stdout.write(`figure: ${what}: ${parts.join(' ')}\n`);
}

/** Of measurements in ms, what is worth reading. */
export function summary(values: readonly number[]): { n: number; min: number; median: number; max: number } {
  const sorted = values.toSorted((a, b) => a - b);
  return {
    n: sorted.length,
    min: sorted[0] ?? 0,
    median: sorted[Math.floor(sorted.length / 2)] ?? 0,
    max: sorted.at(-1) ?? 0,
  };
}

/** A metric of the agent on a host: the sum over its labels. */
export async function agentMetric(host: string, name: string): Promise<number> {
  const fetching = "fetch('http://127.0.0.1:7472/metrics').then((r) => r.text()).then((t) => process.stdout.write(t))";
  const lines = (await onOk(host, process.execPath, '-e', fetching)).split('\n');
  if (!lines.some((l) => l.startsWith(`# TYPE ${name} `)))
    throw new Error(`the agent of ${host} has no metric ${name}`);
  const values = lines.filter((l) => l.startsWith(`${name}{`)).map((l) => Number(l.slice(l.lastIndexOf(' '))));
  return values.reduce((sum, value) => sum + value, 0);
}

/** What an agent finds different from what it should be, read anew after its present work; nothing is mended. Over its unix socket. */
export async function agentDrift(socketPath: string): Promise<Drift[]> {
  const credentials = insecureChannelCredentials();
  const client = new AgentClient(`unix:${socketPath}`, credentials, channelOptions({ serverName: null }));
  try {
    return (await callUnary(client, AgentService.resync, { heal: false })).drift;
  } finally {
    client.close();
  }
}
