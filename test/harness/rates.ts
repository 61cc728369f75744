/** What a path carries, as the end sees it that receives: iperf3(1) in two containers, one measurement at a time. */
import { on, until } from './lab.ts';

export type Protocol = 'tcp' | 'udp';
/** Of the container that begins. */
export type Way = 'sent' | 'received';

export interface Place {
  readonly host: string;
  readonly container: string;
}

const PORT = '5201';
/** Of payload: with headers they fit into every MTU that IPv6 allows. */
const DATAGRAM = '1200';

interface Report {
  readonly intervals: readonly { readonly sum: { readonly bytes: number; readonly seconds: number } }[];
  readonly server_output_json?: Report;
  readonly error?: string;
}

/** Answers until its container ends. */
export async function listen({ host, container }: Place): Promise<void> {
  const r = await on(host, 'docker', 'exec', '-d', container, 'iperf3', '-s', '-J', '-p', PORT);
  if (r.code !== 0) throw new Error(`${host}/${container}: ${r.stderr}`);
}

/**
 * @param from who begins, and `way` is his
 * @param to address of a container that listens
 * @param o.offered bits per second that UDP tries to send; of no concern to TCP
 * @param o.whole the first second counts too, with the burst in it: what a busy machine reads late is then in none but its own measurement
 * @returns bits per second of payload that arrived, after the first second: what went at once at the beginning is not a rate
 */
export async function achieved(
  from: Place,
  to: string,
  o: {
    readonly protocol: Protocol;
    readonly way: Way;
    readonly seconds: number;
    readonly offered: number;
    readonly whole?: boolean;
  },
): Promise<number> {
  const iperf = ['iperf3', '-c', to, '-p', PORT, '-t', String(o.seconds + 1), '-J', '--get-server-output'];
  if (o.protocol === 'udp') iperf.push('-u', '-b', String(Math.round(o.offered)), '-l', DATAGRAM);
  if (o.way === 'received') iperf.push('-R');
  // The one that listens may still be at the end of the last one.
  const report = await until('iperf3 has measured', async () => {
    const r = await on(from.host, 'docker', 'exec', from.container, ...iperf);
    if (r.code !== 0) throw new Error(r.stdout.slice(-300) + r.stderr);
    return JSON.parse(r.stdout) as Report;
  });
  const there = o.way === 'received' ? report : report.server_output_json;
  const counted = (there?.intervals ?? []).slice(o.whole === true ? 0 : 1).filter(({ sum }) => sum.seconds > 0.5);
  const seconds = counted.reduce((all, { sum }) => all + sum.seconds, 0);
  if (seconds === 0) throw new Error('iperf3 says nothing of what arrived');
  return (8 * counted.reduce((all, { sum }) => all + sum.bytes, 0)) / seconds;
}
