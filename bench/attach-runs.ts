/** `docker run --rm IMAGE true` on several networks of Docker's and ours, taken in turns, and where the time of ours goes. */
import { IMAGE, onOk } from '../test/harness/lab.ts';
import { type BenchHost, dockerOn, remove, stay, timed } from './docker.ts';
import type { Fabric } from './fabrics.ts';
import { hundredth, type Summary, summarize, tenth } from './figures.ts';

export interface AttachRow extends Summary {
  /** Median divided by the median of Docker's default bridge on the same host. */
  readonly toBridge: number;
}

export interface AttachFigures {
  readonly runs: number;
  readonly rows: Readonly<Record<string, AttachRow>>;
  /** Medians in ms: the mesh's run, in the parts it is made of. */
  readonly breakdown: {
    /** `--network none`: dockerd, containerd, runc. */
    readonly container: number;
    /** A bridge that a user made, less the default one: Docker's DNS in the container, which only users' networks have. */
    readonly dockerDns: number;
    /** Mean of each plugin call, as the agent timed it. */
    readonly pluginCalls: Readonly<Record<string, number>>;
    readonly plugin: number;
    /** What is left: dockerd moving the interface into the container and back, asking, and waiting for locks. */
    readonly dockerd: number;
  };
}

interface Case {
  readonly name: string;
  readonly host: BenchHost;
  readonly network: string;
  /** The case of the same host that it is compared with. */
  readonly bridge: string;
}

const BRIDGE = 'bench-bridge';
const NETWORK = 'bench-attach';

/** @param swarm null: without it */
export async function attachRuns(weft: Fabric, swarm: Fabric | null, runs: number): Promise<AttachFigures> {
  const [host] = weft.hosts;
  const cases: Case[] = [
    { name: 'none', host, network: 'none', bridge: 'bridge' },
    { name: 'bridge', host, network: 'bridge', bridge: 'bridge' },
    { name: 'bridge, user-defined', host, network: BRIDGE, bridge: 'bridge' },
    { name: 'weft', host, network: NETWORK, bridge: 'bridge' },
  ];
  if (swarm !== null)
    cases.push(
      {
        name: 'bridge (host of the swarm)',
        host: swarm.hosts[0],
        network: 'bridge',
        bridge: 'bridge (host of the swarm)',
      },
      { name: 'swarm overlay', host: swarm.hosts[0], network: NETWORK, bridge: 'bridge (host of the swarm)' },
    );
  await dockerOn(host, 'network', 'create', BRIDGE);
  const fabrics = [weft, ...(swarm === null ? [] : [swarm])];
  // In use on every host already: a first use is measured elsewhere.
  const staying: [BenchHost, string][] = [];
  for (const fabric of fabrics) {
    await fabric.create(NETWORK, '10.70.0.0/20');
    for (const h of fabric.hosts) staying.push([h, await stay(h, NETWORK)]);
  }
  try {
    const once = (c: Case): Promise<number> => timed(c.host, 'run', '--rm', '--network', c.network, IMAGE, 'true');
    for (const c of cases) await once(c);
    const took = new Map<string, number[]>(cases.map((c) => [c.name, []]));
    const before = await pluginSeconds(host);
    for (let i = 0; i < runs; i++) for (const c of cases) took.get(c.name)?.push(await once(c));
    const calls = callMeans(before, await pluginSeconds(host), runs);
    return figures(cases, took, calls, runs);
  } finally {
    for (const [h, id] of staying) await remove(h, [id]);
    await dockerOn(host, 'network', 'rm', BRIDGE);
    for (const fabric of fabrics) await fabric.remove(NETWORK);
  }
}

function figures(
  cases: readonly Case[],
  took: ReadonlyMap<string, readonly number[]>,
  pluginCalls: Readonly<Record<string, number>>,
  runs: number,
): AttachFigures {
  const of = (name: string): Summary => summarize(took.get(name) ?? []);
  const rows = Object.fromEntries(
    cases.map((c) => [c.name, { ...of(c.name), toBridge: hundredth(of(c.name).median / of(c.bridge).median) }]),
  );
  const container = of('none').median;
  const dockerDns = tenth(of('bridge, user-defined').median - of('bridge').median);
  const plugin = tenth(Object.values(pluginCalls).reduce((sum, ms) => sum + ms, 0));
  const dockerd = tenth(of('weft').median - container - dockerDns - plugin);
  return { runs, rows, breakdown: { container, dockerDns, pluginCalls, plugin, dockerd } };
}

const SUM = /^weft_plugin_call_seconds_sum\{.*method="([^"]+)".*\} (\S+)$/gm;

/** Seconds spent in each plugin method since the agent started. */
async function pluginSeconds(host: BenchHost): Promise<Map<string, number>> {
  const fetching = "fetch('http://127.0.0.1:7472/metrics').then((r) => r.text()).then((t) => process.stdout.write(t))";
  const text = await onOk(host.name, process.execPath, '-e', fetching);
  return new Map([...text.matchAll(SUM)].map(([, method = '', value]) => [method, Number(value)]));
}

/** Milliseconds a run. */
function callMeans(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  runs: number,
): Record<string, number> {
  const means = [...after].map(([method, seconds]): [string, number] => [
    method.replace(/^\w+Driver\./, ''),
    hundredth(((seconds - (before.get(method) ?? 0)) * 1000) / runs),
  ]);
  return Object.fromEntries(means.filter(([, ms]) => ms > 0));
}
