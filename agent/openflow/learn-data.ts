import type { LearnAction } from './flow.ts';

/** One spelling: nothing that has the value of its absence. */
export function canonicalLearn(learn: LearnAction): LearnAction {
  const { type, table, priority, idleTimeout, hardTimeout, finIdleTimeout, finHardTimeout, cookie, limit, flags } =
    learn;
  return {
    type,
    table,
    priority,
    ...((idleTimeout ?? 0) !== 0 && { idleTimeout }),
    ...((hardTimeout ?? 0) !== 0 && { hardTimeout }),
    ...((finIdleTimeout ?? 0) !== 0 && { finIdleTimeout }),
    ...((finHardTimeout ?? 0) !== 0 && { finHardTimeout }),
    ...((cookie ?? 0n) !== 0n && { cookie }),
    ...((limit ?? 0) !== 0 && { limit }),
    ...((flags ?? 0) !== 0 && { flags }),
    specs: learn.specs,
  } as LearnAction;
}
