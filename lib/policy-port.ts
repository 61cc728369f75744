/** Ports of policies as text: 9042/tcp, 8000-8100/tcp, tcp, icmp, icmp/8, icmp/3/4. Pure. */
import type { PolicyPort } from './model.ts';

export const PORT_EXAMPLES = 'like 9042/tcp, 8000-8100/tcp, 53/udp, tcp, icmp or icmp/8';

const number = (text: string | undefined, most: number): number | undefined =>
  text === undefined || Number(text) > most ? undefined : Number(text);

/** @returns null unless it is one: ports 1 to 65535, the first not above the last; types and codes of ICMP 0 to 255 */
export function parsePort(text: string): PolicyPort | null {
  const none = { first: 0, last: 0, icmpType: undefined, icmpCode: undefined };
  if (/^(tcp|udp|sctp|icmp)$/.test(text)) return { ...none, protocol: text };
  const icmp = /^icmp\/(\d{1,3})(?:\/(\d{1,3}))?$/.exec(text);
  if (icmp !== null) {
    const [type, code] = [number(icmp[1], 255), number(icmp[2], 255)];
    if (type === undefined || (icmp[2] !== undefined && code === undefined)) return null;
    return { ...none, protocol: 'icmp', icmpType: type, icmpCode: code };
  }
  const [, from, to, protocol] = /^(\d{1,5})(?:-(\d{1,5}))?\/(tcp|udp|sctp)$/.exec(text) ?? [];
  const first = number(from, 65_535) ?? 0;
  const last = to === undefined ? first : (number(to, 65_535) ?? 0);
  return protocol === undefined || first < 1 || last < first ? null : { ...none, protocol, first, last };
}

export function portText(p: PolicyPort): string {
  if (p.protocol === 'icmp') return ['icmp', p.icmpType, p.icmpCode].filter((part) => part !== undefined).join('/');
  if (p.first === 0) return p.protocol;
  return `${p.first === p.last ? p.first : `${p.first}-${p.last}`}/${p.protocol}`;
}
