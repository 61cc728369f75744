/** What the host of `bench/dns.ts` knows: one network of many containers, a tenth of them its own, and services. */
import { indexNames, type NameIndex, type NameSources, NO_NAMES } from '../agent/dns/names.ts';
import type { Endpoint, NetworkView, Service } from '../lib/model.ts';
import { interest, local, network, OWN, remote, service, view } from '../test/unit/agent/dns/names-fixture.ts';

export const CONTAINERS = 1000;
/** Services with virtual addresses; headless ones, of fifty containers each. */
export const VIRTUAL = 100;
export const HEADLESS = 20;

/** Changed as a session changes it: the index is made anew when somebody asks. */
export class Names {
  #web: NetworkView;
  readonly #own = Array.from({ length: CONTAINERS / 10 }, (_, i) => local(container(10 * i), labels(10 * i)));
  readonly #network = network('web');
  #index: NameIndex = NO_NAMES;
  #stale = true;
  #at = 1;

  constructor() {
    const others = Array.from({ length: CONTAINERS }, (_, i) => i).filter((i) => i % 10 !== 0);
    this.#web = interest('web', others.map(elsewhere));
  }

  addServices(): void {
    const virtual = Array.from({ length: VIRTUAL }, (_, i) =>
      service('web', `virtual${i}`, { ips: [`10.128.15.${i}`, `fd00:1::f:${i}`] }),
    );
    const headless = Array.from({ length: HEADLESS }, (_, i) =>
      service('web', `headless${i}`, { selector: { app: String(i) } }),
    );
    const services = new Map([...virtual, ...headless].map((s): [string, Service] => [s.name, s]));
    this.#web = { ...this.#web, services };
    this.#stale = true;
  }

  /** A container goes, or is there again. Those that are asked for stay: it is one that is not. */
  change(): void {
    const endpoints = new Map(this.#web.endpoints);
    const extra = elsewhere(CONTAINERS + 1);
    if (this.#at++ % 2 === 0) endpoints.delete(extra.id);
    else endpoints.set(extra.id, extra);
    this.#web = { ...this.#web, endpoints };
    this.#stale = true;
  }

  index(): NameIndex {
    if (!this.#stale) return this.#index;
    this.#stale = false;
    const seen = { ...view([this.#network], []), interests: new Map([['web', this.#web]]) };
    const sources: NameSources = { hostId: OWN, view: seen, endpoints: this.#own, networks: new Map() };
    this.#index = indexNames(sources, this.#index);
    return this.#index;
  }
}

const container = (i: number): Parameters<typeof local>[0] => ({
  network: 'web',
  name: `c${i}`,
  ips: [`10.128.${1 + (i >> 8)}.${i & 255}`, `fd00:1::${(256 + i).toString(16)}`],
  aliases: [`group${i % 100}`],
  container: String(i).padStart(64, '0'),
});
const labels = (i: number): { labels: Record<string, string> } => ({
  labels: { app: String(i % HEADLESS), tier: 'b' },
});
const elsewhere = (i: number): Endpoint => remote(container(i), labels(i));
