/** The Replica service: only for other coordinators. */
import type { ReplicaServer } from '../../gen/weft/v1/replica.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Parts } from '../parts.ts';
import { waitInterested } from '../waits.ts';
import { makeMethod } from './method.ts';

export function replicaService(parts: Parts): ReplicaServer {
  const { state, sessions, blocks, fanout, self } = parts;
  const method = makeMethod(parts.log, parts.metrics, 'coordinator');
  return {
    askHost: method(async ({ request, signal }) => {
      const body = request.query?.body;
      if (body === undefined) throw new WeftError('INVALID_ARGUMENT', 'The query is empty.');
      return { answer: await sessions.ask(request.hostId, body, request.timeoutMs, signal) };
    }),

    reclaimBlock: method(async ({ request }) => ({
      freed: await blocks.reclaim(request.hostId, request.networkId, request.cidr, request.last),
    })),

    waitInterested: method(async ({ request, signal }) => ({
      laggards: await waitInterested(
        { state, sessions, fanout, selfId: self.id },
        {
          revision: request.revision?.number ?? state.revision,
          networkId: request.networkId,
          except: new Set(request.exceptHostIds),
          timeoutMs: request.timeoutMs,
          signal,
        },
      ),
    })),
  };
}
