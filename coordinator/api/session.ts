/** The Session service: the stream, and the calls that an agent makes beside it. */
import type { Refusal, SessionServer } from '../../gen/weft/v1/session.ts';
import { canonicalIp } from '../../lib/addr.ts';
import { CODES, WeftError } from '../../lib/errors.ts';
import type { Endpoint } from '../../lib/model.ts';
import { duplex, requireIdentity } from '../../lib/rpc.ts';
import { reservationAt } from '../alloc/reserved.ts';
import { serve } from '../handshake.ts';
import { notIts } from '../owners.ts';
import type { Parts } from '../parts.ts';
import type { Slot } from '../sessions.ts';
import { waitPeers } from '../waits.ts';
import { checkedGroups } from './groups.ts';
import { makeMethod } from './method.ts';
import { removeNetwork } from './remove-network.ts';
import { DEFAULT_PROJECT, revisionOf } from './resolve.ts';

const WAIT_PEERS_MS = 2000;

export function sessionService(parts: Parts): SessionServer {
  const { state, store, sessions, blocks, claims, reservations, fanout, self, log } = parts;
  const plain = makeMethod(log, parts.metrics, 'host');

  /** The host is the certificate's; its session must be alive here. */
  const method = <Req extends { sessionId: string }, Res>(
    handler: (slot: Slot, request: Req, signal: AbortSignal) => Promise<Res>,
  ) =>
    plain<Req, Res>(({ request, caller, signal }) =>
      handler(sessions.require(caller.name, request.sessionId).slot, request, signal),
    );

  return {
    connect: duplex(async (call, signal) => serve(call, signal, requireIdentity(call, 'host').name, sessions), log),

    requestBlock: method(async (slot, request) => {
      const host = state.hosts.get(slot.hostId);
      if (host?.draining === true)
        throw new WeftError('FAILED_PRECONDITION', `Host ${host.name} is being drained: it gets no new blocks.`, {
          hint: 'start the container on another host',
        });
      const { containing, ipv6 } = request;
      const wanted = containing === '' ? { family: ipv6 ? (6 as const) : (4 as const) } : { containing };
      const block = await blocks.request(slot, request.networkId, wanted);
      return { blocks: [block], revision: revisionOf(state, block.revision || state.revision) };
    }),

    releaseBlocks: method(async (slot, request) => {
      await blocks.release(slot, request.networkId, request.cidrs);
      return {};
    }),

    claimAddress: method(async (slot, request) => {
      const { networkId, ownRecord } = request;
      const ip = canonicalIp(request.address);
      const given = ownRecord
        ? { address: await reservations.own(slot, networkId, ip) }
        : await claims.claim(slot, networkId, ip);
      const { block, address } = { block: undefined, ...given };
      const number = address?.revision || block?.revision || state.revision;
      const reservation = reservationAt(state, networkId, ip);
      return { block, address, reservation, revision: revisionOf(state, number) };
    }),

    releaseAddresses: method(async (slot, request) => {
      await claims.release(slot, request.networkId, request.addresses);
      return {};
    }),

    reserveNetwork: method(async (slot, request) =>
      store.createNetwork({
        project: DEFAULT_PROJECT,
        name: '',
        space: '',
        subnets: request.pool === '' ? [] : [request.pool],
        ipRange: request.subPool,
        gateways: [],
        // Of the pool of one family: Docker asks for each.
        ipv6: request.ipv6,
        ipv6Only: request.ipv6,
        encap: '',
        vni: 0,
        mtu: 0,
        internal: false,
        encrypted: false,
        labels: {},
        options: request.options,
        originHost: slot.hostId,
        uplink: '',
        vlanTag: 0,
        allowTrust: false,
        publishBy: '',
        dnsOrder: '',
        policyDefault: '',
      }),
    ),

    bindNetwork: method(async (slot, request) => {
      const reserved = state.networks.get(request.networkId);
      if (reserved !== undefined && reserved.originHost !== slot.hostId)
        throw new WeftError('PERMISSION_DENIED', `Network ${request.networkId} was not reserved by this host.`);
      const { networkId, ...bind } = request;
      const { network, won } = await store.bindNetwork(networkId, bind);
      if (bind.name !== '') log.info({ network: bind.name, id: network.id, won }, 'network bound');
      const winnerHost = state.hosts.get(network.originHost)?.name ?? '';
      return { network, won, winnerHost, revision: revisionOf(state, network.revision || state.revision) };
    }),

    removeNetwork: method(async (_slot, request, signal) => {
      // Docker repeats what it was not answered.
      if (!state.networks.has(request.networkId)) return { revision: revisionOf(state) };
      return { revision: await removeNetwork(parts, request.networkId, signal) };
    }),

    registerEndpoints: method(async (slot, request) => register(slot, request.upserts, request.removed)),

    registerMemberships: method(async (slot, request) => {
      const groups = request.unknown ? null : checkedGroups(request.groups);
      return { revision: await store.putMemberships(slot.hostId, slot.sessionId, request.networkId, groups) };
    }),

    waitPeers: method(async (slot, request, signal) => {
      const { networkId, revision, timeoutMs } = request;
      const target = {
        revision: revision?.number ?? state.revision,
        networkId,
        except: new Set([slot.hostId]),
        timeoutMs: timeoutMs === 0 ? WAIT_PEERS_MS : timeoutMs,
        signal,
      };
      return { laggards: await waitPeers({ state, sessions, fanout, selfId: self.id }, target, networkId) };
    }),
  };

  /**
   * One transaction for each network, so that each change of a network has a revision of its own: a host acknowledges revisions, and
   * could not say which of two networks it has applied.
   */
  function register(slot: Slot, upserts: readonly Endpoint[], removed: readonly string[]) {
    const { holdings, hostId } = slot;
    return holdings.inTurn(async () => {
      const groups = new Map<string, { upserts: Endpoint[]; removed: string[] }>();
      const group = (networkId: string) => {
        const known = groups.get(networkId) ?? { upserts: [], removed: [] };
        groups.set(networkId, known);
        return known;
      };
      for (const id of removed) group(holdings.networkOfEndpoint(id) ?? '').removed.push(id);
      const refused: Refusal[] = [];
      const refuse = (endpointId: string, error: unknown): void => {
        const e = WeftError.from(error);
        // What may succeed later is not a refusal: the whole call is made again.
        if (e.retryable || e.code === 'INTERNAL') throw e;
        refused.push({ endpointId, code: CODES[e.code], message: e.details });
      };
      for (const endpoint of upserts) {
        const refusal = notIts(state, hostId, endpoint);
        if (refusal !== null)
          refuse(endpoint.id, new WeftError('PERMISSION_DENIED', refusal, { hint: 'claim the address first' }));
        else group(endpoint.networkId).upserts.push({ ...endpoint, hostId });
      }
      let revision = revisionOf(state);
      const write = async (puts: readonly Endpoint[], gone: readonly string[]): Promise<void> => {
        revision = await store.registerEndpoints(hostId, puts, gone);
        for (const id of gone) holdings.deleteEndpoint(id);
        for (const endpoint of puts) holdings.set('endpoint', endpoint);
      };
      for (const { upserts: puts, removed: gone } of groups.values()) {
        try {
          // The store compares MACs with what is there, not with each other.
          if (new Set(puts.map((endpoint) => endpoint.mac)).size < puts.length)
            throw new WeftError('ALREADY_EXISTS', 'Two of the endpoints have one MAC address.');
          await write(puts, gone);
        } catch (error) {
          if (WeftError.from(error).retryable) throw error;
          // One of them is refused: which one, is found by writing them alone.
          await write([], gone);
          for (const endpoint of puts) await write([endpoint], []).catch((e: unknown) => refuse(endpoint.id, e));
        }
      }
      return { revision, refused };
    });
  }
}
