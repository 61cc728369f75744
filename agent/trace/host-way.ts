/** Through the host itself: its packet filter (nft.ts) and its routes, between br-weft and the world. */
import type { TraceHop, TracePacket } from '../../lib/model.ts';
import { RESOLVER_ADDRESS } from '../../lib/resolver-address.ts';
import { GATEWAY } from '../link/names.ts';
import { type NftDecision, type NftPacket, NftTable, translated } from './nft.ts';
import { difference, packetText, serviceText } from './packet.ts';
import type { TraceSources } from './sources.ts';

export type HostEnd =
  | { readonly kind: 'dropped' | 'rejected' | 'answered' | 'outside'; readonly reason: string }
  /** Back to br-weft, by the link to it. */
  | { readonly kind: 'bridge' };

export interface HostWay {
  readonly hops: readonly TraceHop[];
  readonly packet: TracePacket;
  readonly end: HostEnd;
}

/** @param iif link that it comes in by; empty: any of the underlay's */
export async function throughHost(s: TraceSources, packet: TracePacket, iif: string): Promise<HostWay> {
  const table = new NftTable(await s.nft());
  const hops: TraceHop[] = [];
  const hop = (engine: string, stage: string, what: string, detail: string): void => {
    hops.push({ host: s.hostName, engine, stage, table: undefined, what, detail });
  };
  const stop = (kind: 'dropped' | 'rejected', reason: string): HostWay => ({
    hops,
    packet: now,
    end: { kind, reason },
  });
  let now = packet;
  let dnat = false;
  let told = 0;
  const tellUnread = (): void => {
    for (const text of table.unread.slice(told))
      hop('nft', 'unread', `a rule that this trace cannot read: ${text}`, '');
    told = table.unread.length;
  };
  const run = (hook: string, p: Omit<NftPacket, 'packet' | 'dnat'>, leavesFrom = ''): NftDecision | null => {
    for (const d of table.run(hook, { ...p, packet: now, dnat })) {
      const before = now;
      now = translated(now, d.verdict, leavesFrom);
      dnat ||= d.verdict.kind === 'dnat';
      const changed = difference(before, now);
      hop('nft', d.chain, changed === '' ? words(d) : changed, d.rule);
      if (d.verdict.kind !== 'drop' && d.verdict.kind !== 'reject') continue;
      tellUnread();
      return d;
    }
    tellUnread();
    return null;
  };
  const ended = (d: NftDecision): HostWay =>
    stop(
      d.verdict.kind === 'reject' ? 'rejected' : 'dropped',
      `the packet filter of ${s.hostName}, chain ${d.chain}: ${d.rule}`,
    );

  const first = await s.route(now.destinationIp);
  const in1 = run('prerouting', { iif, oif: '', toLocal: first?.local === true });
  if (in1 !== null) return ended(in1);
  const route = dnat ? await s.route(now.destinationIp) : first;
  if (route === null) {
    const reason = `host ${s.hostName} has no route to ${now.destinationIp}`;
    hop('kernel', 'route', `dropped: ${reason}`, '');
    return stop('dropped', reason);
  }
  if (route.local) {
    const reason =
      now.destinationIp === RESOLVER_ADDRESS
        ? `the resolver of ${s.hostName} answers`
        : `${now.destinationIp} is ${s.hostName} itself, and ${serviceText(now)} leads to no container: what listens there gets it`;
    hop('kernel', 'route', reason, '');
    return { hops, packet: now, end: { kind: 'answered', reason } };
  }
  if (now.ttl <= 1) {
    const reason = `its time to live ends at ${s.hostName}, which says so to the sender`;
    hop('kernel', 'route', `dropped: ${reason}`, '');
    return stop('dropped', reason);
  }
  now = { ...now, ttl: now.ttl - 1 };
  hop('kernel', 'route', `${now.destinationIp} is by ${route.device}`, routeText(now, route.device, route.source));
  const forwarded = run('forward', { iif, oif: route.device, toLocal: false });
  if (forwarded !== null) return ended(forwarded);
  run('postrouting', { iif, oif: route.device, toLocal: false }, route.source);
  if (route.device === GATEWAY) return { hops, packet: now, end: { kind: 'bridge' } };
  const reason = `it leaves the mesh by ${route.device} of ${s.hostName}, as ${packetText(now)}`;
  return { hops, packet: now, end: { kind: 'outside', reason } };
}

const words = (d: NftDecision): string =>
  d.verdict.kind === 'accept' ? 'let through' : `${d.verdict.kind}ed`.replace('droped', 'dropped');

const routeText = (p: TracePacket, device: string, source: string): string =>
  `${p.destinationIp} dev ${device}${source === '' ? '' : ` src ${source}`}`;
