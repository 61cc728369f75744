/** What the mesh asks of this host's containers: find, connect, disconnect. */
import { canonicalIp } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import { normalMac } from '../../lib/mac.ts';
import type { Container } from '../../lib/model.ts';
import type { DockerApi } from './api.ts';
import type { Copies } from './copies.ts';

export class Containers {
  readonly #api: DockerApi;
  readonly #copies: Copies;
  readonly #hostName: () => string;

  constructor(options: { api: DockerApi; copies: Copies; hostName: () => string }) {
    this.#api = options.api;
    this.#copies = options.copies;
    this.#hostName = options.hostName;
  }

  /** By name, id, or a prefix of the id (4 digits or more); a name wins. */
  async find(container: string): Promise<Container[]> {
    const all = await this.#api.containers();
    const exact = all.filter((c) => c.name === container || c.id === container);
    const found =
      exact.length > 0 || !/^[0-9a-f]{4,}$/.test(container) ? exact : all.filter((c) => c.id.startsWith(container));
    return found.map(({ id, name }) => ({ id, name }));
  }

  /**
   * docker network connect. Empty `ip`, `ip6` or `mac` = Weft's choice.
   * @returns the addresses; empty for a container that is not running (it gets them when it starts)
   */
  async connect(
    networkId: string,
    container: string,
    address: { ip: string; ip6: string; mac: string },
  ): Promise<{ ip: string; ip6: string }> {
    const { dockerNetworkId, containerId } = await this.#resolve(networkId, container);
    const [ip, ip6] = [address.ip, address.ip6].map((text) => (text === '' ? '' : canonicalIp(text)));
    const mac = address.mac === '' ? '' : normalMac(address.mac);
    await this.#api.connect(dockerNetworkId, containerId, { ip: ip ?? '', ip6: ip6 ?? '', mac });
    const found = await this.#api.network(dockerNetworkId);
    const made = found?.endpoints.find((e) => e.containerId === containerId);
    return { ip: made?.ip ?? '', ip6: made?.ip6 ?? '' };
  }

  /** docker network disconnect. */
  async disconnect(networkId: string, container: string, force: boolean): Promise<void> {
    const { dockerNetworkId, containerId } = await this.#resolve(networkId, container);
    await this.#api.disconnect(dockerNetworkId, containerId, force);
  }

  async #resolve(networkId: string, container: string): Promise<{ dockerNetworkId: string; containerId: string }> {
    const dockerNetworkId = this.#copies.byId(networkId)?.dockerNetworkId ?? null;
    if (dockerNetworkId === null)
      throw new WeftError('NOT_FOUND', `host ${this.#hostName()} does not have the network (yet)`, {
        hint: 'look at weft status: is there a conflict?',
      });
    const [found, ...more] = await this.find(container);
    if (found === undefined)
      throw new WeftError('NOT_FOUND', `host ${this.#hostName()} has no container "${container}"`);
    if (more.length > 0)
      throw new WeftError('INVALID_ARGUMENT', `"${container}" means several containers of host ${this.#hostName()}`, {
        hint: [found, ...more].map((c) => c.name).join(', '),
      });
    return { dockerNetworkId, containerId: found.id };
  }
}
