/** Names for what a trace meets: ports, links and networks of this host, and the rules of its policies. Pure but for the numbers it is given. */
import { deviceOf, type LocalEndpoint, nameOf } from '../contract.ts';
import { GATEWAY_SWITCH, hostLink, TUNNEL_DEVICE, TUNNEL_SWITCH } from '../link/names.ts';
import { namedRules, policyModel } from '../policies/resolve.ts';
import type { Policing } from './rules.ts';
import type { TraceSources } from './sources.ts';
import type { Words } from './stages.ts';

const NOTHING: Policing = { rules: [], shut: false, pending: [] };

export const endpointText = (e: Pick<LocalEndpoint, 'id' | 'container' | 'attached'>): string =>
  nameOf(e) || e.id.slice(0, 12);

export const endpointAt = (s: TraceSources, port: number): LocalEndpoint | null =>
  s.endpoints.values().find((e) => s.ofport(e.id) === port) ?? null;

export function wordsOf(s: TraceSources): Words {
  const byIndex = new Map([...s.networks.values()].map((n) => [n.index, n]));
  const ports = new Map<number, string>();
  const put = (name: string, text: string): void => {
    const n = s.port(name);
    if (n !== null) ports.set(n, text);
  };
  put(TUNNEL_SWITCH, 'the tunnels');
  for (const [encap, name] of Object.entries(TUNNEL_DEVICE)) put(name, `the ${encap} tunnel`);
  put(GATEWAY_SWITCH, `host ${s.hostName}`);
  const known = new Map<number, Policing>();
  const policing = (index: number): Policing => {
    const network = byIndex.get(index)?.network;
    if (network === undefined) return NOTHING;
    const endpoints = [...s.endpoints.values()];
    const subjects = endpoints.flatMap((endpoint) => {
      const ofport = s.ofport(endpoint.id);
      return endpoint.networkId === network.id && ofport !== null ? [{ endpoint, ofport }] : [];
    });
    const sources = { hostId: s.hostId, network, view: s.view, subjects, endpoints, names: s.names };
    const model = policyModel(sources);
    return model === null ? NOTHING : { rules: namedRules(sources), shut: model.shut, pending: model.pending };
  };
  return {
    host: s.hostName,
    port: (n) => {
      const e = endpointAt(s, n);
      return e === null ? (ports.get(n) ?? `port ${n}`) : endpointText(e);
    },
    network: (index) => byIndex.get(index)?.name || String(index),
    policing: (index) => {
      const found = known.get(index) ?? policing(index);
      known.set(index, found);
      return found;
    },
    mac: (n) => endpointAt(s, n)?.mac ?? null,
    translates: s.wiring.services,
    service: (index, ip) => {
      const id = byIndex.get(index)?.networkId ?? '';
      const services = s.view.interests.get(id)?.services.values() ?? [];
      return [...services].find(({ ips }) => ips.includes(ip))?.name ?? null;
    },
  };
}

/** Names of the links that maps speak of, by their numbers. */
export async function linkNames(s: TraceSources): Promise<(ifindex: number) => string> {
  const links = [...s.endpoints.values()].filter((e) => deviceOf(e) === null);
  const names = new Map(links.map((e) => [hostLink(e.id), endpointText(e)]));
  const numbers = names.size === 0 ? new Map<string, number>() : await s.ifindexes([...names.keys()]);
  const texts = new Map([...numbers].map(([name, n]) => [n, `${names.get(name) ?? name} (${name})`]));
  return (ifindex) => texts.get(ifindex) ?? `link ${ifindex}`;
}
