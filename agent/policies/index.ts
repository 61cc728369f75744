/** What policies need of the agent beside flows: somebody who tells of what staged ones would have decided. */
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Event } from '../../lib/model.ts';
import type { Journal } from '../contract.ts';
import type { NetworkModel } from '../flows/model.ts';
import { TABLE } from '../flows/pipeline.ts';
import type { FlowDriver } from '../openflow/driver.ts';
import { type StagedCount, StagedCounts, type StagedTold } from './staged.ts';

export interface PolicySideOptions {
  readonly host: string;
  readonly journal: Pick<Journal, 'networks'>;
  readonly datapath: () => { readonly networks: readonly NetworkModel[] };
  readonly flows: Pick<FlowDriver, 'observe'>;
  readonly event: (event: Event) => void;
  readonly clock: Clock;
  readonly log: Log;
}

export class PolicySide {
  /** For whoever is handed the packets. */
  readonly staged: StagedTold;
  readonly #counts: StagedCounts;

  constructor({ host, journal, datapath, flows, event, clock, log }: PolicySideOptions) {
    const sources = {
      networks: () => datapath().networks,
      nameOf: (index: number) => journal.networks.values().find((n) => n.index === index)?.name ?? String(index),
    };
    this.#counts = new StagedCounts({ ...sources, read: () => flows.observe(undefined, TABLE.staged) });
    this.staged = { ...sources, host, event, clock, log };
  }

  /** Of each staged rule on this host. @throws as FlowDriver.observe */
  counts(): Promise<readonly StagedCount[]> {
    return this.#counts.read();
  }
}
