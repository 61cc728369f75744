/**
 * render(model) → flows: everything br-weft does, as data. Pure: equal models give equal flows, whatever happened before.
 * A backend says how frames reach other hosts; the stages know only localPort and remote.
 */
import { MAC_PREFIX } from '../../lib/mac.ts';
import { entryMac, routerMac } from '../gateway/addresses.ts';
import type { Action, Flow } from '../openflow/flow.ts';
import { type Backend, backendOf } from './backend.ts';
import { ARP_REQUEST, arpAnswer, arpReply, ETH_ARP, flow, goto, inCidr, is, move, set } from './build.ts';
import { renderChecks } from './checks.ts';
import { gateway, gatewayBase } from './gateway.ts';
import { l2Block, l2Entry, l2Local } from './l2.ts';
import type { BridgeModel, Entry, LocalPort, NetworkModel, Remote } from './model.ts';
import { cappedClassify, multicast } from './multicast.ts';
import { ndAlias, ndBase, ndBlock, ndBlock4, ndEntry, ndLocal } from './nd.ts';
import { PRIORITY, REG, SIDE } from './pipeline.ts';
import { committed, isJudged, policyBase, renderJudge, renderRules } from './policies.ts';
import { renderPunt } from './punt.ts';
import { isRouted, renderNeighbours, renderReached, renderRoutes, routesBase } from './routes.ts';
import { portSecurity, securityBase } from './security.ts';
import { renderAddress, virtualAddresses } from './services.ts';
import { renderShared } from './shared.ts';
import { renderVlan } from './vlan.ts';

export function render(model: BridgeModel): Flow[] {
  const addresses = (n: NetworkModel): Flow[] =>
    [...virtualAddresses(n).values()].flatMap((a) => renderAddress(n, a, model.relaysNd));
  return [
    ...renderBase(model),
    ...(model.networks.some(isJudged) ? policyBase() : []),
    ...(model.networks.some(isRouted) ? routesBase(model) : []),
    ...model.networks.flatMap((n) => [...renderNetwork(n, model), ...renderRules(n, model.maxMeters), ...addresses(n)]),
  ];
}

/** What holds whatever networks there are. Without a match a table drops (OpenFlow 1.4 §5.4), said aloud to be counted. */
export function renderBase({ maxMeters, gateway: port }: Omit<BridgeModel, 'networks' | 'tunnels'>): Flow[] {
  return [
    flow('classify', 0, PRIORITY.default, [], []),
    flow('portSecurity', 0, PRIORITY.default, [], []),
    flow('arpNd', 0, PRIORITY.default, [], []),
    flow('ndReply', 0, PRIORITY.default, [], []),
    flow('l2', 0, PRIORITY.default, [], []),
    flow('learned', 0, PRIORITY.default, [], []),
    ...securityBase(),
    ...ndBase(),
    flow('output', 0, PRIORITY.local, [], [{ type: 'output_reg', field: REG.out }]),
    ...renderPunt(maxMeters),
    ...(port == null ? [] : gatewayBase(port, maxMeters)),
  ];
}

/** All flows of one network, but for those of virtual addresses and rules of policies; where it has no local endpoint, only those that routed frames take to it. */
export function renderNetwork(n: NetworkModel, bridge: Omit<BridgeModel, 'networks'>): Flow[] {
  const { maxMeters, relaysNd = false, gateway: port } = bridge;
  const backend = backendOf(n, bridge.tunnels);
  if (n.locals.length === 0)
    return n.reached === true ? [...renderReached(n, backend), ...renderNeighbours(n, maxMeters)] : [];
  // Only machines that are not Weft's need to hear what an endpoint says of itself.
  const heard: Action[] = n.encap === 'vlan' ? [goto('l2')] : backend.ask(n, externals(n));
  return [
    ...n.locals.flatMap((port) => [
      ...classifyLocal(n, port, maxMeters),
      ...portSecurity(n, port),
      ...arpLocal(n, port, heard),
      ...ndLocal(n, port, relaysNd),
      ...ndAlias(n, port),
      l2Local(n, port),
    ]),
    ...(n.encap === 'vlan' ? renderVlan(n) : renderOverlay(n, backend, relaysNd)),
    // Beyond the kernel's tunnels eBPF knows them.
    ...(bridge.tunnels.kind === 'ovs' ? renderEntries(n, backend) : []),
    ...renderShared(n, backend),
    ...(n.routers ?? []).flatMap((host) => backend.enters(n, host, routerMac(host.hostId))),
    ...renderRoutes(n, bridge),
    ...renderNeighbours(n, maxMeters),
    ...(n.policies == null ? [] : renderJudge(n, n.policies)),
    ...(port == null ? [] : [...gateway(n, port, relaysNd), ...renderChecks(n, port, relaysNd)]),
  ];
}

