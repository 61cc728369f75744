/** What the agent does with packets that the switch sends it, beside multicast memberships. */
import { carryErrors, type ErrorSources } from './gateway/errors.ts';
import type { Packets } from './openflow/packets.ts';
import { answerRejected } from './policies/rejecter.ts';

/** From now on, for as long as there are packets. */
export function answerPunted(packets: Pick<Packets, 'on' | 'send'>, sources: ErrorSources): void {
  answerRejected(packets);
  carryErrors(packets, sources);
}
