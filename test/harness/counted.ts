/** What a host's datapath has counted, and the frames whose way it tells. */
import { dirname } from 'node:path';
import { metricOf } from './drift.ts';
import { run } from './lab.ts';
import type { LabStatus } from './lab-direct.ts';
import type { Box } from './wire.ts';

/** What has been counted on a host: `kernel REASON` of the kernel side, `drop TABLE` of flows that drop, `output` of the last table, `device` of the VXLAN device's errors. */
export async function counted({
  netns,
  dockerSocket,
}: LabStatus['hosts'][number]): Promise<ReadonlyMap<string, number>> {
  // Read often: not by way of "weft lab exec".
  const inside = async (file: string, ...args: string[]): Promise<string> =>
    (await run('nsenter', [`--net=${netns}`, file, ...args])).stdout;
  const [metrics, device, flows] = await Promise.all([
    inside('busybox', 'wget', '-qO-', 'http://127.0.0.1:7472/metrics'),
    inside('ip', '-s', '-j', 'link', 'show', 'weft-vxlan'),
    inside('ovs-ofctl', '-O', 'OpenFlow14', 'dump-flows', `${dirname(dockerSocket)}/openvswitch/br-weft.mgmt`),
  ]);
  const [{ stats64 }] = JSON.parse(device) as [{ stats64: { rx: { errors: number } } }];
  const out = new Map<string, number>([['device', stats64.rx.errors]]);
  for (const [, reason, value] of metrics.matchAll(/^weft_datapath_frames_total\{.*reason="(\w+)".*\} (\d+)$/gm))
    out.set(`kernel ${reason}`, Number(value));
  for (const direction of ['tx', 'rx'])
    out.set(`express ${direction}`, metricOf(metrics, 'weft_express_packets_total', { direction }));
  const [, output] = / table=44, n_packets=(\d+),/.exec(flows) ?? [];
  out.set('output', Number(output ?? 0));
  for (const [, table, packets] of flows.matchAll(/ table=(\d+), n_packets=(\d+),.* actions=drop$/gm)) {
    const key = `drop ${table}`;
    out.set(key, (out.get(key) ?? 0) + Number(packets));
  }
  return out;
}

/** Frames that are sent, and what becomes of them. */
export interface Case {
  readonly what: string;
  /** @param mark stands somewhere in them */
  readonly frames: (mark: string) => readonly string[];
  /** Who gets all of them; nobody else gets any. */
  readonly to: () => readonly Box[];
  /** What counts them, on which host. */
  readonly counted: Readonly<Record<string, readonly string[]>>;
}

/** Bytes that no other frame has. */
export class Marks {
  #last = 0;
  next(): string {
    return `f00dcafe${(++this.#last).toString(16).padStart(8, '0')}`;
  }
}

/** Payloads of UDP 4789 of which nothing may come out. @param id VNI, six hex digits; `frame`: what would be a good one's */
export const brokenVxlan = (id: string, frame: string): string[] => [
  '', // nothing
  '08000000', // half a header
  `08000000${id}00`, // no frame
  `08000000${id}00${frame.slice(0, 20)}`, // half an Ethernet header
  `00000000${id}00${frame}`, // no VNI, says the flag (RFC 7348 §5)
  `08000000${id}00${frame.slice(0, 28)}`, // a frame without anything in it
];
