/** What policies need of the agent beside flows: what names stand for, and somebody who tells of what staged ones would have decided. */
import { canonicalIp } from '../../lib/addr.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Event, View } from '../../lib/model.ts';
import type { Journal } from '../contract.ts';
import { vswitchdControl } from '../facts.ts';
import type { NetworkModel } from '../flows/model.ts';
import { TABLE } from '../flows/pipeline.ts';
import { hostIps } from '../gateway/host-ips.ts';
import type { FlowDriver } from '../openflow/driver.ts';
import { appctl } from '../ovs/appctl.ts';
import { vtepsOf } from '../peers.ts';
import { connectedTo } from './connections.ts';
import { LearnedNames } from './names.ts';
import { type StagedCount, StagedCounts, type StagedTold } from './staged.ts';

export interface PolicySideOptions {
  readonly host: string;
  readonly journal: Pick<Journal, 'networks'>;
  readonly mesh: () => { view(): View; event(event: Event): void };
  readonly datapath: () => { readonly networks: readonly NetworkModel[]; settled(): Promise<string> };
  readonly flows: Pick<FlowDriver, 'observe'>;
  /** Directory of ovs-vswitchd's sockets. */
  readonly rundir: string;
  /** Names are kept there. */
  readonly file: string;
  readonly clock: Clock;
  readonly log: Log;
}

export class PolicySide {
  readonly names: LearnedNames;
  /** For whoever is handed the packets. */
  readonly staged: StagedTold;
  readonly #counts: StagedCounts;

  constructor({ host, journal, mesh, datapath, flows, rundir, file, clock, log }: PolicySideOptions) {
    const sources = {
      networks: () => datapath().networks,
      nameOf: (index: number) => journal.networks.values().find((n) => n.index === index)?.name ?? String(index),
    };
    this.#counts = new StagedCounts({ ...sources, read: () => flows.observe(undefined, TABLE.staged) });
    this.staged = { ...sources, host, event: (event) => mesh().event(event), clock, log };
    this.names = new LearnedNames({
      file,
      view: () => mesh().view(),
      networks: () => journal.networks.values().map(({ network }) => network),
      hosts: () => new Set([...hostIps(), ...vtepsOf(mesh().view()).keys().map(canonicalIp)]),
      settled: () => datapath().settled(),
      connected: async (ended) => {
        const zones = new Map([...journal.networks.values()].map(({ networkId, index }) => [networkId, index]));
        const text = await appctl(await vswitchdControl(rundir), 'dpctl/dump-conntrack');
        return connectedTo(text, ended, zones);
      },
      clock,
      log,
    });
  }

  /** Of each staged rule on this host. @throws as FlowDriver.observe */
  counts(): Promise<readonly StagedCount[]> {
    return this.#counts.read();
  }
}
