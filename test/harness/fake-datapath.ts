/** A datapath of veth pairs on a Linux bridge inside a test host's network namespace: containers of one host reach each other. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Datapath, Journal } from '../../agent/contract.ts';

const run = promisify(execFile);

export class FakeDatapath implements Datapath {
  readonly #journal: Journal;
  readonly #netns: string;
  kicks = 0;
  /** Awaited before anything is attached. */
  beforeAttach: () => Promise<void> = () => Promise.resolve();

  constructor(options: { journal: Journal; netns: string }) {
    this.#journal = options.journal;
    this.#netns = options.netns;
  }

  async start(): Promise<void> {
    await this.#ip('link', 'add', 'fakebr', 'type', 'bridge').catch(() => undefined);
    await this.#ip('link', 'set', 'fakebr', 'up');
    // dockerd's FORWARD policy would drop what the bridge carries.
    const off = ['sysctl', '-qw', 'net.bridge.bridge-nf-call-iptables=0'];
    await run('ip', ['netns', 'exec', this.#netns, ...off]).catch(() => undefined);
  }

  carries(): Promise<void> {
    return Promise.resolve();
  }

  async attach(endpointId: string): Promise<{ containerLink: string }> {
    const endpoint = this.#journal.endpoints.get(endpointId);
    if (endpoint === undefined) throw new Error(`endpoint ${endpointId} is not in the journal`);
    await this.beforeAttach();
    const [port, containerLink] = [`wp${endpointId.slice(0, 11)}`, `wc${endpointId.slice(0, 11)}`];
    const there = await this.#ip('link', 'show', port).then(
      () => true,
      () => false,
    );
    if (!there) {
      const mtu = String(endpoint.mtu);
      const peer = ['peer', 'name', containerLink, 'mtu', mtu, 'address', endpoint.mac];
      await this.#ip('link', 'add', port, 'mtu', mtu, 'type', 'veth', ...peer);
      await this.#ip('link', 'set', port, 'master', 'fakebr', 'up');
    }
    return { containerLink };
  }

  async detach(endpointId: string): Promise<void> {
    await this.#ip('link', 'del', `wp${endpointId.slice(0, 11)}`).catch(() => undefined);
  }

  kick(): void {
    this.kicks++;
  }

  async #ip(...args: string[]): Promise<void> {
    await run('ip', ['-n', this.#netns, ...args]);
  }
}
