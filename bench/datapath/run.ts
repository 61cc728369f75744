/** Brings up the paths that were asked for on one underlay, and measures them in turns. */
import { WeftError } from '../../lib/errors.ts';
import { auditClean } from '../../test/harness/lab.ts';
import { measure } from './measure.ts';
import { bridgePath, type DataPath, rawPath } from './plain.ts';
import { rounded } from './report.ts';
import { type Missing, type PathName, routed, type Sample, WEFT_PATHS, type WeftPath, type Where } from './shape.ts';
import { swarmPath } from './swarm.ts';
import { underlayOf } from './underlay.ts';
import { hostFacts, pathOf, routedPath, setExpress, weftPath } from './weft.ts';

export interface Plan {
  /** Name of a lab that is up, with two hosts for each of Weft's paths. */
  readonly lab: string;
  readonly where: Where;
  readonly paths: readonly PathName[];
  readonly rounds: number;
  /** Of each measurement. */
  readonly seconds: number;
  readonly say: (line: string) => void;
}

export interface Outcome {
  readonly samples: readonly Sample[];
  readonly missing: readonly Missing[];
  /** What an audit said when all was measured: "clean", or the drift. */
  readonly audit: string;
}

/** A path that fails is left out, with the reason. */
export async function runPaths(plan: Plan): Promise<Outcome> {
  const missing: Missing[] = [];
  const leaveOut = (path: PathName, reason: string): void => {
    missing.push({ path, where: plan.where, reason });
    plan.say(`${path} (${plan.where}) is left out: ${reason}`);
  };
  const paths = await bringUp(plan, leaveOut);
  const samples: Sample[] = [];
  for (let round = 1; round <= plan.rounds; round++) {
    for (const path of paths.filter((p) => !missing.some((m) => m.path === p.path))) {
      try {
        const sample = await sampleOf(path, plan, round);
        samples.push(sample);
        plan.say(line(sample));
      } catch (error) {
        leaveOut(path.path, WeftError.from(error).message);
      }
    }
  }
  const audit = await auditClean().then(
    () => 'clean',
    (error: unknown) => WeftError.from(error).message,
  );
  return { samples: samples.filter((s) => !missing.some((m) => m.path === s.path)), missing, audit };
}

const line = (s: Sample): string =>
  `round ${s.round}  ${s.path.padEnd(12)}  TCP ${rounded(s.tcp1_gbps)} and ${rounded(s.tcp4_gbps)} Gb/s, ` +
  `round trip ${rounded(s.rr_p50_us)}/${rounded(s.rr_p99_us)} µs, UDP ${rounded(s.udp64_kpps)} kpps, ` +
  `${rounded(s.cpu_s_per_gbit)} s CPU a gigabit (idle: ${rounded(s.idle_cpus)} CPUs)`;

/** The kernel's own paths first: they need nobody. */
async function bringUp(plan: Plan, leaveOut: (path: PathName, reason: string) => void): Promise<DataPath[]> {
  const underlay = underlayOf(plan.lab);
  const paths: DataPath[] = [];
  const add = async (path: PathName, up: () => Promise<DataPath>): Promise<void> => {
    if (!plan.paths.includes(path)) return;
    try {
      paths.push(await up());
      plan.say(`${path} is up`);
    } catch (error) {
      leaveOut(path, WeftError.from(error).message);
    }
  };
  await add('raw', () => rawPath(underlay));
  await add('bridge-vxlan', () => bridgePath(underlay));
  await add('swarm', () => swarmPath(underlay, plan.say));
  let free = (await hostFacts()).map((h) => h.name);
  for (const path of WEFT_PATHS) {
    let taken: readonly [string, string] | null = null;
    await add(path, async () => {
      const [from, to, ...rest] = free;
      if (from === undefined || to === undefined) throw new Error('the lab has too few hosts for it');
      await prepare(path, [from, to]);
      free = rest;
      taken = [from, to];
      return weftPath(path, taken);
    });
    await add(routed(path), async () => {
      if (taken === null) throw new Error(`it is measured beside ${path}`);
      return routedPath(path, taken);
    });
  }
  return paths;
}

/** @throws when two hosts cannot take that path, with the reason. */
async function prepare(path: WeftPath, names: readonly string[]): Promise<void> {
  const look = async () => (await hostFacts()).filter((h) => names.includes(h.name));
  if (path === 'weft-netdev' && (await look()).some((h) => h.express)) await setExpress(names, false);
  for (const host of await look()) {
    if (pathOf(host) === path) continue;
    const is = `${host.backend ?? 'one backend'}, datapath ${host.datapath}, express path ${host.express ? 'on' : 'off'}`;
    throw new Error(`${host.name} takes another path (${is})`);
  }
}

/** What Open vSwitch may have seen at most of an express path, and must have seen at least of the others. */
export const EXPRESS_MOST = 0.05;
export const OVS_LEAST = 0.9;

/** @throws when the counters say that another path was measured. */
async function sampleOf({ path, ends, ovsBytes }: DataPath, plan: Plan, round: number): Promise<Sample> {
  const before = await ovsBytes?.();
  const { carried, ...measured } = await measure(ends, plan.seconds);
  const after = await ovsBytes?.();
  const share = before === undefined || after === undefined ? null : (after - before) / carried;
  if (share !== null && (path.startsWith('weft-express') ? share > EXPRESS_MOST : share < OVS_LEAST)) {
    throw new Error(`Open vSwitch received ${Math.round(100 * share)} % of what was carried`);
  }
  return { path, where: plan.where, round, ...measured, ovs_share: share };
}
