/** What a coordinator takes from an opened store. */
import type { Log } from '../lib/log.ts';
import type { CoordinatorOptions } from './coordinator.ts';
import type { OpenedStore } from './store/index.ts';
import { keys } from './store/keys.ts';

type FromStore = Required<Pick<CoordinatorOptions, 'state' | 'store' | 'auditor' | 'restored' | 'etcdKey'>>;

export function fromStore(opened: OpenedStore, log: Log): FromStore {
  const { state, store, auditor, deps } = opened;
  return {
    state,
    store,
    auditor,
    restored: async (seen) => {
      // Asked of etcd itself: this coordinator may only be behind.
      if (seen.epoch === state.epoch && (await deps.committer.barrier()) >= seen.number) return false;
      log.warn({ seen: `${seen.epoch}/${seen.number}` }, 'a host has seen a revision that etcd does not have');
      await opened.raiseEpoch(seen);
      return true;
    },
    etcdKey: (kind, networkId, name) => {
      const project = state.networks.get(networkId)?.project ?? 'default';
      return kind === 'host' ? keys.host(name) : keys[kind](project, networkId, name);
    },
  };
}
