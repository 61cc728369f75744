/** Control: waiting for convergence. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Parts } from '../parts.ts';
import { waitApplied } from '../waits.ts';
import type { Method } from './method.ts';
import { networkOf, revisionOf } from './resolve.ts';

const DEFAULT_MS = 30_000;

export function waitMethods(parts: Parts, method: Method): Pick<ControlServer, 'waitApplied'> {
  const { state, sessions, fanout, self } = parts;
  return {
    waitApplied: method(async ({ request, signal }) => {
      const wanted = request.revision;
      if (wanted !== undefined && wanted.epoch !== 0n && wanted.epoch !== state.epoch)
        throw new WeftError(
          'FAILED_PRECONDITION',
          `Revision ${wanted.number} is of epoch ${wanted.epoch}; the cluster is in epoch ${state.epoch}.`,
          {
            hint: 'the cluster was restored from a backup: wait for a newer revision',
          },
        );
      const revision = wanted?.number ?? state.revision;
      // Another replica has resolved the name, and may know the network before this one does.
      const networkId =
        request.network === ''
          ? null
          : request.localOnly
            ? request.network
            : networkOf(state, request.project, request.network).id;
      const laggards = await waitApplied(
        { state, sessions, fanout, selfId: self.id },
        {
          revision,
          networkId,
          except: new Set(request.exceptHostIds),
          timeoutMs: request.timeoutMs === 0 ? DEFAULT_MS : request.timeoutMs,
          signal,
        },
        request.localOnly,
      );
      return { revision: revisionOf(state, revision), applied: laggards.length === 0, laggards };
    }),
  };
}
