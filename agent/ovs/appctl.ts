/** ovs-vswitchd's control socket (ovs-appctl(8), ovs-vswitchd(8)): a command a connection, text for an answer. */
import { JsonRpc } from './jsonrpc.ts';

/**
 * @param path the daemon's unixctl socket, `ovs-vswitchd.PID.ctl` or what `--unixctl` says.
 * @returns the command's output. Rejects with UNAVAILABLE (nobody there), DEADLINE_EXCEEDED, INTERNAL (refused).
 */
export async function appctl(
  path: string,
  command: string,
  args: readonly string[] = [],
  timeoutMs = 5_000,
): Promise<string> {
  const rpc = await JsonRpc.connect({
    path,
    connectTimeoutMs: timeoutMs,
    idleMs: 0,
    onNotify: () => undefined,
    onClose: () => undefined,
  });
  try {
    return String(await rpc.call(command, args, timeoutMs));
  } finally {
    rpc.close();
  }
}

/** Resolves when the datapath's flows agree with the OpenFlow tables: what was denied or removed has stopped passing. */
export async function waitForRevalidators(path: string, timeoutMs?: number): Promise<void> {
  await appctl(path, 'revalidator/wait', [], timeoutMs);
}

/** `ofproto/trace`: what would happen to a packet, with Open vSwitch's explanation. @param flow as in ovs-fields(7). */
export const trace = (path: string, bridge: string, flow: string, timeoutMs?: number): Promise<string> =>
  appctl(path, 'ofproto/trace', [bridge, flow], timeoutMs);
