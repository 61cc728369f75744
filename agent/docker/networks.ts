/** Which Docker networks this host should have, and the steps to get there (pure). */
import { canonicalIp, formatCidr, parseHostCidr } from '../../lib/addr.ts';
import type { Network } from '../../lib/model.ts';
import type { LocalNetwork } from '../contract.ts';
import type { DockerNetwork } from './api.ts';
import { gatewayText, subnetText } from './pools.ts';

export interface NetworksInput {
  /** The catalogue: networks by mesh id. */
  readonly catalogue: ReadonlyMap<string, Network>;
  /** All of Docker's networks, of every driver. */
  readonly actual: readonly DockerNetwork[];
  /** The journal's rows by mesh id. */
  readonly rows: ReadonlyMap<string, LocalNetwork>;
  /** A complete view has been applied in this session: only then is anything removed. */
  readonly inSync: boolean;
  /** Mesh ids removed here a moment ago (the view may not show it yet). */
  readonly removed: ReadonlySet<string>;
  /** Mesh ids that got their name here a moment ago, or are being made: the view may not show them yet. */
  readonly young: ReadonlySet<string>;
  /** Mesh ids whose Docker network was made so short a time ago that Docker may not list it yet. */
  readonly unlisted: ReadonlySet<string>;
  /** The agent has just begun: what it does not know yet is not judged. */
  readonly starting: boolean;
  /** False: what was removed behind the agent's back stays away (it is reported as drift). */
  readonly heal: boolean;
}

export type NetworkStep =
  /** A copy of a network of the catalogue. */
  | { readonly kind: 'create'; readonly network: Network; readonly name: string }
  /** The mesh does not have it, or it differs (then the next plan creates it). */
  | {
      readonly kind: 'remove';
      readonly dockerId: string;
      readonly name: string;
      readonly networkId: string;
      readonly why: string;
    }
  /** Made by docker network create: the mesh has yet to hear its name. */
  | { readonly kind: 'bind'; readonly docker: DockerNetwork; readonly row: LocalNetwork }
  /** A copy that the journal does not know, or knows under an old id. */
  | { readonly kind: 'adopt'; readonly dockerId: string; readonly network: Network }
  /** The catalogue's record has changed. */
  | { readonly kind: 'refresh'; readonly row: LocalNetwork; readonly network: Network }
  /** Docker no longer has it: removed behind the agent's back (`missing`), or gone from the mesh too, or never finished. */
  | { readonly kind: 'forget'; readonly row: LocalNetwork; readonly missing: boolean };

export interface NetworksPlan {
  readonly steps: readonly NetworkStep[];
  readonly conflicts: readonly { readonly network: string; readonly message: string }[];
}

/** Docker's name of a mesh network. */
export const dockerName = (network: Network): string =>
  network.project === 'default' || network.project === '' ? network.name : `${network.project}.${network.name}`;

