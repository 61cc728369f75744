/** Renders only what changed since the last time: a network whose model is the same gives the same flows. */
import type { Flow } from '../openflow/flow.ts';
import { type FlowTable, keyed } from '../plan/flows.ts';
import type { BridgeModel, NetworkModel } from './model.ts';
import { renderBase, renderNetwork } from './render.ts';
import { virtualAddresses } from './services.ts';

export interface Entry {
  readonly fingerprint: string;
  readonly flows: ReadonlyMap<string, Flow>;
}

const BASE = 0;

/** Of services only their addresses have flows; the same services are the same object. */
const addresses = new WeakMap<object, string>();
function shown(network: NetworkModel): object {
  const { services } = network;
  if (services === undefined) return network;
  let text = addresses.get(services);
  if (text === undefined) {
    text = virtualAddresses(services)
      .map((a) => `${a.family}/${a.address}`)
      .join();
    addresses.set(services, text);
  }
  return { ...network, services: text };
}

/** @param memo network index → what it rendered to; kept by the caller between calls. */
export function render(model: BridgeModel, memo: Map<number, Entry>): FlowTable {
  const all = new Map<string, Flow>();
  const used = new Set<number>([BASE]);
  const take = (index: number, fingerprint: string, flows: () => Flow[]): void => {
    let entry = memo.get(index);
    if (entry?.fingerprint !== fingerprint) {
      entry = { fingerprint, flows: keyed(flows()) };
      memo.set(index, entry);
    }
    for (const [key, flow] of entry.flows) all.set(key, flow);
  };
  const { networks, ...bridge } = model;
  const { tunnels, ...rest } = bridge;
  take(BASE, JSON.stringify(rest), () => renderBase(rest));
  for (const network of networks) {
    used.add(network.index);
    const fingerprint = JSON.stringify([tunnels, rest, shown(network)], (_, v: unknown) =>
      typeof v === 'bigint' ? `${v}n` : v,
    );
    take(network.index, fingerprint, () => renderNetwork(network, bridge));
  }
  for (const index of memo.keys()) if (!used.has(index)) memo.delete(index);
  return all;
}
