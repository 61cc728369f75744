/** Control: VTEPs that are not Weft hosts. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { canonicalIp } from '../../lib/addr.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import { normalMac } from '../../lib/mac.ts';
import type { ExternalPeer, Network } from '../../lib/model.ts';
import type { State } from '../contract.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';
import { networkOf, projectOf } from './resolve.ts';

type Methods = Pick<ControlServer, 'addPeer' | 'listPeers' | 'removePeer'>;

const CARRIERS = ['vxlan', 'geneve', 'gre'];
const MAX_KEY: Readonly<Record<string, number>> = { vxlan: 2 ** 24 - 1, geneve: 2 ** 24 - 1, gre: 2 ** 32 - 1 };
const MAX_MACS = 1000;
/** Unspecified, loopback, multicast, broadcast and reserved ones. */
const NO_HOST = /^(0|127|22[4-9]|23\d|24\d|25[0-5])\.|^::1?$|^ff[0-9a-f]{2}:/;

export function peerMethods({ state, store, log }: Parts, method: Method): Methods {
  return {
    addPeer: method(async ({ request }) => {
      const network = networkOf(state, request.project, request.network);
      const peer = await store.addPeer(checkedPeer(network, request.peer));
      log.info({ peer: peer.name, network: network.name, vtep: peer.vtep }, 'external peer added');
      return { peer, revision: { epoch: state.epoch, number: peer.revision } };
    }),

    listPeers: method(async ({ request }) => {
      const project = projectOf(request.project);
      const only = request.network === '' ? null : networkOf(state, project, request.network).id;
      const peers: ExternalPeer[] = [];
      const networkNames: Record<string, string> = {};
      for (const [id, byId] of state.externals) {
        if (only !== null && id !== only) continue;
        networkNames[id] = state.networks.get(id)?.name ?? id;
        peers.push(...byId.values());
      }
      return { peers, networkNames };
    }),

    removePeer: method(async ({ request }) => {
      const network = networkOf(state, request.project, request.network);
      const peer = findPeer(state, network, request.peer);
      const revision = await store.removePeer(network.id, peer.id);
      log.info({ peer: peer.name, network: network.name }, 'external peer removed');
      return { revision };
    }),
  };
}

/** @throws NOT_FOUND */
function findPeer(state: State, network: Network, text: string): ExternalPeer {
  const peers = [...(state.externals.get(network.id)?.values() ?? [])];
  const found = peers.find((peer) => peer.name === text) ?? peers.find((peer) => peer.id === text);
  if (found !== undefined) return found;
  throw new WeftError('NOT_FOUND', `Network ${network.name} has no peer ${middleCut(text)}.`, {
    hint: 'list them with "weft peer ls"',
  });
}

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });

/** Canonical, and complete: encapsulation and key that were left out are the network's. @throws INVALID_ARGUMENT */
export function checkedPeer(
  network: Network,
  asked: ExternalPeer | undefined,
): Omit<ExternalPeer, 'id' | 'revision' | 'createdAt'> {
  if (asked === undefined || !/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/.test(asked.name))
    throw invalid(
      `"${middleCut(asked?.name ?? '')}" cannot be the name of a peer.`,
      'use 1 to 63 letters, digits, "_", "." or "-", beginning with a letter or digit',
    );
  if (network.encap === 'vlan')
    throw new WeftError('FAILED_PRECONDITION', `Network ${network.name} is a vlan: it has no tunnels.`, {
      hint: `what is not a host of the mesh reaches it by the tag ${network.vlanTag} of its uplink`,
    });
  const encap = asked.encap === '' ? network.encap : asked.encap;
  if (!CARRIERS.includes(encap))
    throw invalid(`"${middleCut(encap)}" is not an encapsulation of a peer.`, `choose ${CARRIERS.join(', ')}`);
  const largest = MAX_KEY[encap] ?? 0;
  if (asked.key > largest) throw invalid(`A key of ${asked.key} is too large for ${encap}.`, `choose 1 to ${largest}`);
  if (asked.udpPort > 65_535) throw invalid(`${asked.udpPort} is not a UDP port.`, 'choose 1 to 65535');
  if (asked.udpPort !== 0 && encap === 'gre') throw invalid('GRE has no UDP port.', 'leave --port out');
  const vtep = canonicalIp(asked.vtep);
  if (NO_HOST.test(vtep)) throw invalid(`${vtep} cannot be the address of a tunnel end.`, 'write a unicast address');
  if (asked.macs.length > MAX_MACS) throw invalid(`A peer may have ${MAX_MACS} MACs.`, 'learn them: --learn');
  const macs = asked.macs.map(({ mac, ip }) => ({ mac: normalMac(mac), ip: ip === '' ? '' : canonicalIp(ip) }));
  for (const key of ['mac', 'ip'] as const) {
    const given = macs.map((one) => one[key]).filter((text) => text !== '');
    const twice = given.find((text, i) => given.indexOf(text) < i);
    if (twice !== undefined) throw invalid(`${twice} is given twice.`, 'give each MAC and address once');
  }
  if (macs.length === 0 && !asked.learn)
    throw invalid('Nothing would be sent to the peer: it has no MAC, and none is learned.', 'give --mac or --learn');
  return {
    name: asked.name,
    networkId: network.id,
    vtep,
    encap,
    key: asked.key,
    macs,
    learn: asked.learn,
    udpPort: asked.udpPort,
  };
}
