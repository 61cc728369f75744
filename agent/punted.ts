/** What the agent does with packets that the switch sends it, beside multicast memberships. */
import { carryErrors, type ErrorSources } from './gateway/errors.ts';
import type { Packets } from './openflow/packets.ts';
import { answerRejected } from './policies/rejecter.ts';
import { type StagedTold, tellStaged } from './policies/staged.ts';
import { answerUnrouted, type UnroutedSources } from './routing/unrouted.ts';

/** From now on, for as long as there are packets. */
export function answerPunted(
  packets: Pick<Packets, 'on' | 'send'>,
  { staged, ...sources }: ErrorSources & UnroutedSources & { readonly staged: StagedTold },
): void {
  answerRejected(packets);
  carryErrors(packets, sources);
  answerUnrouted(packets, sources);
  tellStaged(packets, staged);
}
