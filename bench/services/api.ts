/** Services by the control API: made without a process for each. */
import {
  type ControlClient,
  ControlService,
  CreateServiceRequest,
  ListEndpointsRequest,
  ListServicesRequest,
  WaitAppliedRequest,
} from '../../gen/weft/v1/control.ts';
import type { HealthCheck, Revision } from '../../gen/weft/v1/types.ts';
import { callUnary } from '../../lib/rpc.ts';
import { until } from '../../test/harness/lab.ts';
import { controlClients } from '../../test/harness/lab-direct.ts';

const TIMEOUT_MS = 120_000;

export interface Wanted {
  readonly network: string;
  readonly name: string;
  readonly selector: Readonly<Record<string, string>>;
  /** Port of the service to port of the containers, TCP. */
  readonly ports: readonly (readonly [port: number, target: number])[];
  /** Absent: who is attached counts as healthy. */
  readonly health?: Partial<HealthCheck>;
}

export interface Made {
  /** Its virtual IPv4 address. */
  readonly ip: string;
  readonly revision: Revision | undefined;
}

/** A coordinator of the lab; disposing of it closes the connection. */
export class Api implements Disposable {
  readonly #client: ControlClient;

  private constructor(client: ControlClient) {
    this.#client = client;
  }

  static async connect(): Promise<Api> {
    const [client, ...others] = await controlClients();
    for (const other of others) other.close();
    if (client === undefined) throw new Error('the lab has no coordinator');
    return new Api(client);
  }

  async create({ network, name, selector, ports, health }: Wanted): Promise<Made> {
    const several = ports.length > 1;
    const service = {
      name,
      selector: { ...selector },
      ports: ports.map(([port, targetPort]) => ({
        name: several ? `p${port}` : '',
        protocol: 'tcp',
        port,
        targetPort,
      })),
      ...(health === undefined ? {} : { health }),
    };
    const request = CreateServiceRequest.fromPartial({ network, service });
    const answer = await callUnary(this.#client, ControlService.createService, request, { timeoutMs: TIMEOUT_MS });
    return { ip: answer.status?.service?.ips[0] ?? '', revision: answer.revision };
  }

  /** Ids of the containers (endpoints) of a network. */
  async containers(network: string): Promise<string[]> {
    const request = ListEndpointsRequest.fromPartial({ network });
    const answer = await callUnary(this.#client, ControlService.listEndpoints, request, { timeoutMs: TIMEOUT_MS });
    return answer.endpoints.map((e) => e.container?.id ?? e.id);
  }

  /** Resolves when so many are behind a service and healthy, and every host has applied it. */
  async served(network: string, name: string, backends: number): Promise<void> {
    const request = ListServicesRequest.fromPartial({ network });
    await until(`${backends} behind ${name}`, async () => {
      const answer = await callUnary(this.#client, ControlService.listServices, request, { timeoutMs: TIMEOUT_MS });
      const status = answer.services.find((s) => s.service?.name === name);
      return status?.backends.filter((b) => b.state === 'healthy').length === backends;
    });
    await this.applied();
  }

  /** Resolves when every host has applied that revision, or the newest. @throws with who has not, after two minutes */
  async applied(revision?: Revision): Promise<void> {
    const request = WaitAppliedRequest.fromPartial({ timeoutMs: TIMEOUT_MS, ...(revision && { revision }) });
    const answer = await callUnary(this.#client, ControlService.waitApplied, request, {
      timeoutMs: TIMEOUT_MS + 10_000,
    });
    if (!answer.applied) throw new Error(answer.laggards.map((l) => `${l.host}: ${l.reason}`).join('; '));
  }

  [Symbol.dispose](): void {
    this.#client.close();
  }
}
