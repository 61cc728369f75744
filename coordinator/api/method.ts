/** Unary methods of a service: who may call is checked, the outcome counted, errors become statuses. */
import type { handleUnaryCall, ServerUnaryCall } from '@grpc/grpc-js';
import { codeOf } from '../../lib/errors.ts';
import type { Log } from '../../lib/log.ts';
import { type Identity, type IdentityKind, requireIdentity, unary } from '../../lib/rpc.ts';
import type { Metrics } from '../metrics.ts';

export interface Incoming<Req> {
  readonly request: Req;
  readonly caller: Identity;
  /** Aborts when the caller has gone. */
  readonly signal: AbortSignal;
}

/** Makes a unary method out of an async function. */
export type Method = <Req, Res>(handler: (call: Incoming<Req>) => Promise<Res>) => handleUnaryCall<Req, Res>;

/**
 * Looks again, once, when something is not there: another coordinator may have made it a moment ago. Handlers say NOT_FOUND before
 * they change anything.
 */
export const lookingTwice =
  (method: Method, caughtUp: () => Promise<void>): Method =>
  (handler) =>
    method(async (call) => {
      try {
        return await handler(call);
      } catch (error) {
        if (codeOf(error) !== 'NOT_FOUND') throw error;
        await caughtUp();
        return handler(call);
      }
    });

export function makeMethod(log: Log, metrics: Metrics, ...kinds: readonly IdentityKind[]): Method {
  return <Req, Res>(handler: (call: Incoming<Req>) => Promise<Res>) =>
    unary<Req, Res>(async (call: ServerUnaryCall<Req, Res>) => {
      const name = call.getPath();
      try {
        const caller = requireIdentity(call, ...kinds);
        const gone = new AbortController();
        call.on('cancelled', () => gone.abort());
        const response = await handler({ request: call.request, caller, signal: gone.signal });
        metrics.call(name, 'OK');
        return response;
      } catch (error) {
        metrics.call(name, codeOf(error));
        throw error;
      }
    }, log);
}
