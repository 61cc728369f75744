/** Asks ability.ts with what the host looks like now. */
import type { Probe } from '../lib/model.ts';
import { type HostSide, refusalOf, uplinkProbes, uplinksOf } from './ability.ts';
import type { Journal } from './contract.ts';
import { BRIDGE } from './desired.ts';
import type { OvsDriver } from './ovs/driver.ts';
import { type HostInterface, hostInterfaces } from './probe/links.ts';
import type { Wiring } from './wiring.ts';

export class Abilities {
  readonly #o: {
    readonly hostName: string;
    readonly wiring: Wiring;
    readonly probes: readonly Probe[];
    readonly journal: Journal;
    readonly ovs: OvsDriver;
  };

  constructor(options: {
    hostName: string;
    wiring: Wiring;
    probes: readonly Probe[];
    journal: Journal;
    ovs: OvsDriver;
  }) {
    this.#o = options;
  }

  /** @throws FAILED_PRECONDITION with the reason when this host cannot carry the network. */
  async carries(networkId: string): Promise<void> {
    const row = this.#o.journal.networks.get(networkId);
    if (row === undefined) return; // who asks finds that out, and says it better
    const refusal = refusalOf(row.network, row.index, await this.#side(row.network.encap === 'vlan'));
    if (refusal !== null) throw refusal;
  }

  /** Interfaces that a vlan network could have here, and what is to be said of them. */
  async uplinks(): Promise<{ names: string[]; probes: Probe[]; interfaces: readonly HostInterface[] }> {
    const side = await this.#side(true);
    return { names: uplinksOf(side), probes: uplinkProbes(side), interfaces: side.interfaces };
  }

  async #side(interfaces: boolean): Promise<HostSide> {
    const { hostName, wiring, probes, ovs } = this.#o;
    return {
      hostName,
      wiring,
      probes,
      interfaces: interfaces ? await hostInterfaces() : [],
      bridgeOf: (name) => [...ovs.observe().bridges.values()].find((b) => b.ports.has(name))?.name ?? null,
      ourBridge: BRIDGE,
    };
  }
}
