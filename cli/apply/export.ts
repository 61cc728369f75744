/** The mesh as a file that apply takes. Pure. */
import { stringify } from 'yaml';
import * as entries from './entries.ts';
import { type Actual, SECTIONS, type Section } from './model.ts';
import { endpointText, namer } from './scope.ts';

export interface Exported {
  /** By section; those without a thing are left out. */
  readonly document: Readonly<Partial<Record<Section, readonly entries.FileEntry[]>>>;
  /** What of the mesh no file can say. */
  readonly warnings: readonly string[];
}

/** @param only names of networks; null: all */
export function exported(actual: Actual, only: ReadonlySet<string> | null): Exported {
  const nameOf = namer(actual);
  const names = Object.fromEntries(actual.networks.map(({ id, name }) => [id, name]));
  const inScope = (networkId: string): boolean => only === null || only.has(nameOf(networkId));
  const ofNetworks = <T extends { readonly networkId: string }>(
    list: readonly T[],
    entry: (one: T) => entries.FileEntry,
  ) => list.filter(({ networkId }) => inScope(networkId)).map(entry);
  const networks = actual.networks.filter(({ id }) => inScope(id));
  const routers = actual.routers.filter(({ networkIds }) => networkIds.every(inScope));
  const set = actual.endpoints.filter((e) => actual.settings[e.id] !== undefined);
  const all: Record<Section, readonly entries.FileEntry[]> = {
    networks: networks.map(entries.networkEntry),
    reservations: ofNetworks(actual.reservations, (r) => entries.reservationEntry(r, nameOf(r.networkId))),
    routers: routers.map((r) => entries.routerEntry(r, nameOf)),
    services: ofNetworks(actual.services, (s) => entries.serviceEntry(s, nameOf(s.networkId))),
    policies: ofNetworks(actual.policies, (p) => entries.policyEntry(p, names)),
    endpoints: ofNetworks(set, (e) =>
      entries.endpointEntry(actual.settings[e.id]!, endpointText(actual, e), nameOf(e.networkId)),
    ),
  };
  const document = Object.fromEntries(
    SECTIONS.flatMap((section) => (all[section].length === 0 ? [] : [[section, sorted(all[section])]])),
  );
  return { document, warnings: warningsOf(actual, inScope) };
}

const sorted = (list: readonly entries.FileEntry[]): entries.FileEntry[] => {
  const key = (one: entries.FileEntry): string =>
    `${typeof one['network'] === 'string' ? one['network'] : ''}\0${String(one['name'])}`;
  return [...list].sort((a, b) => (key(a) < key(b) ? -1 : 1));
};

function warningsOf(actual: Actual, inScope: (networkId: string) => boolean): string[] {
  const nameOf = namer(actual);
  const warnings = [];
  for (const network of actual.networks.filter(({ id }) => inScope(id))) {
    const lost = [
      ...actual.peers.filter((p) => p.networkId === network.id).map((p) => `external peer ${p.name}`),
      ...Object.keys(network.auxAddresses).map((name) => `auxiliary address ${name}`),
      ...Object.keys(network.options)
        .filter((key) => !key.startsWith('weft.'))
        .map((key) => `driver option ${key}`),
    ];
    if (lost.length > 0) warnings.push(`Of network ${network.name} the file does not have: ${lost.join(', ')}.`);
  }
  for (const { name, networkIds } of actual.routers)
    if (networkIds.some(inScope) && !networkIds.every(inScope)) {
      const others = networkIds.filter((id) => !inScope(id)).map(nameOf);
      warnings.push(`Router ${name} is left out: it is also in ${others.join(', ')}.`);
    }
  return warnings;
}

export const exportYaml = (document: Exported['document']): string =>
  Object.keys(document).length === 0
    ? '# The mesh has nothing that a file could say.\n'
    : stringify(document, { lineWidth: 0, aliasDuplicateObjects: false });
