/**
 * render(model) → flows: everything br-weft does, as data. Pure: equal models give equal flows, whatever happened before.
 * A backend says how frames reach other hosts; the stages know only localPort and remote.
 */
import { MAC_PREFIX } from '../../lib/mac.ts';
import type { Action, Flow } from '../openflow/flow.ts';
import { type Backend, backendOf } from './backend.ts';
import { ARP_REQUEST, arpAnswer, arpReply, ETH_ARP, flow, goto, inCidr, is, masked, move, set } from './build.ts';
import { renderChecks } from './checks.ts';
import { gateway, gatewayBase } from './gateway.ts';
import type { BridgeModel, Entry, LocalPort, NetworkModel, Remote } from './model.ts';
import { cappedClassify, multicast } from './multicast.ts';
import { ndAlias, ndBase, ndBlock, ndBlock4, ndEntry, ndLocal } from './nd.ts';
import { PRIORITY, REG, SIDE } from './pipeline.ts';
import { committed, delivery, isJudged, policyBase, renderJudge, renderRules } from './policies.ts';
import { renderPunt } from './punt.ts';
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
    ...(port == null ? [] : gatewayBase(port)),
  ];
}

/** All flows of one network, but for those of virtual addresses and rules of policies; none where it has no local endpoint: then nothing of it concerns this host. */
export function renderNetwork(n: NetworkModel, bridge: Omit<BridgeModel, 'networks'>): Flow[] {
  if (n.locals.length === 0) return [];
  const { maxMeters, relaysNd = false, gateway: port } = bridge;
  const backend = backendOf(n, bridge.tunnels);
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
    ...renderShared(n, backend),
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

const l2Local = (n: NetworkModel, port: LocalPort): Flow =>
  flow(
    'l2',
    n.index,
    PRIORITY.local,
    [inNetwork(n), is('eth_dst', port.mac)],
    [set(REG.out, port.ofport), delivery(n)],
  );

const l2Entry = (n: NetworkModel, e: Entry, out: readonly Action[]): Flow =>
  flow('l2', n.index, PRIORITY.entry, [inNetwork(n), is(REG.side, SIDE.local), is('eth_dst', e.mac)], out);

function l2Block(n: NetworkModel, block: Remote['blocks'][number], out: readonly Action[]): Flow {
  const bits = BigInt(32 - block.prefix);
  const mask = ((1n << 48n) - 1n) & ~((1n << bits) - 1n);
  const mac = (BigInt(MAC_PREFIX) << 32n) | BigInt(block.base);
  const match = [
    inNetwork(n),
    is(REG.side, SIDE.local),
    bits === 0n ? is('eth_dst', mac) : masked('eth_dst', mac, mask),
  ];
  return flow('l2', n.index, PRIORITY.block + block.prefix, match, out);
}
