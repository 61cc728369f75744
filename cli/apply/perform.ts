/** Does what a plan says, in its order, until something fails: what is done stays done, and is told. */
import type { Revision } from '../../gen/weft/v1/types.ts';
import { codeOf, WeftError } from '../../lib/errors.ts';
import type { CallSettings } from '../../lib/rpc.ts';
import type { MethodName, RequestOf, ResponseOf } from '../client.ts';
import { ofThisEpoch } from '../settle.ts';
import { type Call, type Change, type Ref, refText } from './model.ts';

/** Hosts may have to be asked whether an address is free; thousands of policies are tens of transactions. */
const CALL_MS = 60_000;

export type Outcome = 'created' | 'updated' | 'replaced' | 'removed' | 'unchanged' | 'missing' | 'failed' | 'not done';

const DONE: Readonly<Record<Change['action'], Outcome>> = {
  create: 'created',
  update: 'updated',
  replace: 'replaced',
  remove: 'removed',
  missing: 'missing',
};

export interface Performed {
  /** In the order of the changes. */
  readonly results: readonly (Ref & { readonly outcome: Outcome })[];
  /** Of the last that was done; undefined = nothing was. */
  readonly revision: Revision | undefined;
  /** Why it stopped. */
  readonly failure: WeftError | null;
}

/** What of a mesh's client is needed. */
export interface Caller {
  call<M extends MethodName>(method: M, request: RequestOf<M>, settings?: CallSettings): Promise<ResponseOf<M>>;
}

export async function perform(caller: Caller, changes: readonly Change[]): Promise<Performed> {
  const outcomes: Outcome[] = [];
  let revision: Revision | undefined;
  let failure: WeftError | null = null;
  for (const batch of batches(changes)) {
    if (failure !== null) break;
    try {
      revision = (await performBatch(caller, batch)) ?? revision;
      outcomes.push(...batch.map(({ action }) => DONE[action]));
    } catch (error) {
      failure = WeftError.from(error);
      outcomes.push(...batch.map((): Outcome => 'failed'));
    }
  }
  const results = changes.map((change, i) => ({
    kind: change.kind,
    network: change.network,
    name: change.name,
    outcome: outcomes[i] ?? 'not done',
  }));
  return { results, revision, failure };
}

/** Policies that follow each other go together: a coordinator judges all of them before it writes one. */
function batches(changes: readonly Change[]): readonly (readonly [Change, ...Change[]])[] {
  const all: [Change, ...Change[]][] = [];
  const together = ({ calls }: Change): boolean => calls[0]?.method === 'applyPolicies';
  for (const change of changes) {
    const last = all.at(-1);
    if (last !== undefined && together(last[0]) && together(change)) last.push(change);
    else all.push([change]);
  }
  return all;
}

async function performBatch(caller: Caller, batch: readonly [Change, ...Change[]]): Promise<Revision | undefined> {
  const [change] = batch;
  let revision: Revision | undefined;
  for (const [i, call] of merged(batch).entries()) {
    try {
      revision = (await perform1(caller, change, call)) ?? revision;
    } catch (error) {
      if (i === 0) throw about(batch, error, '');
      throw about(
        batch,
        error,
        change.undo === null ? 'It is made, and not as it should be. ' : await undone(caller, change.undo),
      );
    }
  }
  return revision;
}

/** The calls of changes that go together. */
function merged(batch: readonly [Change, ...Change[]]): readonly Call[] {
  if (batch.length === 1) return batch[0].calls;
  const policies = batch
    .flatMap(({ calls }) => calls)
    .flatMap((call) => (call.method === 'applyPolicies' ? call.request.policies : []));
  return [{ method: 'applyPolicies', request: { project: '', policies } }];
}

/** What is gone already need not be removed. */
async function perform1(caller: Caller, change: Change, { method, request }: Call): Promise<Revision | undefined> {
  const removes = /^(remove|delete)/.test(method);
  try {
    const answer = await caller.call(method, request as never, { timeoutMs: CALL_MS });
    const { revision } = answer as { readonly revision?: Revision | bigint };
    return typeof revision === 'bigint' ? ofThisEpoch(revision) : revision;
  } catch (error) {
    const gone = codeOf(error) === 'NOT_FOUND' && (removes || change.action === 'remove');
    if (gone) return undefined;
    throw error;
  }
}

async function undone(caller: Caller, { method, request }: Call): Promise<string> {
  try {
    await caller.call(method, request as never, { timeoutMs: CALL_MS });
    return 'It is as it was. ';
  } catch (error) {
    return `What was there is gone, and could not be put back (${WeftError.from(error).message}). `;
  }
}

function about(batch: readonly [Change, ...Change[]], error: unknown, more: string): WeftError {
  const { code, message, hint } = WeftError.from(error);
  // A message about policies names the one that it is about.
  const whose = batch.length === 1 ? `${refText(batch[0])}: ` : '';
  return new WeftError(code, `${whose}${message}${message.endsWith('.') ? '' : '.'} ${more}`.trim(), {
    ...(hint === null ? {} : { hint }),
    cause: error,
  });
}
