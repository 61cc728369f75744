/**
 * Programs on ports of Open vSwitch's. It clears a port's hooks (netdev_linux_set_policing() in its lib/netdev-linux.c deletes the qdisc
 * that they belong to) with its next configuration after it was told anything of the link, and when it starts. That may be long after,
 * when connections depend on them; so it is made to configure at once, while the link is new, and they are put back.
 */
import type { Kernel } from './kernel.ts';

interface PortHooksOptions {
  readonly kernel: Pick<Kernel, 'onPorts' | 'links' | 'restore'>;
  /** Open vSwitch configures, and is waited for. */
  readonly configure: () => Promise<unknown>;
}

export class PortHooks {
  readonly #o: PortHooksOptions;
  #stirred = true;

  constructor(options: PortHooksOptions) {
    this.#o = options;
  }

  /** @param names of links that something was told of; null: any. @returns true when settle() has work */
  stir(names: Iterable<string> | null): boolean {
    const { kernel } = this.#o;
    if (!kernel.onPorts) return false;
    if (names === null || kernel.links.intersection(new Set(names)).size > 0) this.#stirred = true;
    return this.#stirred && kernel.links.size > 0;
  }

  /** Nothing is cleared after this that nobody stirs. @throws as Open vSwitch or the helper fails: to be called again */
  async settle(): Promise<void> {
    const { kernel } = this.#o;
    if (!this.#stirred || !kernel.onPorts || kernel.links.size === 0) return;
    this.#stirred = false;
    try {
      await this.#o.configure();
      await kernel.restore();
    } catch (error) {
      this.#stirred = true;
      throw error;
    }
  }

  /** Open vSwitch has been configured for other reasons. */
  async configured(): Promise<void> {
    if (this.#o.kernel.onPorts) await this.#o.kernel.restore();
  }
}