/** What is on other hosts. */
function renderOverlay(n: NetworkModel, backend: Backend, relaysNd: boolean): Flow[] {
  const to = (r: Remote): Action[] => [...committed(n), ...backend.unicast(n, r)];
  return [
    ...backend.classify(n, n.remotes),
    ...n.remotes.flatMap((r) => [
      ...r.blocks.flatMap((block) => [
        ...arpBlock(n, block, to(r)),
        ...ndBlock4(n, block, to(r), relaysNd),
        l2Block(n, block, to(r)),
      ]),
      ...r.blocks6.flatMap((block) => ndBlock(n, block, to(r), relaysNd)),
      ...r.entries.flatMap((entry) => [
        ...arpEntry(n, entry),
        ...ndEntry(n, entry, relaysNd),
        l2Entry(n, entry, to(r)),
      ]),
    ]),
    ...multicast(n, backend),
  ];
}

/** Other hosts by the MACs under which they let in who calls a published service: answers go back by the host that was called. */
function renderEntries(n: NetworkModel, backend: Backend): Flow[] {
  const { encap, vni: key, published, remotes } = n;
  if (published === undefined || encap === 'vlan') return [];
  const back = (to: Pick<Remote, 'hostId' | 'vtep' | 'encap' | 'key'>): Flow =>
    l2Entry(n, { mac: entryMac(to.hostId) }, [...committed(n), ...backend.unicast(n, to)]);
  return [
    ...remotes.filter((r) => r.hostId !== '').map(back),
    ...published.hosts.flatMap((host) => [
      ...backend.enters(n, host, entryMac(host.hostId)),
      back({ ...host, encap, key }),
    ]),
  ];
}

const inNetwork = (n: NetworkModel) => is(REG.network, n.index);
const externals = (n: NetworkModel): Remote[] => n.remotes.filter((r) => r.external);

function classifyLocal(n: NetworkModel, port: LocalPort, maxMeters: number): Flow[] {
  const actions = [set(REG.network, n.index), set(REG.side, SIDE.local), goto('portSecurity')];
  return [
    flow('classify', n.index, PRIORITY.local, [is('in_port', port.ofport)], actions),
    ...cappedClassify(n, port, actions, maxMeters),
  ];
}

/** Back out of the port that the request came in by. */
const answerExact = (e: { mac: bigint; ip: number }): Action[] => [...arpReply(e), { type: 'in_port' }];

const request = (n: NetworkModel) => [inNetwork(n), is('eth_type', ETH_ARP), is('arp_op', ARP_REQUEST)];

/** @param heard what becomes of an endpoint's announcement of itself (RFC 5227 §3): an answer would look like a duplicate */
function arpLocal(n: NetworkModel, port: LocalPort, heard: readonly Action[]): Flow[] {
  const { mac, ip } = port;
  if (ip === null) return [];
  return [
    flow('arpNd', n.index, PRIORITY.guard, [...request(n), is('in_port', port.ofport), is('arp_tpa', ip)], heard),
    flow('arpNd', n.index, PRIORITY.local, [...request(n), is('arp_tpa', ip)], answerExact({ mac, ip })),
  ];
}

const arpEntry = (n: NetworkModel, { mac, ip }: Entry): Flow[] =>
  ip === null
    ? []
    : [flow('arpNd', n.index, PRIORITY.entry, [...request(n), is('arp_tpa', ip)], answerExact({ mac, ip }))];

/**
 * One flow answers for a whole block: the MAC is the fixed 16 bits followed by the address that is asked for. Whether an address of it
 * is taken (RFC 5227), only its holder knows: the question goes there.
 */
function arpBlock(n: NetworkModel, block: Remote['blocks'][number], out: readonly Action[]): Flow[] {
  const fixed = BigInt(MAC_PREFIX) << 32n;
  const actions = arpAnswer([
    move('arp_tpa', REG.scratch, 32),
    set('eth_src', fixed),
    move('arp_tpa', 'eth_src', 32),
    set('arp_sha', fixed),
    move('arp_tpa', 'arp_sha', 32),
    move('arp_spa', 'arp_tpa', 32),
    move(REG.scratch, 'arp_spa', 32),
  ]);
  const match = [...request(n), inCidr('arp_tpa', block)];
  const priority = PRIORITY.block + block.prefix;
  return [
    flow('arpNd', n.index, priority, match, [...actions, { type: 'in_port' }]),
    flow('arpNd', n.index, priority + PRIORITY.probe, [...match, is('arp_spa', 0)], out),
  ];
}
