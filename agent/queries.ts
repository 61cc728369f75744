/** Answers what the coordinator asks this host. */
import type {
  AgentMessage,
  Answer,
  MtuProbe,
  ProbeTunnelAnswer,
  ProbeTunnelQuery,
  Query,
  TraceQuery,
} from '../gen/weft/v1/session.ts';
import { CODES, WeftError } from '../lib/errors.ts';
import type { Container, Drift, TraceAnswer } from '../lib/model.ts';

type Body = NonNullable<Answer['body']>;

export interface QueryHandlers {
  /** Throws when the address is in use. */
  grant(networkId: string, ip: string, forHostId: string): Promise<void>;
  /** Throws when the address is in use, but for a container of that name while `forHostId` is empty. */
  reserve(networkId: string, ip: string, name: string, forHostId: string): Promise<void>;
  giveBack(networkId: string, cidr: string, last: boolean): Promise<readonly string[]>;
  audit(heal: boolean): Promise<Drift[]>;
  findContainer(container: string): Promise<readonly Container[]>;
  /** Empty = the host's choice. */
  connect(
    networkId: string,
    container: string,
    address: { ip: string; ip6: string; mac: string },
  ): Promise<{ ip: string; ip6: string }>;
  disconnect(networkId: string, container: string, force: boolean): Promise<void>;
  /** Resolves once all that the journal has now is registered. */
  flush(): Promise<void>;
  /** @param largest bytes; 0 = the underlay interface's MTU */
  probeMtu(vteps: readonly string[], largest: number): Promise<readonly MtuProbe[]>;
  /** Throws FAILED_PRECONDITION where frames cannot be sent and heard that way. */
  probeTunnel(query: ProbeTunnelQuery): Promise<ProbeTunnelAnswer>;
  /** Nothing is sent. Throws NOT_FOUND where the endpoint is not here (any more). */
  trace(query: TraceQuery): Promise<TraceAnswer>;
}

export const answerQueries =
  (handlers: QueryHandlers) =>
  (query: Query, send: (message: AgentMessage) => void): void => {
    const answer = (a: Omit<Answer, 'id'>): void => send({ body: { $case: 'answer', value: { id: query.id, ...a } } });
    run(handlers, query).then(
      (body) => answer({ code: 0, message: '', body: body ?? undefined }),
      (error: unknown) => {
        const weft = WeftError.from(error);
        answer({ code: CODES[weft.code], message: weft.details, body: undefined });
      },
    );
  };

async function run(h: QueryHandlers, query: Query): Promise<Body | null> {
  const body = query.body;
  switch (body?.$case) {
    case 'grant':
      await h.grant(body.value.networkId, body.value.address, body.value.forHostId);
      return null;
    case 'reserve': {
      const { networkId, address, name, forHostId } = body.value;
      await h.reserve(networkId, address, name, forHostId);
      return null;
    }
    case 'giveBack': {
      const { networkId, cidr, last } = body.value;
      return { $case: 'giveBack', value: { keep: [...(await h.giveBack(networkId, cidr, last))] } };
    }
    case 'audit':
      return { $case: 'audit', value: { drift: await h.audit(!body.value.noHeal) } };
    case 'findContainer':
      return { $case: 'findContainer', value: { containers: [...(await h.findContainer(body.value.container))] } };
    case 'connect': {
      const { networkId, container, ip, ip6, mac } = body.value;
      return { $case: 'connect', value: await h.connect(networkId, container, { ip, ip6, mac }) };
    }
    case 'disconnect':
      await h.disconnect(body.value.networkId, body.value.container, body.value.force);
      return null;
    case 'flush':
      await h.flush();
      return null;
    case 'probeMtu':
      return { $case: 'probeMtu', value: { probes: [...(await h.probeMtu(body.value.vteps, body.value.largest))] } };
    case 'probeTunnel':
      return { $case: 'probeTunnel', value: await h.probeTunnel(body.value) };
    case 'trace':
      return { $case: 'trace', value: await h.trace(body.value) };
    case undefined:
      throw new WeftError('UNIMPLEMENTED', 'this agent does not know the question', { hint: 'upgrade the agent' });
  }
}
