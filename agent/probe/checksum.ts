/**
 * Are checksums right after Open vSwitch's userspace datapath has rewritten an address or a port of a segment that the kernel left
 * unfinished (userspace-tso-enable)? Some versions get them wrong, and the answer is not in the version: it is tried. Two machines in
 * namespaces of their own exchange data through a bridge of its own in the running switch; all that remains of a crash is that bridge,
 * which is known by its name and removed by the next start.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { WeftError } from '../../lib/errors.ts';
import { exec } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import { OpenFlowClient } from '../openflow/client.ts';
import { FlowDriver } from '../openflow/driver.ts';
import type { OvsDriver, OvsStep } from '../ovs/driver.ts';
import type { Checksums } from './decide.ts';
import { ProbeMachine } from './namespace.ts';
import { argumentsOf, probeFlows } from './rewrites.ts';

export const PROBE_BRIDGE = 'weft-probe';
const LINKS = ['weft-probe-c', 'weft-probe-s'] as const;
/** Everything: 0.3 s on an idle machine, 4 s of waiting when all is wrong. */
const LIMIT_MS = 10_000;

export interface ChecksumProbe {
  readonly ovs: OvsDriver;
  /** Where ovs-vswitchd has its *.mgmt sockets. */
  readonly rundir: string;
  /** Of the running ovs-vswitchd; it changes when that is started anew. */
  readonly version: () => Promise<string>;
  /** Where the answer is kept: it holds for this version until the machine boots. */
  readonly file: string;
  readonly log: Log;
}

interface Kept {
  readonly key: string;
  readonly wrong: Checksums;
}

/** @returns null when it could not be tried (the log says why). Never rejects. */
export async function probeChecksums(probe: ChecksumProbe): Promise<Checksums | null> {
  try {
    const boot = await readFile('/proc/sys/kernel/random/boot_id', 'utf8');
    const key = `${await probe.version()} ${release()} ${boot.trim()}`;
    const kept = await read(probe.file);
    if (kept?.key === key) return kept.wrong;
    const started = performance.now();
    const { wrong, seen } = await tryChecksums(probe);
    probe.log.info(
      { wrong, wrongChecksums: seen, ms: Math.round(performance.now() - started) },
      'checksums were tried',
    );
    // What did not arrive although no kernel has refused it may have been late: it is asked again the next time.
    if (seen > 0 || [...wrong.plain, ...wrong.rewritten].length === 0) await keep(probe.file, { key, wrong });
    return wrong;
  } catch (error) {
    probe.log.warn({ err: error }, 'checksums after a rewrite could not be tried');
    return null;
  }
}

/** Removes what a probe that was cut short has left in the switch. */
export async function sweepProbe(ovs: OvsDriver): Promise<void> {
  if (ovs.observe().bridges.has(PROBE_BRIDGE)) await ovs.apply([{ kind: 'delBridge', name: PROBE_BRIDGE }]);
}

/** @returns what is wrong, and how many wrong checksums the kernels have seen. @throws when it cannot be tried. */
export async function tryChecksums({
  ovs,
  rundir,
}: Pick<ChecksumProbe, 'ovs' | 'rundir'>): Promise<{ wrong: Checksums; seen: number }> {
  const machines: ProbeMachine[] = [];
  const openflow = new OpenFlowClient({ path: `${rundir}/${PROBE_BRIDGE}.mgmt` });
  const timer = setTimeout(() => void Promise.all(machines.map((machine) => machine.end())), LIMIT_MS);
  try {
    await sweepProbe(ovs);
    const [client, server] = await startMachines(machines);
    const { ports } = await ovs.apply(bridgeSteps());
    openflow.start();
    const [, flows] = await Promise.all([
      Promise.all([client.ask('links', 'ready'), server.ask('links', 'ready')]),
      openflow.ready().then(() => new FlowDriver(openflow)),
    ]);
    const ofport = (name: string): number => {
      const port = ports.get(name);
      if (typeof port?.ofport === 'number') return port.ofport;
      throw new WeftError(
        'UNAVAILABLE',
        `Open vSwitch does not take ${name}: ${port?.error ?? 'it does not say why'}.`,
      );
    };
    await flows.apply({ add: probeFlows({ client: ofport(LINKS[0]), server: ofport(LINKS[1]) }), remove: [] });
    client.tell('go');
    const wrong: Checksums & Record<string, string[]> = { plain: [], rewritten: [] };
    for (let line = await client.read(); line !== 'done'; line = await client.read()) {
      const [, kind = '', proto, family] = line.split(' ');
      wrong[kind]?.push(`${proto} over IPv${family}`);
    }
    let seen = 0;
    for (const machine of machines) {
      machine.tell('sums');
      seen += Number(await machine.read());
    }
    return { wrong, seen };
  } finally {
    clearTimeout(timer);
    openflow.close();
    // First the ports, then their devices: the switch complains of a device that is gone.
    await ovs.apply([{ kind: 'delBridge', name: PROBE_BRIDGE }]).catch(() => undefined); // the next start removes it
    // They would go with their namespaces, but some time after them.
    await exec('ip', ['-force', '-batch', '-'], { input: LINKS.map((link) => `link del ${link}\n`).join('') });
    await Promise.all(machines.map((machine) => machine.end()));
  }
}

/** Both machines, joined to this namespace by a pair each, whose ends there are called `far`. */
async function startMachines(machines: ProbeMachine[]): Promise<[ProbeMachine, ProbeMachine]> {
  const script = scriptPath();
  const started = await Promise.allSettled([
    ProbeMachine.start(script, argumentsOf('client')),
    ProbeMachine.start(script, argumentsOf('server')),
  ]);
  for (const one of started) if (one.status === 'fulfilled') machines.push(one.value);
  for (const one of started) if (one.status === 'rejected') throw one.reason;
  const [client, server] = machines as [ProbeMachine, ProbeMachine];
  const lines = [client, server].flatMap(({ pid }, i) => [
    `link add ${LINKS[i]} type veth peer name far netns ${pid}`,
    `link set ${LINKS[i]} up`,
  ]);
  const made = await exec('ip', ['-batch', '-'], { input: `${lines.join('\n')}\n` });
  if (made.code !== 0) throw new WeftError('UNAVAILABLE', `ip: ${made.stderr.trim()}`);
  return [client, server];
}

function bridgeSteps(): OvsStep[] {
  const externalIds = { weft: 'probe' };
  return [
    {
      kind: 'ensureBridge',
      name: PROBE_BRIDGE,
      datapathType: 'netdev',
      failMode: 'secure',
      externalIds,
      otherConfig: {},
    },
    ...LINKS.map(
      (name): OvsStep => ({ kind: 'addPort', bridge: PROBE_BRIDGE, name, type: '', options: {}, externalIds }),
    ),
  ];
}

/** From a clone the sources are run; a bundle has it beside itself. */
const scriptPath = (): string =>
  fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? './checksum.pl' : './probe/checksum.pl', import.meta.url));

async function read(file: string): Promise<Kept | null> {
  try {
    const { key, wrong } = JSON.parse(await readFile(file, 'utf8')) as Partial<Kept>;
    const whole = typeof key === 'string' && Array.isArray(wrong?.plain) && Array.isArray(wrong.rewritten);
    return whole ? { key, wrong } : null;
  } catch {
    return null; // not there, or not ours: it is tried
  }
}

async function keep(file: string, kept: Kept): Promise<void> {
  await writeFile(`${file}.tmp`, `${JSON.stringify(kept)}\n`, { mode: 0o600 });
  await rename(`${file}.tmp`, file);
}
