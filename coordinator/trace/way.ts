/** A packet's way from host to host: each is asked for its own part, and says where it goes on. */
import { WeftError } from '../../lib/errors.ts';
import type { Endpoint, Host, TraceAnswer, TraceHop, TracePacket, TraceTunnel } from '../../lib/model.ts';
import type { State } from '../contract.ts';
import { type Ends, endpointText, isIn, isMeant, type Party, partyText } from './parties.ts';

/** Hosts that one packet can meet: the sender's, one by whose port it comes in, the receiver's; the rest is a circle. */
const MAX_HOSTS = 6;

export type Start =
  | { readonly $case: 'endpointId'; readonly value: string }
  | { readonly $case: 'tunnel'; readonly value: TraceTunnel }
  | { readonly $case: 'outside'; readonly value: boolean };

/** One host's part. Rejects when the host cannot be asked. */
export type Ask = (host: Host, packet: TracePacket, from: Start) => Promise<TraceAnswer>;

type Known = Pick<State, 'endpoints' | 'services' | 'hosts' | 'networks' | 'blocks' | 'externals'>;

export interface Found {
  readonly verdict: string;
  readonly reason: string;
  /** Name; empty: none. */
  readonly host: string;
  readonly hops: readonly TraceHop[];
}

export async function follow(state: Known, ends: Ends, packet: TracePacket, ask: Ask): Promise<Found> {
  const hops: TraceHop[] = [];
  let now = packet;
  let at = hostOfStart(state, ends);
  let from: Start =
    ends.source.kind === 'endpoint'
      ? { $case: 'endpointId', value: ends.source.endpoint.id }
      : { $case: 'outside', value: true };
  for (let turn = 0; turn < MAX_HOSTS; turn++) {
    const end = (verdict: string, reason: string): Found => ({ verdict, reason, host: at.name, hops });
    let answer: TraceAnswer;
    try {
      answer = await ask(at, now, from);
    } catch (error) {
      const { message } = WeftError.from(error);
      hops.push({ host: at.name, engine: 'agent', stage: 'ask', table: undefined, what: message, detail: '' });
      return end('unknown', unanswered(at, message));
    }
    hops.push(...answer.hops);
    now = answer.packet ?? now;
    if (answer.outcome === 'delivered') return { ...delivered(state, ends, at, answer), host: at.name, hops };
    if (answer.outcome === 'tunnel' && answer.tunnel !== undefined) {
      const { tunnel } = answer;
      const next = [...state.hosts.values()].find((h) => h.vteps.some((v) => v.address === tunnel.toVtep));
      if (next === undefined) return end(...beyond(state, tunnel));
      [at, from] = [next, { $case: 'tunnel', value: tunnel }];
      continue;
    }
    if (answer.outcome !== 'outside') return end(answer.outcome, reasonOf(state, ends, answer));
    const next = [...state.hosts.values()].find((h) => h.vteps.some((v) => v.address === now.destinationIp));
    if (next === undefined) return end(...left(state, ends, answer));
    [at, from] = [next, { $case: 'outside', value: true }];
  }
  return { verdict: 'unknown', reason: 'it goes round in circles', host: at.name, hops };
}

function hostOfStart(state: Known, { source, destination }: Ends): Host {
  const host =
    source.kind === 'endpoint'
      ? state.hosts.get(source.endpoint.hostId)
      : destination.kind === 'host'
        ? destination.host
        : undefined;
  if (host === undefined) throw new WeftError('NOT_FOUND', 'The host of the source has gone meanwhile.');
  return host;
}

const unanswered = ({ name }: Host, message: string): string =>
  / is not connected/.test(message) ? `host ${name} is not connected` : `host ${name} cannot be asked: ${message}`;

function delivered(
  state: Known,
  ends: Ends,
  at: Host,
  { endpointId, reason }: TraceAnswer,
): Pick<Found, 'verdict' | 'reason'> {
  const e = endpointOf(state, endpointId);
  const who = e === null ? endpointId.slice(0, 12) : endpointText(state, e).slice(at.name.length + 1);
  if (e !== null && !isMeant(ends.destination, e))
    return {
      verdict: 'misdelivered',
      reason: `${who} on ${at.name} gets it, which is not ${partyText(state, ends.destination, ends.to)}`,
    };
  const more = reason === '' ? '' : `: ${reason}`;
  const service = ends.destination.kind === 'service' ? `, behind service ${ends.destination.service.name}` : '';
  return { verdict: 'delivered', reason: `${who} on ${at.name} gets it${service}${more}` };
}

function endpointOf(state: Known, id: string): Endpoint | null {
  for (const byId of state.endpoints.values()) {
    const found = byId.get(id);
    if (found !== undefined) return found;
  }
  return null;
}

function beyond(state: Known, { toVtep }: TraceTunnel): [string, string] {
  const peers = [...state.externals.values()].flatMap((byId) => [...byId.values()]);
  const peer = peers.find(({ vtep }) => vtep === toVtep);
  if (peer !== undefined) return ['left', `it goes to peer ${peer.name} (${toVtep}), which is no host of the mesh`];
  return ['dropped', `no host of the mesh has VTEP ${toVtep}`];
}

/** Out of the mesh is not where an endpoint is. */
function left(state: Known, ends: Ends, answer: TraceAnswer): [string, string] {
  const apart = noRoute(state, ends);
  return apart === null ? ['left', answer.reason] : ['dropped', `${apart}; ${answer.reason}`];
}

/** Null: both ends are in one network, or one is no endpoint. */
function noRoute(state: Known, { source, destination, network }: Ends): string | null {
  if (destination.kind !== 'endpoint' || network === null || destination.endpoint.networkId === network.id) return null;
  const other = state.networks.get(destination.endpoint.networkId)?.name ?? '';
  const [a, b] = [source, destination].map((p) => partyText(state, p));
  return `no route: ${a} (${network.name}) and ${b} (${other}) share no network, and no router leads from one to the other`;
}

/** With what a host alone cannot know: that nobody has the address at all. */
function reasonOf(state: Known, ends: Ends, { outcome, reason, hops }: TraceAnswer): string {
  const { destination, network, to } = ends;
  // It has come as far as the host itself, which knows nothing of the mesh's networks.
  if (outcome === 'dropped' && hops.at(-1)?.engine === 'kernel') return noRoute(state, ends) ?? reason;
  if (outcome !== 'dropped' || network === null || !isNobody(destination)) return reason;
  if (!isIn(network, to) || network.gateways.includes(to) || reason.startsWith('no host holds')) return reason;
  return reason.startsWith('no endpoint of network ') ? `no host holds ${to}: ${reason}` : reason;
}

const isNobody = (p: Party): boolean => p.kind === 'address';
