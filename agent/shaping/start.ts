/** The shaper of the underlay, as the configuration wants it. */
import type { AgentConfig } from '../../lib/config.ts';
import { silentLog } from '../../lib/log.ts';
import { systemClock } from '../clock.ts';
import { hostInterfaces } from '../probe/links.ts';
import { chooseUnderlay } from '../probe/underlay.ts';
import { UnderlayShaper, type UnderlayShaperOptions } from '../underlay-shaper.ts';
import type { Wiring } from '../wiring.ts';
import { UnderlayQueues } from './underlay.ts';

/** In an agent's state directory: what the interface had before. */
export const UNDERLAY_FILE = 'underlay-queue.json';

export const shapeUnderlay = (
  { underlay, stateDir }: Pick<AgentConfig, 'underlay' | 'stateDir'>,
  wiring: Pick<Wiring, 'backend' | 'datapathType'>,
  told: Pick<UnderlayShaperOptions, 'onDrift' | 'onProblem' | 'log'>,
): UnderlayShaper =>
  new UnderlayShaper({
    ...told,
    queues: new UnderlayQueues(),
    bits: underlay.shape,
    where: async () => {
      try {
        return chooseUnderlay(underlay, await hostInterfaces()).interface;
      } catch {
        return undefined; // told of as the VTEP's
      }
    },
    unable:
      wiring.backend === 'ovs-tunnel' && wiring.datapathType === 'netdev'
        ? 'Open vSwitch sends this host’s tunnels from user space, past the queues of the kernel'
        : '',
    file: `${stateDir}/${UNDERLAY_FILE}`,
    now: () => systemClock.now(),
  });

/** Without an agent. @returns a sentence; empty: what interfaces had before is there again */
export async function giveBack(stateDir: string, queues = new UnderlayQueues()): Promise<string> {
  let problem = '';
  const shaper = new UnderlayShaper({
    queues,
    bits: null,
    where: () => Promise.resolve(undefined),
    unable: '',
    file: `${stateDir}/${UNDERLAY_FILE}`,
    onDrift: () => undefined,
    onProblem: (message) => {
      problem = message;
    },
    now: () => systemClock.now(),
    log: silentLog(),
  });
  await shaper.start();
  return problem;
}
