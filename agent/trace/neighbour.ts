/** Who answers the question that comes before a packet: ARP and neighbour discovery, as the bridge answers it now. */
import { familyOfText } from '../../lib/addr.ts';
import type { TraceHop } from '../../lib/model.ts';
import type { LocalEndpoint } from '../contract.ts';
import { finalFields, parseTrace } from './ofproto.ts';
import { askText } from './packet.ts';
import type { TraceSources } from './sources.ts';
import { flowLine, type Words } from './stages.ts';
import { endpointText } from './words.ts';

/**
 * @param port OpenFlow port of the endpoint that asks
 * @returns null: nobody answers
 */
export async function neighbour(
  s: TraceSources,
  w: Words,
  e: LocalEndpoint,
  port: number,
  target: string,
): Promise<{ readonly hops: readonly TraceHop[]; readonly mac: string | null }> {
  const six = familyOfText(target) === 6;
  const own = { sourceMac: e.mac, sourceIp: six ? e.ip6 : e.ip };
  const { sections } = parseTrace(await s.trace(askText(own, target, { inPort: port }), []), s.bridge);
  const outputs = sections.flatMap((one) => one.outputs);
  const last = sections.at(-1)?.flows.findLast((f) => !f.called);
  const fields = finalFields(sections);
  const hop = (what: string, table = last?.table): TraceHop => ({
    host: s.hostName,
    engine: 'openvswitch',
    stage: six ? 'ND' : 'ARP',
    table,
    what,
    detail: last === undefined ? '' : flowLine(last),
  });
  const name = endpointText(e);
  if (outputs.includes('in_port')) {
    const mac = fields.get(six ? 'nd_tll' : 'arp_sha') ?? fields.get('dl_src') ?? '';
    return { hops: [hop(`${name} asks who has ${target}: ${mac}, says ${s.hostName}`)], mac };
  }
  if (outputs.length === 0) return { hops: [hop(`${name} asks who has ${target}: nobody answers`)], mac: null };
  // Its holder is asked: what its answer would be is known, or nobody has it.
  const to = outputs.map((o) => (o === 'in_port' ? '' : w.port(o))).join(', ');
  const mac = known(s, e.networkId, target);
  const what = `${name} asks who has ${target}: the question goes to ${to}`;
  return { hops: [hop(mac === null ? `${what}; nobody is known to have it` : `${what}; ${mac} has it`)], mac };
}

function known(s: TraceSources, networkId: string, ip: string): string | null {
  const here = s.endpoints.values().find((e) => e.networkId === networkId && (e.ip === ip || e.ip6 === ip));
  if (here !== undefined) return here.mac;
  const there = s.view.interests.get(networkId)?.endpoints.values() ?? [];
  return [...there].find(({ ips }) => ips.includes(ip))?.mac ?? null;
}
