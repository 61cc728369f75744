/** Packets for the agent, and how many of any kind: meters and the punt stage. Pure. */
import type { Action, Flow, MatchField } from '../openflow/flow.ts';
import type { Meter } from '../openflow/meter.ts';
import { flow, is } from './build.ts';
import type { BridgeModel } from './model.ts';
import { PRIORITY } from './pipeline.ts';

/** First byte of a punted packet's userdata: who of the agent gets it. */
export const PUNT = Object.freeze({ membership: 1, reject: 2, error: 3, route: 4, staged: 5 });

/** Second byte of a packet that could not be routed: why. The third and fourth are the MTU that it is too big for. */
export const ROUTE = Object.freeze({ ended: 1, unreachable: 2, tooBig: 3 });

/**
 * Reports of one host. A general query makes each endpoint answer once in ten seconds for each version: a thousand endpoints are
 * within it. What is dropped here is said again after the next query.
 */
const PUNT_RATE = { rate: 100, burst: 200 } as const;

/**
 * Broadcasts, multicasts, and ARP and ND requests that one endpoint may send in a second. Each is copied to every host and port of
 * the network, so a storm of one container would be one of all; discovery, ARP and VRRP stay far below.
 */
const FLOOD_RATE = { rate: 1000, burst: 1000 } as const;

/** Answers to what a policy rejects, of one host: a scan of thousands of ports must not keep the agent busy. */
const REJECT_RATE = { rate: 100, burst: 100 } as const;

/** What staged policies would have decided otherwise, of one host: counters count all of it, these are for who reads the log. */
const STAGED_RATE = { rate: 10, burst: 100 } as const;

/** ICMP errors between endpoints and their host, which the agent translates. */
const ERROR_RATE = { rate: 200, burst: 200 } as const;

/** Packets that cannot be routed, of one host: the agent says why. */
const ROUTE_RATE = { rate: 100, burst: 100 } as const;

type Rate =
  | typeof ROUTE_RATE
  | typeof PUNT_RATE
  | typeof FLOOD_RATE
  | typeof REJECT_RATE
  | typeof ERROR_RATE
  | typeof STAGED_RATE;

const PUNT_METER = 1;
const REJECT_METER = 2;
const ERROR_METER = 3;
const ROUTE_METER = 4;
const STAGED_METER = 5;
/** Meters of endpoints: this plus the OpenFlow port. */
const FLOOD_METERS = 16;

/** Null where the datapath has no such meter: no cap then. @param most of the switch, 0 = it has no meters at all. */
export const floodMeter = (ofport: number, most: number): number | null =>
  FLOOD_METERS + ofport <= most ? FLOOD_METERS + ofport : null;

/** All meters of the bridge. */
export function renderMeters(model: BridgeModel): Map<number, Meter> {
  const meters = new Map<number, Meter>();
  const add = (id: number, rate: Rate): void => {
    if (id <= model.maxMeters) meters.set(id, { id, unit: 'packets', ...rate });
  };
  add(PUNT_METER, PUNT_RATE);
  if (model.gateway != null) add(ERROR_METER, ERROR_RATE);
  if (model.networks.some((n) => n.policies?.rules.some((r) => r.action === 'reject'))) add(REJECT_METER, REJECT_RATE);
  if (model.networks.some((n) => n.routing !== undefined || n.reached === true)) add(ROUTE_METER, ROUTE_RATE);
  if (model.networks.some((n) => n.policies?.staged === true)) add(STAGED_METER, STAGED_RATE);
  for (const n of model.networks) for (const port of n.locals) add(FLOOD_METERS + port.ofport, FLOOD_RATE);
  return meters;
}

const ETH_IPV6 = 0x86ddn;
const IPV6_REPORTS = [131, 132, 143];

export const IGMP: readonly MatchField[] = [is('eth_type', 0x0800), is('ip_proto', 2)];
export const MLD_QUERY = mld(130);
export const MLD_REPORTS: readonly (readonly MatchField[])[] = IPV6_REPORTS.map(mld);

function mld(type: number): readonly MatchField[] {
  return [is('eth_type', ETH_IPV6), is('ip_proto', 58), is('icmpv6_type', type)];
}

/** The frame goes to the agent, which translates what it quotes. @param most greatest number of a meter */
export const erred = (most: number): Action => ({
  type: 'controller',
  maxLen: 0xffff,
  userdata: PUNT.error.toString(16).padStart(2, '0'),
  ...(most >= ERROR_METER ? { meter: ERROR_METER } : {}),
});

/** The frame goes to the agent, which answers it. @param most greatest number of a meter */
export const rejected = (most: number): Action => ({
  type: 'controller',
  maxLen: 0xffff,
  userdata: PUNT.reject.toString(16).padStart(2, '0'),
  ...(most >= REJECT_METER ? { meter: REJECT_METER } : {}),
});

/**
 * The packet goes to the agent, which tells its sender why it is not routed.
 * @param most greatest number of a meter
 * @param mtu that it is too big for
 */
export const unrouted = (most: number, why: (typeof ROUTE)[keyof typeof ROUTE], mtu = 0): Action => ({
  type: 'controller',
  maxLen: 0xffff,
  userdata: [PUNT.route, why, mtu >> 8, mtu & 255].map((byte) => byte.toString(16).padStart(2, '0')).join(''),
  ...(most >= ROUTE_METER ? { meter: ROUTE_METER } : {}),
});

/** The frame goes to the agent too, which tells of it; nothing where it cannot be metered. @param most greatest number of a meter */
export const told = (most: number): Action[] =>
  most < STAGED_METER
    ? []
    : [
        {
          type: 'controller',
          maxLen: 0xffff,
          userdata: PUNT.staged.toString(16).padStart(2, '0'),
          meter: STAGED_METER,
        },
      ];

/** The punt stage: what comes here goes to the agent, or nowhere. */
export function renderPunt(maxMeters: number): Flow[] {
  const meter = maxMeters >= PUNT_METER ? { meter: PUNT_METER } : {};
  const userdata = PUNT.membership.toString(16).padStart(2, '0');
  return [
    flow('snoop', 0, PRIORITY.default, [], []),
    flow('multicast', 0, PRIORITY.default, [], []),
    flow('punt', 0, PRIORITY.default, [], []),
    ...[IGMP, ...MLD_REPORTS].map((match) =>
      flow('punt', 0, PRIORITY.local, match, [{ type: 'controller', maxLen: 0xffff, userdata, ...meter }]),
    ),
  ];
}
