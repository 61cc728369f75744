/** Queries that the agent sends: IGMPv3 (RFC 3376 §4.1) and MLDv2 (RFC 3810 §5.1), which hosts of older versions understand as theirs. Pure. */
import { linkLocalOf } from '../../lib/ip6.ts';
import { bytes, checksum, icmp6Frame, ip4Frame } from './frame.ts';

/** A locally administered address that no endpoint has: the default MAC of 0.0.0.0. */
export const QUERIER_MAC = 0x025800000000n;
export const QUERIER_IP6 = linkLocalOf(QUERIER_MAC);
const ALL_SYSTEMS = 0xe0000001n;
const ALL_NODES = 0xff02_0000_0000_0000_0000_0000_0000_0001n;
/** Robustness and query interval, for hosts and other queriers to know (RFC 3376 §8.1, §8.2). */
export const ROBUSTNESS = 2;
export const QUERY_INTERVAL_S = 125;

export interface Query {
  readonly family: 4 | 6;
  /** Null: a general query. */
  readonly group: bigint | null;
  /** Within which hosts answer, milliseconds; at most 12,700. */
  readonly maxResponseMs: number;
  /** IPv4 only; 0 = no address (RFC 4541 §2.1.1). */
  readonly source: bigint;
}

/** A whole frame. */
export function queryFrame({ family, group, maxResponseMs, source }: Query): Buffer {
  const rest = Buffer.from([ROBUSTNESS, QUERY_INTERVAL_S, 0, 0]);
  if (family === 4) {
    const code = Math.round(maxResponseMs / 100);
    const message = Buffer.concat([Buffer.from([0x11, code, 0, 0]), bytes(group ?? 0n, 4), rest]);
    message.writeUInt16BE(checksum([message]), 2);
    return ip4Frame({ mac: QUERIER_MAC, source, destination: group ?? ALL_SYSTEMS }, message);
  }
  const head = Buffer.from([130, 0, 0, 0, maxResponseMs >> 8, maxResponseMs & 0xff, 0, 0]);
  const message = Buffer.concat([head, bytes(group ?? 0n, 16), rest]);
  return icmp6Frame({ mac: QUERIER_MAC, source: QUERIER_IP6, destination: group ?? ALL_NODES }, message);
}
