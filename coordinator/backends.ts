/** Which endpoints are behind services, and how they are. Pure. */
import type { ServiceBackend } from '../gen/weft/v1/control.ts';
import { endpointName } from '../lib/endpoint-name.ts';
import type { Endpoint, EndpointSettings, Service } from '../lib/model.ts';
import { selects } from '../lib/selector.ts';
import type { State } from './contract.ts';

type Source = Pick<State, 'endpoints' | 'settings'>;

/** Of several services of one network: each endpoint is looked at only for services that select a label which it has. */
export class Backends {
  readonly #endpoints: ReadonlyMap<string, Endpoint>;
  readonly #settings: ReadonlyMap<string, EndpointSettings> | undefined;
  /** By label and value. */
  readonly #labelled = new Map<string, Endpoint[]>();

  constructor(source: Source, networkId: string) {
    this.#endpoints = source.endpoints.get(networkId) ?? new Map();
    this.#settings = source.settings.get(networkId);
    for (const endpoint of this.#endpoints.values())
      for (const [label, value] of Object.entries(endpoint.labels)) {
        const key = `${label}\0${value}`;
        const list = this.#labelled.get(key);
        if (list === undefined) this.#labelled.set(key, [endpoint]);
        else list.push(endpoint);
      }
  }

  /** By name. */
  of(service: Service): ServiceBackend[] {
    const lists = Object.entries(service.selector).map(
      ([label, value]) => this.#labelled.get(`${label}\0${value}`) ?? [],
    );
    const [shortest = []] = lists.sort((a, b) => a.length - b.length);
    const order = (e: Endpoint): string => `${endpointName(e)}\0${e.id}`;
    return shortest
      .filter((endpoint) => selects(service.selector, endpoint.labels))
      .sort((a, b) => (order(a) < order(b) ? -1 : 1))
      .map((endpoint) => ({ endpoint, state: this.#stateOf(service, endpoint) }));
  }

  #stateOf(service: Service, endpoint: Endpoint): string {
    if (endpoint.state === 'pending') return 'pending';
    if (endpoint.unhealthy.includes(service.id)) return 'unhealthy';
    return this.#settings?.get(endpoint.id)?.draining === true ? 'draining' : 'healthy';
  }
}
