/** What the agent does with packets that the switch sends it, beside multicast memberships. */
import { carryErrors, type ErrorSources } from './gateway/errors.ts';
import type { Packets } from './openflow/packets.ts';
import { answerRejected } from './policies/rejecter.ts';
import { type StagedTold, tellStaged } from './policies/staged.ts';

/** From now on, for as long as there are packets. */
export function answerPunted(
  packets: Pick<Packets, 'on' | 'send'>,
  { staged, ...sources }: ErrorSources & { readonly staged: StagedTold },
): void {
  answerRejected(packets);
  carryErrors(packets, sources);
  tellStaged(packets, staged);
}
