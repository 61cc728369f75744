/** What bench:services says, as text. Pure. */
import { NOTE } from '../datapath/shape.ts';
import { hundredth, type Summary, table } from '../figures.ts';
import type { Held } from './hold.ts';
import type { Killed } from './killed.ts';
import type { Ways } from './path.ts';
import type { Spread } from './spread.ts';

/** Reported beside what is; nothing fails for them. */
export const AIMS = { spreadPercent: 5, killedMs: 2_000 };

export interface Outcome {
  readonly spread: { readonly program: Spread; readonly real: Spread };
  readonly ways: Ways;
  readonly killed: Killed;
  /** Of the service whose backend was killed. */
  readonly check: { readonly intervalMs: number; readonly fall: number };
  readonly held: Held;
  /** Between two checks of each backend of each of the many services, ms; 0 = none. */
  readonly heldCheckMs: number;
}

export function reportText({ spread, ways, killed, check, held, heldCheckMs }: Outcome): string {
  return [many(held, heldCheckMs), spreads(spread), path(ways), kills(killed, check), NOTE].join('\n\n');
}

function many(held: Held, checkMs: number): string {
  const checks = checkMs === 0 ? 'without health checks' : `each backend of each checked every ${checkMs} ms`;
  const { create, change } = held;
  const rows = held.hosts.map(({ host, before, after, agentCpuPerService, agentIdleCpu }) => [
    host,
    `${before.flows} → ${after.flows}`,
    `${before.mapEntries} → ${after.mapEntries}`,
    `${before.vswitchdMiB} → ${after.vswitchdMiB}`,
    `${before.agentMiB} → ${after.agentMiB}`,
    agentCpuPerService,
    `${hundredth(100 * agentIdleCpu)} %`,
  ]);
  const head = [
    'host',
    'flows',
    'map entries',
    'ovs-vswitchd MiB',
    'agent MiB',
    'agent CPU s/service',
    'idle agent CPU',
  ];
  return [
    `${held.services} services in front of the same containers, ${checks}`,
    table(head, rows),
    `a creation: ${create.median} ms, p90 ${create.p90} ms, at most ${create.max} ms; everywhere ${held.lastAppliedMs} ms after the last one`,
    `a backend of all of them removed on ${change.host}: known ${change.knownMs} ms after docker rm began, applied everywhere after ${change.appliedMs} ms; ${change.entriesLess} map entries less`,
  ].join('\n');
}

function spreads({ program, real }: Outcome['spread']): string {
  const row = (what: string, s: Spread): (string | number)[] => [
    what,
    s.connections,
    s.backends,
    `${s.farthestPercent} %`,
    `${s.chancePercent} %`,
    s.lost,
  ];
  const head = ['spread', 'connections', 'backends', 'farthest from even', 'standard deviation of chance', 'lost'];
  const aimed = `BPF_PROG_TEST_RUN (aim: < ${AIMS.spreadPercent} %)`;
  return table(head, [row(aimed, program), row('real', real)]);
}

function path({ direct, virtual, ratio }: Ways): string {
  return table(
    ['way', 'TCP, 1 stream, Gb/s', 'round trip p50, µs'],
    [
      ['direct', direct.gbps, direct.roundTripUs],
      ['by virtual address', virtual.gbps, virtual.roundTripUs],
      ['ratio', ratio.gbps, ratio.roundTripUs],
    ],
  );
}

function kills(killed: Killed, { intervalMs, fall }: Outcome['check']): string {
  const row = (what: string, s: Summary): (string | number)[] => [what, s.n, s.median, s.max];
  return table(
    ['killed', 'rounds', 'last new connection after, ms, median', `max (aim: < ${AIMS.killedMs})`],
    [
      row('its container', killed.container),
      row(`its process (a check every ${intervalMs} ms, ${fall} failures)`, killed.process),
    ],
  );
}
