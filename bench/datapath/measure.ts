/** One round of one path: iperf3 and sockperf in the network namespaces of the two ends, and what the machine's processors did meanwhile. */
import { type ChildProcess, spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { setTimeout as pause } from 'node:timers/promises';
import { run, until } from '../../test/harness/lab.ts';

/** Where the tools run. */
export interface Ends {
  /** Files of network namespaces. */
  readonly client: string;
  readonly server: string;
  /** The server's IPv4 address. */
  readonly address: string;
  /** What the client calls instead: an address that leads there, by the same ports. */
  readonly by?: string;
}

export interface Measured {
  readonly tcp1_gbps: number;
  readonly tcp4_gbps: number;
  readonly rr_p50_us: number;
  readonly rr_p99_us: number;
  readonly udp64_kpps: number;
  readonly cpu_s_per_gbit: number;
  readonly retransmits: number;
  readonly udp64_sent_kpps: number;
  readonly idle_cpus: number;
  /** Bytes of payload that went from client to server. */
  readonly carried: number;
}

export const TCP_PORT = 5201;
export const ROUND_TRIP_PORT = 11_111;

/** @param seconds of each of the four measurements. @throws what a tool said when it could not measure */
export async function measure(ends: Ends, seconds: number): Promise<Measured> {
  await warm(ends);
  const idle = await idleCpus(1);
  const one = await tcp(ends, seconds, 1);
  const four = await tcp(ends, seconds, 4);
  const trips = await roundTrips(ends, seconds);
  const udp = await packets(ends, seconds);
  const busy = Math.max(0, one.cpu + four.cpu - idle * (one.took + four.took));
  return {
    tcp1_gbps: one.gbps,
    tcp4_gbps: four.gbps,
    rr_p50_us: trips.p50,
    rr_p99_us: trips.p99,
    udp64_kpps: udp.received / 1000,
    udp64_sent_kpps: udp.sent / 1000,
    cpu_s_per_gbit: busy / ((8 * (one.bytes + four.bytes)) / 1e9),
    retransmits: one.retransmits + four.retransmits,
    idle_cpus: idle,
    carried: one.bytes + four.bytes + 64 * udp.sent * seconds,
  };
}

/** One TCP stream only, of payload received. @returns Gb/s, and the bytes carried */
export async function throughput(ends: Ends, seconds: number): Promise<{ gbps: number; carried: number }> {
  await warm(ends);
  const { gbps, bytes } = await tcp(ends, seconds, 1);
  return { gbps, carried: bytes };
}

/** Round trips only. @returns median, µs */
export async function latency(ends: Ends, seconds: number): Promise<number> {
  await warm(ends);
  return (await roundTrips(ends, seconds)).p50;
}

/** Neighbours and caches: the first packets are not what is measured. */
async function warm({ client, address, by = address }: Ends): Promise<void> {
  await until(`${by} answers`, async () => {
    const r = await inside(client, ['ping', '-n', '-q', '-c', '3', '-i', '0.2', '-W', '1', by], 10_000);
    return r.code === 0;
  });
}

const inside = (netns: string, command: readonly string[], timeoutMs: number): ReturnType<typeof run> =>
  run('nsenter', [`--net=${netns}`, ...command], { timeoutMs });

interface Stream {
  readonly gbps: number;
  readonly bytes: number;
  readonly retransmits: number;
  /** Seconds of all processors, and of the clock. */
  readonly cpu: number;
  readonly took: number;
}

interface IperfEnd {
  readonly sum_received: { readonly bits_per_second: number; readonly bytes: number };
  readonly sum_sent: { readonly retransmits?: number };
  readonly sum?: { readonly packets: number; readonly lost_packets: number; readonly seconds: number };
}

async function tcp(ends: Ends, seconds: number, streams: number): Promise<Stream> {
  const { end, cpu, took } = await iperf(ends, seconds, ['-P', String(streams)]);
  const { bits_per_second, bytes } = end.sum_received;
  return { gbps: bits_per_second / 1e9, bytes, retransmits: end.sum_sent.retransmits ?? 0, cpu, took };
}

/** Packets a second. */
async function packets(ends: Ends, seconds: number): Promise<{ sent: number; received: number }> {
  const { sum } = (await iperf(ends, seconds, ['-u', '-l', '64', '-b', '0'])).end;
  if (sum === undefined) throw new Error('iperf3 says nothing of its packets');
  return { sent: sum.packets / sum.seconds, received: (sum.packets - sum.lost_packets) / sum.seconds };
}

async function iperf(
  { client, server, address, by = address }: Ends,
  seconds: number,
  options: readonly string[],
): Promise<{ end: IperfEnd; cpu: number; took: number }> {
  await using _listening = await listen(server, address, TCP_PORT, ['iperf3', '-s', '-1', '-B', address]);
  const cpu = await busySeconds();
  const began = performance.now();
  const command = ['iperf3', '-c', by, '-t', String(seconds), '-J', '--connect-timeout', '5000', ...options];
  const r = await inside(client, command, (seconds + 40) * 1000);
  const took = (performance.now() - began) / 1000;
  const said = parse(r.stdout);
  if (said?.end?.sum_received === undefined) throw new Error(`iperf3: ${said?.error ?? (r.stderr || r.stdout)}`);
  return { end: said.end, cpu: (await busySeconds()) - cpu, took };
}

function parse(text: string): { end?: IperfEnd; error?: string } | null {
  try {
    return JSON.parse(text) as { end?: IperfEnd; error?: string };
  } catch {
    return null;
  }
}

/** Full round trips of 14 bytes, one at a time, µs. */
async function roundTrips(
  { client, server, address, by = address }: Ends,
  seconds: number,
): Promise<{ p50: number; p99: number }> {
  const at = (ip: string): string[] => ['--tcp', '-i', ip, '-p', String(ROUND_TRIP_PORT)];
  await using _listening = await listen(server, address, ROUND_TRIP_PORT, ['sockperf', 'sr', ...at(address)]);
  const command = ['sockperf', 'ping-pong', ...at(by), '-t', String(seconds), '--full-rtt'];
  const r = await inside(client, command, (seconds + 40) * 1000);
  const of = (percentile: string): number => {
    const found = new RegExp(`percentile ${percentile}0* *= *([\\d.]+)`).exec(r.stdout)?.[1];
    if (found === undefined) throw new Error(`sockperf: ${r.stderr}${r.stdout}`);
    return Number(found);
  };
  return { p50: of('50\\.0'), p99: of('99\\.0') };
}

/** Starts a server in a namespace and waits until it listens; disposing of it ends it. */
async function listen(
  netns: string,
  address: string,
  port: number,
  command: readonly string[],
): Promise<AsyncDisposable> {
  const child = spawn('nsenter', [`--net=${netns}`, ...command], { stdio: 'ignore' });
  const ended = new Promise((resolve) => child.once('close', resolve).once('error', resolve));
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    await ended;
  };
  try {
    await until(`${command[0]} listens on ${address}:${port}`, () => listens(child, address, port), 15_000);
  } catch (error) {
    await stop();
    throw error;
  }
  return { [Symbol.asyncDispose]: stop };
}

/** As /proc/net/tcp writes it: the address in the machine's byte order, state 0A. */
async function listens(child: ChildProcess, address: string, port: number): Promise<boolean> {
  if (child.exitCode !== null) throw new Error(`it ended with status ${child.exitCode}`);
  const bytes = address.split('.').map(Number).toReversed();
  const local = `${Buffer.from(bytes).toString('hex')}:${port.toString(16).padStart(4, '0')}`.toUpperCase();
  const text = await readFile(`/proc/${child.pid}/net/tcp`, 'utf8').catch(() => '');
  return text.split('\n').some((line) => line.includes(`: ${local} `) && / 0A /.test(line));
}

/** Seconds that all processors together have been busy since boot; not what a hypervisor took away. */
async function busySeconds(): Promise<number> {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = (await readFile('/proc/stat', 'utf8'))
    .split('\n', 1)[0]!
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq) / 100;
}

/** Processors that are busy while nothing is measured. */
async function idleCpus(seconds: number): Promise<number> {
  const [before, began] = [await busySeconds(), performance.now()];
  await pause(seconds * 1000);
  return (1000 * ((await busySeconds()) - before)) / (performance.now() - began);
}
