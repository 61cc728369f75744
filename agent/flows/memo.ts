/** Renders only what changed since the last time: a network whose model is the same gives the same flows, and so does a virtual address. */
import type { Flow } from '../openflow/flow.ts';
import { type FlowTable, keyed } from '../plan/flows.ts';
import type { BridgeModel } from './model.ts';
import { isJudged, policyBase, ruleGroups } from './policies.ts';
import { sameRules } from './policy-model.ts';
import { renderBase, renderNetwork } from './render.ts';
import { isRouted, routesBase } from './routes.ts';
import { renderAddress, virtualAddresses } from './services.ts';

export interface Entry {
  /** Compared by identity. */
  readonly fingerprint: unknown;
  readonly flows: ReadonlyMap<string, Flow>;
}

/** By what they are of: the base, a network's index, a virtual address in it. Kept by the caller between calls. */
export type Memo = Map<string, Entry>;

const BASE = 'base';

export function render(model: BridgeModel, memo: Memo): FlowTable {
  const all = new Map<string, Flow>();
  const used = new Set<string>();
  const take = (of: string, fingerprint: unknown, flows: () => Flow[]): void => {
    used.add(of);
    let entry = memo.get(of);
    if (entry === undefined || entry.fingerprint !== fingerprint) {
      entry = { fingerprint, flows: keyed(flows()) };
      memo.set(of, entry);
    }
    for (const [key, flow] of entry.flows) all.set(key, flow);
  };
  const { networks, ...bridge } = model;
  const { tunnels, ...rest } = bridge;
  take(BASE, JSON.stringify(rest), () => renderBase(rest));
  if (networks.some(isJudged)) take('policies', '', policyBase);
  if (networks.some(isRouted)) take('routes', rest.maxMeters, () => routesBase(rest));
  for (const n of networks) {
    const { services: _, published, policies, ...plain } = n;
    const network = {
      ...plain,
      ...(policies == null ? {} : { policies: { ...policies, rules: [] } }),
      ...(published === undefined ? {} : { published: { ...published, services: [] } }),
    };
    const fingerprint = JSON.stringify([tunnels, rest, network], (_, v: unknown) =>
      typeof v === 'bigint' ? `${v}n` : v,
    );
    take(String(network.index), fingerprint, () => renderNetwork(network, bridge));
    for (const { name, rules, render: ofGroup } of ruleGroups(n, rest.maxMeters)) {
      if (rules.length === 0) continue;
      const of = `${network.index} rules ${name}`;
      const before = memo.get(of)?.fingerprint;
      take(of, sameRules(before, rules) ? before : rules, ofGroup);
    }
    for (const [name, address] of virtualAddresses(n))
      take(`${network.index} ${name}`, String(rest.relaysNd), () => renderAddress(network, address, rest.relaysNd));
  }
  for (const of of memo.keys()) if (!used.has(of)) memo.delete(of);
  return all;
}
