/**
 * The way of the host's own questions, whether an endpoint answers (services/), and of the answers. Endpoints are known to the host by
 * their transit addresses, and see the question as from their network's gateway: an address that each of them has on its link,
 * whatever else it routes, also where nothing leads out. Answers only, which begin no connection. Pure.
 */
import { ANYCAST_MAC, HOST_ADDRESS, HOST_ADDRESS6, HOST_MAC, transit6 } from '../gateway/addresses.ts';
import type { Action, Flow } from '../openflow/flow.ts';
import { ETH_IPV4, ETH_IPV6, flow, goto, is, masked, set } from './build.ts';
import { answers, type Reached, toGateway } from './gateway.ts';
import type { NetworkModel } from './model.ts';
import { ndExact } from './nd.ts';
import { PRIORITY, REG, SIDE, TABLE } from './pipeline.ts';
import { judgedStage } from './policies.ts';

const TCP = is('ip_proto', 6);
/** Every segment of a connection but the first has it (RFC 9293 §3.10.7). */
const ACK = masked('tcp_flags', 0x10, 0x10);

/** Of one address family. */
interface Family {
  readonly type: bigint;
  readonly source: 'ipv4_src' | 'ipv6_src';
  readonly destination: 'ipv4_dst' | 'ipv6_dst';
  readonly host: number | bigint;
  readonly gateway: number | bigint;
  /** An endpoint's own, and by which the host knows it; null: it has none. */
  readonly of: (p: Reached) => { readonly own: number | bigint; readonly transit: number | bigint } | null;
}

/** @param port OpenFlow port of the link to the host */
export function renderChecks(n: NetworkModel, port: number, relaysNd: boolean): Flow[] {
  const { checks } = n;
  if (checks === undefined || n.encap === 'vlan') return [];
  const reached = n.locals.filter((p): p is Reached => p.transit !== undefined);
  const flows: Flow[] = [];
  if (checks.ip !== null) {
    const of: Family['of'] = ({ ip, transit }) => (ip === null ? null : { own: ip, transit });
    const fields = { type: ETH_IPV4, source: 'ipv4_src', destination: 'ipv4_dst', host: HOST_ADDRESS } as const;
    flows.push(answers(n, checks.ip), ...both(n, port, reached, { ...fields, gateway: checks.ip, of }));
  }
  if (checks.ip6 !== null) {
    const of: Family['of'] = ({ ip6, transit }) => (ip6 === null ? null : { own: ip6, transit: transit6(transit) });
    const fields = { type: ETH_IPV6, source: 'ipv6_src', destination: 'ipv6_dst', host: HOST_ADDRESS6 } as const;
    flows.push(
      ...ndExact(n, PRIORITY.entry, checks.ip6, ANYCAST_MAC, relaysNd),
      ...both(n, port, reached, { ...fields, gateway: checks.ip6, of }),
    );
  }
  return flows;
}

function both(n: NetworkModel, port: number, reached: readonly Reached[], f: Family): Flow[] {
  const inNetwork = is(REG.network, n.index);
  const kind = [is('eth_type', f.type), TCP];
  const back = [...toGateway, ...kind, is(f.destination, f.gateway), ACK];
  const routing: Action = { type: 'resubmit', table: TABLE.routing };
  const flows = [flow('l2', n.index, PRIORITY.guard, [inNetwork, ...back], [routing])];
  for (const p of reached) {
    const at = f.of(p);
    if (at === null) continue;
    flows.push(
      flow(
        'classify',
        n.index,
        PRIORITY.check,
        [is('in_port', port), ...kind, is(f.source, f.host), is(f.destination, at.transit)],
        [
          set(REG.network, n.index),
          set(REG.side, SIDE.host),
          set(f.source, f.gateway),
          set(f.destination, at.own),
          set('eth_src', ANYCAST_MAC),
          set('eth_dst', p.mac),
          goto(judgedStage(n)),
        ],
      ),
      flow(
        'routing',
        n.index,
        PRIORITY.check,
        [inNetwork, is('in_port', p.ofport), ...kind, is(f.source, at.own), is(f.destination, f.gateway)],
        [
          set(f.source, at.transit),
          set(f.destination, f.host),
          set('eth_src', ANYCAST_MAC),
          set('eth_dst', HOST_MAC),
          set(REG.out, port),
          goto('output'),
        ],
      ),
    );
  }
  return flows;
}
