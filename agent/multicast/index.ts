/** Multicast of this host, put together: a connection of its own to the switch for packets, and the snooper behind it. */
import { systemClock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Journal } from '../contract.ts';
import { OpenFlowClient } from '../openflow/client.ts';
import { Packets } from '../openflow/packets.ts';
import type { Snooped } from '../plan/multicast.ts';
import { MembershipMemory } from './memory.ts';
import { Snooper, type SnooperMesh } from './snooper.ts';

export interface MulticastOptions {
  /** The bridge's OpenFlow management socket. */
  readonly switchPath: string;
  /** Where memberships are kept over a restart. */
  readonly file: string;
  readonly journal: Pick<Journal, 'endpoints' | 'networks'>;
  readonly mesh: () => SnooperMesh;
  readonly datapath: () => { ofport(endpointId: string): number | null; kick(): void; repeat(): Promise<void> };
  readonly log: Log;
}

export class MulticastSide {
  readonly packets: Packets;
  readonly #client: OpenFlowClient;
  readonly #snooper: () => Snooper;
  #made: Snooper | null = null;

  constructor(o: MulticastOptions) {
    this.#client = new OpenFlowClient({ path: o.switchPath, packetIns: true });
    this.packets = new Packets({ client: this.#client, log: o.log });
    // Mesh and reconciler know of this side before they are made themselves.
    this.#snooper = () =>
      (this.#made ??= new Snooper({
        journal: o.journal,
        mesh: o.mesh(),
        packets: this.packets,
        ofport: (id) => o.datapath().ofport(id),
        onChange: () => o.datapath().kick(),
        repeat: () => o.datapath().repeat(),
        memory: new MembershipMemory(o.file, o.log),
        clock: systemClock(),
        log: o.log,
      }));
  }

  /** Null: nothing is known, everything is to be flooded. */
  state(): Snooped | null {
    return this.#made?.state() ?? null;
  }

  async start(): Promise<void> {
    const snooper = this.#snooper();
    await snooper.recall();
    this.#client.start();
    this.packets.start();
    let lost = false;
    this.#client.onDown(() => {
      lost = true;
    });
    this.#client.onUp(() => {
      if (lost) snooper.switchUp();
      lost = false;
    });
    snooper.start();
  }

  async close(): Promise<void> {
    await this.#made?.close();
    await this.packets.close();
    this.#client.close();
  }
}
