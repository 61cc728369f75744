/**
 * Whoever has an address's block, or holds it, must agree before it becomes a reservation's or a service's: its journal is what it
 * picks from, with the control plane gone too.
 */
import { containsIp, parseCidr, parseIp } from '../lib/addr.ts';
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Network } from '../lib/model.ts';
import { mustAgree } from './alloc/reservations.ts';
import type { State, Store } from './contract.ts';
import type { Fanout } from './fanout.ts';

export const ASK_MS = 3000;
/** Blocks may go from host to host while they are asked. */
export const TRIES = 5;
/** A host takes an address back that it has agreed to and that did not become reserved, after 60 s: long before, it is asked again. */
export const AGREED_MS = 15_000;

export interface AgreementDeps {
  readonly state: State;
  readonly store: Store;
  readonly fanout: Fanout;
  readonly log: Log;
}

/** The host to ask; null: nobody has to agree. */
export function whoMustAgree({ state }: AgreementDeps, networkId: string, address: string): string | null {
  const ip = parseIp(address);
  const block = state.blocks
    .get(networkId)
    ?.values()
    .find(({ cidr }) => containsIp(parseCidr(cidr), ip));
  return mustAgree(state.addresses.get(networkId)?.get(address), block?.hostId);
}

/**
 * @param what.name a container of that name may keep the address
 * @param what.forHostId empty: the address becomes reserved; else it goes to this host
 * @throws ALREADY_EXISTS somebody has it; FAILED_PRECONDITION the host is not connected
 */
export async function askHost(
  { state, fanout }: AgreementDeps,
  network: Network,
  address: string,
  what: { readonly name: string; readonly host: string; readonly forHostId: string },
  signal: AbortSignal,
): Promise<void> {
  const hostName = state.hosts.get(what.host)?.name ?? what.host;
  const { name, forHostId } = what;
  try {
    const value = { networkId: network.id, address, name, forHostId };
    await fanout.ask(what.host, { $case: 'reserve', value }, ASK_MS, signal);
  } catch (error) {
    const weft = WeftError.from(error);
    if (weft.code !== 'FAILED_PRECONDITION' || fanout.connected(what.host)) throw weft;
    const held = state.addresses.get(network.id)?.get(address)?.state === 'held';
    throw new WeftError(
      'FAILED_PRECONDITION',
      `The address ${address} of network ${network.name} is ${held ? 'held by' : 'in a block of'} host ${hostName}, which is not connected.`,
      { hint: `start host ${hostName}, or remove it with "weft host rm ${hostName}"` },
    );
  }
}

/** Hosts with an endpoint that has one of the addresses. */
export function usersOf({ state }: AgreementDeps, networkId: string, ips: readonly string[]): string[] {
  const endpoints = [...(state.endpoints.get(networkId)?.values() ?? [])];
  return [...new Set(endpoints.filter((e) => e.ips.some((ip) => ips.includes(ip))).map((e) => e.hostId))];
}

/** What has just left, on hosts that are connected, is known to have left. */
export async function flushed(
  deps: AgreementDeps,
  networkId: string,
  ips: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  await Promise.all(
    usersOf(deps, networkId, ips).map((host) =>
      deps.fanout.ask(host, { $case: 'flush', value: {} }, ASK_MS, signal).catch((error: unknown) => {
        // Then its endpoints are as they are registered.
        deps.log.debug({ err: error, host, network: networkId }, 'host does not say what has left');
      }),
    ),
  );
  await deps.store.caughtUp();
}
