/** Networks that are too large for the underlay of a host that connected after they were made. Pure. */
import type { Conflict } from '../lib/model.ts';
import { mtuConflict } from './alloc/encap.ts';
import type { State } from './contract.ts';

/** Of each host; one sentence counts the rest. */
const SHOWN = 10;

/** Conflicts of the connected hosts, by host name. */
export function mtuConflicts(state: Pick<State, 'hosts' | 'networks' | 'presences'>): Conflict[] {
  const hosts = [...state.hosts.values()].filter((host) => state.presences.has(host.id));
  const networks = [...state.networks.values()].filter((network) => network.state === 'bound');
  return hosts
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((host) => {
      const found = networks.flatMap((network): Conflict[] => {
        const message = mtuConflict(host, network);
        return message === null ? [] : [{ host: host.name, network: network.name, message }];
      });
      const more = found.length - SHOWN;
      if (more <= 0) return found;
      const rest = { host: host.name, network: '', message: `${more} more networks are too large for its underlay` };
      return [...found.slice(0, SHOWN), rest];
    });
}
