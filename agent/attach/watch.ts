/**
 * What is attached may go without a word: the process ends, the virtual machine takes its tap along. After a grace (a restart of
 * either takes a moment) the endpoint is detached, so that its address does not leak. Only in sync, as with everything that goes.
 */
import type { Log } from '../../lib/log.ts';
import type { Clock } from '../clock.ts';
import type { Journal, LocalEndpoint, Mesh } from '../contract.ts';
import { nameOf } from '../contract.ts';
import { hostLink } from '../link/names.ts';
import { isNamespaceGone, successorOf } from './namespaces.ts';

const PERIOD_MS = 1_000;
export const GRACE_MS = 10_000;

export interface WatchOptions {
  readonly journal: Journal;
  readonly mesh: Pick<Mesh, 'inSync' | 'view'>;
  /** A device is there; null = not known just now. */
  readonly hasLink: (name: string) => boolean | null;
  readonly detach: (endpoint: LocalEndpoint) => Promise<void>;
  /** Something came or went. */
  readonly kick: () => void;
  readonly clock: Clock;
  readonly log: Log;
}

export class AbsenceWatch {
  readonly #o: WatchOptions;
  /** Endpoint id to the monotonic moment since which what it stands for is away. */
  readonly #awaySince = new Map<string, number>();
  readonly #leaving = new Set<string>();
  #timer: NodeJS.Timeout | null = null;

  constructor(options: WatchOptions) {
    this.#o = options;
  }

  start(): void {
    this.#timer = setInterval(() => this.look(), PERIOD_MS);
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }

  /** One look at all that is attached. */
  look(): void {
    const { journal, mesh, clock } = this.#o;
    const now = clock.monotonic();
    for (const id of this.#awaySince.keys()) if (!journal.endpoints.has(id)) this.#awaySince.delete(id);
    for (const endpoint of journal.endpoints.values()) {
      if (endpoint.attached === undefined || this.#succeeded(endpoint)) continue;
      const why = this.#away(endpoint);
      const since = this.#awaySince.get(endpoint.id);
      if ((why === null) === (since !== undefined)) this.#o.kick();
      if (why === null) this.#awaySince.delete(endpoint.id);
      else if (since === undefined) this.#awaySince.set(endpoint.id, now);
      else if (now - since >= GRACE_MS && mesh.inSync) this.#leave(endpoint, why);
    }
  }

  /**
   * Another namespace has taken the place of the endpoint's: once the old link is gone (which may still be in use by a process
   * there), the new one is made.
   */
  #succeeded(endpoint: LocalEndpoint): boolean {
    const { journal, hasLink, kick, log } = this.#o;
    const inode = successorOf(endpoint);
    if (inode === null || endpoint.attached?.kind !== 'netns') return false;
    this.#awaySince.delete(endpoint.id);
    kick();
    if (hasLink(hostLink(endpoint.id)) !== false) return true;
    log.info(
      { endpoint: endpoint.id, name: nameOf(endpoint), netns: endpoint.sandbox },
      'another namespace is there now',
    );
    const value: LocalEndpoint = { ...endpoint, attached: { ...endpoint.attached, inode } };
    journal.write([{ table: 'endpoint', key: endpoint.id, value }]).then(kick, (error: unknown) => {
      log.warn({ endpoint: endpoint.id, err: error }, 'namespace not taken up');
    });
    return true;
  }

  /** Null: all that it needs is there, or nothing is known. */
  #away(endpoint: LocalEndpoint): string | null {
    const { mesh, hasLink } = this.#o;
    const { attached } = endpoint;
    if (attached?.kind === 'tap' && hasLink(attached.link) === false) return `interface ${attached.link} is gone`;
    if (isNamespaceGone(endpoint)) return `network namespace ${endpoint.sandbox} is gone`;
    return mesh.inSync && !mesh.view().networks.has(endpoint.networkId) ? 'its network is gone' : null;
  }

  #leave(endpoint: LocalEndpoint, why: string): void {
    if (this.#leaving.has(endpoint.id)) return;
    this.#leaving.add(endpoint.id);
    this.#o.log.info({ endpoint: endpoint.id, name: nameOf(endpoint), ips: endpoint.ip, why }, 'detached by itself');
    this.#o
      .detach(endpoint)
      .catch((error: unknown) => this.#o.log.warn({ endpoint: endpoint.id, err: error }, 'not detached'))
      .finally(() => this.#leaving.delete(endpoint.id));
  }
}
