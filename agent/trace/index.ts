/** `weft trace` on this host: the sources of a trace, read when it is asked for; and what the agent's own socket asks. */
import type { LocalTraceRequest } from '../../gen/weft/v1/agent.ts';
import type { TraceQuery } from '../../gen/weft/v1/session.ts';
import { canonicalIp, tryParseIp } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import { exec } from '../../lib/exec.ts';
import type { TraceAnswer, TracePacket } from '../../lib/model.ts';
import type { BpfDriver } from '../bpf/driver.ts';
import { placeId } from '../bpf/model.ts';
import { ipsOf, type Journal, type LocalEndpoint, type Mesh, nameOf } from '../contract.ts';
import { BRIDGE } from '../desired.ts';
import { vswitchdControl } from '../facts.ts';
import { NFT_TABLE } from '../gateway/nft.ts';
import { appctl } from '../ovs/appctl.ts';
import type { OvsDriver } from '../ovs/driver.ts';
import type { NameSource } from '../policies/resolve.ts';
import type { Wiring } from '../wiring.ts';
import { checked } from './packet.ts';
import type { Route, TraceSources } from './sources.ts';
import { traceHere } from './walk.ts';
import { endpointText } from './words.ts';

export interface TracingParts {
  readonly journal: Pick<Journal, 'endpoints' | 'networks'>;
  readonly mesh: () => Pick<Mesh, 'view' | 'hostId' | 'hostName'>;
  readonly reconciler: { ofport(endpointId: string): number | null };
  readonly ovs: Pick<OvsDriver, 'observe'>;
  readonly bpf: Pick<BpfDriver, 'lookup' | 'ifindexes' | 'attached'>;
  readonly wiring: Wiring;
  readonly names: NameSource;
  /** Of Open vSwitch. */
  readonly rundir: string;
}

export interface Tracing {
  query(query: TraceQuery): Promise<TraceAnswer>;
  local(request: LocalTraceRequest): Promise<TraceAnswer>;
}

export function tracing(parts: TracingParts): Tracing {
  return {
    query: async (query) => {
      const { from } = query;
      if (query.packet === undefined || from === undefined)
        throw new WeftError('INVALID_ARGUMENT', 'There is no packet to follow, or no place where it begins.');
      const packet = checked(query.packet);
      const sources = sourcesOf(parts);
      if (from.$case === 'endpointId') return traceHere(sources, { kind: 'endpoint', id: from.value }, packet);
      if (from.$case === 'outside') return traceHere(sources, { kind: 'outside' }, packet);
      const [fromVtep, toVtep] = [canonicalIp(from.value.fromVtep), canonicalIp(from.value.toVtep)];
      return traceHere(sources, { kind: 'tunnel', tunnel: { ...from.value, fromVtep, toVtep } }, packet);
    },
    local: async (request) => {
      const sources = sourcesOf(parts);
      const { id, packet } = localPacket(sources, request);
      const answer = await traceHere(sources, { kind: 'endpoint', id }, checked(packet));
      const receiver = sources.endpoints.get(answer.endpointId);
      const who = receiver === undefined ? answer.endpointId : endpointText(receiver);
      return answer.outcome === 'delivered' ? { ...answer, reason: `${who} on ${sources.hostName} gets it` } : answer;
    },
  };
}

function sourcesOf(parts: TracingParts): TraceSources {
  const { journal, reconciler, ovs, bpf, wiring, names, rundir } = parts;
  const mesh = parts.mesh();
  const kernelSide = wiring.express || wiring.services || wiring.backend === 'kernel-tunnel';
  return {
    hostName: mesh.hostName,
    hostId: mesh.hostId,
    bridge: BRIDGE,
    wiring,
    endpoints: journal.endpoints,
    networks: journal.networks,
    view: mesh.view(),
    names,
    ofport: (id) => reconciler.ofport(id),
    port: (name) => {
      const port = ovs.observe().bridges.get(BRIDGE)?.ports.get(name)?.ofport ?? null;
      return port !== null && port > 0 ? port : null;
    },
    trace: async (flow, states) => {
      const next = states.flatMap((state) => ['--ct-next', state]);
      return appctl(await vswitchdControl(rundir), 'ofproto/trace', [BRIDGE, flow, ...next]);
    },
    lookup: (map, key) => bpf.lookup(map, key),
    ifindexes: (names) => (kernelSide ? bpf.ifindexes(names) : Promise.resolve(new Map())),
    program: async (ifindex) => {
      const place = { ifindex, hook: 'ingress' } as const;
      return (await bpf.attached([place])).get(placeId(place)) ?? null;
    },
    nft: async () => {
      const { code, stdout, stderr } = await exec('nft', ['-j', 'list', 'table', 'inet', NFT_TABLE]);
      if (code !== 0) throw new WeftError('UNAVAILABLE', `nft does not show table ${NFT_TABLE}: ${stderr.trim()}`);
      return stdout;
    },
    route,
  };
}

async function route(ip: string): Promise<Route | null> {
  const { code, stdout } = await exec('ip', ['-j', 'route', 'get', ip]);
  if (code !== 0) return null;
  const [found] = JSON.parse(stdout) as { type?: string; dev?: string; prefsrc?: string }[];
  if (found?.dev === undefined) return null;
  return { local: found.type === 'local', device: found.dev, source: found.prefsrc ?? '' };
}

/** @throws NOT_FOUND, INVALID_ARGUMENT whom is meant is not clear */
function localPacket(s: TraceSources, r: LocalTraceRequest): { id: string; packet: TracePacket } {
  const named = (e: LocalEndpoint): string => s.networks.get(e.networkId)?.name ?? '';
  const inNetwork = (e: LocalEndpoint): boolean => r.network === '' || [named(e), e.networkId].includes(r.network);
  const find = (text: string): LocalEndpoint[] => {
    const all = [...s.endpoints.values()].filter(inNetwork);
    const bare = text.startsWith(`${s.hostName}/`) ? text.slice(s.hostName.length + 1) : text;
    const exact = all.filter((e) => e.id === bare || nameOf(e) === bare || ipsOf(e).includes(bare));
    const prefix = /^[0-9a-f]{4,}$/.test(bare) ? all.filter((e) => e.id.startsWith(bare)) : [];
    return exact.length > 0 ? exact : prefix;
  };
  if (r.packet === undefined) throw new WeftError('INVALID_ARGUMENT', 'There is no packet to follow.');
  const sources = find(r.source);
  const targets = tryParseIp(r.destination) === null ? find(r.destination) : [];
  if (targets.length === 0 && tryParseIp(r.destination) === null)
    throw new WeftError('NOT_FOUND', `Host ${s.hostName} has no endpoint ${r.destination}.`, {
      hint: 'without a coordinator only endpoints of this host have names: give the address',
    });
  const shared = sources.filter((a) => targets.length === 0 || targets.some((b) => b.networkId === a.networkId));
  const [source, ...more] = shared;
  if (source === undefined)
    throw new WeftError(
      'NOT_FOUND',
      `Host ${s.hostName} has no endpoint ${r.source} that ${r.destination} shares a network with.`,
    );
  if (more.length > 0)
    throw new WeftError('INVALID_ARGUMENT', `${r.source} is in several networks: ${shared.map(named).join(', ')}.`, {
      hint: 'give --network',
    });
  const target = targets.find((b) => b.networkId === source.networkId);
  const destinationIp = target === undefined ? r.destination : (ipsOf(target)[0] ?? '');
  return { id: source.id, packet: { ...r.packet, destinationIp } };
}