export function planNetworks(input: NetworksInput): NetworksPlan {
  const steps: NetworkStep[] = [];
  const conflicts: { network: string; message: string }[] = [];
  const byDockerId = new Map<string, LocalNetwork>();
  for (const row of input.rows.values()) if (row.dockerNetworkId !== null) byDockerId.set(row.dockerNetworkId, row);
  const present = new Map<string, DockerNetwork>();

  for (const docker of input.actual) {
    if (docker.driver !== 'weft') continue;
    const row = byDockerId.get(docker.id);
    const networkId = row?.networkId ?? byNameAndSubnet(input.catalogue, docker);
    if (networkId === undefined) {
      // Ours by its driver, and of no use to anybody.
      if (input.inSync && !input.starting)
        steps.push({ kind: 'remove', dockerId: docker.id, name: docker.name, networkId: '', why: NOT_IN_MESH });
      continue;
    }
    const holder = input.rows.get(networkId)?.dockerNetworkId;
    if (row === undefined && (present.has(networkId) || input.actual.some((other) => other.id === holder))) {
      conflicts.push({
        network: docker.name,
        message: `Docker network ${docker.name} is a second copy of a network; remove it with docker network rm ${docker.name}`,
      });
      continue;
    }
    present.set(networkId, docker);
    if (input.removed.has(networkId)) continue;
    const wanted = input.catalogue.get(networkId);
    if (wanted === undefined || wanted.state !== 'bound') {
      if (row?.network.state === 'reserved') steps.push({ kind: 'bind', docker, row });
      else if (input.inSync && !input.young.has(networkId))
        steps.push({ kind: 'remove', dockerId: docker.id, name: docker.name, networkId, why: NOT_IN_MESH });
      continue;
    }
    const differs = differences(wanted, docker);
    if (differs.length > 0 && input.inSync)
      steps.push({ kind: 'remove', dockerId: docker.id, name: docker.name, networkId, why: differs.join('; ') });
    else if (row === undefined || row.dockerNetworkId !== docker.id)
      steps.push({ kind: 'adopt', dockerId: docker.id, network: wanted });
    else if (row.network.revision < wanted.revision || row.network.state !== 'bound')
      steps.push({ kind: 'refresh', row, network: wanted });
  }

  for (const row of input.rows.values()) {
    if (present.has(row.networkId) || input.unlisted.has(row.networkId)) continue;
    const wanted = input.catalogue.has(row.networkId);
    if (row.dockerNetworkId !== null) {
      if (!wanted || input.heal) steps.push({ kind: 'forget', row, missing: wanted });
    } else if (!wanted && !input.young.has(row.networkId) && (input.inSync || row.network.state === 'reserved'))
      steps.push({ kind: 'forget', row, missing: false });
  }

  for (const network of input.catalogue.values()) {
    if (network.state !== 'bound' || present.has(network.id)) continue;
    if (input.removed.has(network.id) || input.unlisted.has(network.id)) continue;
    if (!input.heal && (input.rows.get(network.id)?.dockerNetworkId ?? null) !== null) continue;
    const name = dockerName(network);
    const taken = input.actual.find((docker) => docker.name === name);
    if (taken === undefined) steps.push({ kind: 'create', network, name });
    else if (taken.driver !== 'weft')
      conflicts.push({
        network: name,
        message: `Docker has another network named ${name} (driver ${taken.driver}, subnet ${taken.subnet || 'none'}): the mesh's is not available on this host until it is renamed or removed`,
      });
  }
  return { steps, conflicts };
}

const NOT_IN_MESH = 'the mesh does not have it';

/** Docker networks carry no id of ours (see Copies.creating): without the journal, driver, name and subnet tell. */
function byNameAndSubnet(catalogue: ReadonlyMap<string, Network>, docker: DockerNetwork): string | undefined {
  return catalogue.values().find((n) => n.state === 'bound' && dockerName(n) === docker.name && sameSubnets(n, docker))
    ?.id;
}

const sameSubnets = (n: Network, docker: DockerNetwork): boolean =>
  subnetText(n, 4) === docker.subnet && subnetText(n, 6) === canonical(docker.subnet6);

/** What of a Docker network is not as the mesh has it, as `what: have, want`. */
export function differences(wanted: Network, docker: DockerNetwork): readonly string[] {
  const found: string[] = [];
  const compare = (what: string, have: unknown, want: unknown): void => {
    if (have !== want) found.push(`${what}: ${String(have)}, should be ${String(want)}`);
  };
  compare('name', docker.name, dockerName(wanted));
  compare('subnet', docker.subnet, subnetText(wanted, 4));
  compare('IPv6 subnet', canonical(docker.subnet6), subnetText(wanted, 6));
  // What a user did not give, Docker does not show.
  if (docker.gateway !== '') compare('gateway', docker.gateway, gatewayText(wanted, 4));
  if (docker.gateway6 !== '') compare('IPv6 gateway', canonicalIp(docker.gateway6), gatewayText(wanted, 6));
  compare('internal', docker.internal, wanted.internal);
  compare('attachable', docker.attachable, wanted.attachable);
  for (const range of docker.ipRanges) compare('ip range', canonical(range), wanted.ipRange);
  compare('options', mapText(docker.options), mapText(wanted.options));
  compare('labels', mapText(docker.labels), mapText(wanted.labels));
  return found;
}

const canonical = (cidr: string): string => (cidr === '' ? '' : formatCidr(parseHostCidr(cidr)));

const mapText = (map: Readonly<Record<string, string>>): string =>
  Object.keys(map)
    .toSorted()
    .map((key) => `${key}=${map[key]}`)
    .join(',');
