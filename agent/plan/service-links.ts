/**
 * What the kernel side has to know where it only translates for services, and answers for gateways: containers' links are ports of Open
 * vSwitch's. Pure.
 */
import { isIp4 } from '../../lib/addr.ts';
import { linkLocalOf } from '../../lib/ip6.ts';
import type { BpfAddress, BpfAttachment, BpfModel, BpfPort, BpfService } from '../bpf/model.ts';
import type { NetworkModel } from '../flows/model.ts';
import { hostLink } from '../link/names.ts';
import type { KernelSide } from './kernel.ts';

const NOTHING: BpfModel = {
  config: {
    tunnelPort: 0,
    ttl: null,
    dscp: null,
    checksum: false,
    dontFragment: false,
    source4: null,
    source6: null,
    entry: 0n,
  },
  ports: [],
  nets: [],
  fdb: [],
  blocks: [],
  sources: [],
  lists: [],
  groups: [],
  services: [],
};

/** Links on which there may be programs. */
export const serviceLinks = (networks: readonly NetworkModel[]): string[] =>
  networks.flatMap((n) => n.locals.filter((p) => p.direct !== true).map((p) => hostLink(p.id)));

/**
 * Links of networks without services, and without routers that lead on in IPv6, have no programs, and cost nothing.
 * @param ifindex of a link by name; null while it is not there: then nothing is said of it.
 */
export function serviceSide(networks: readonly NetworkModel[], ifindex: (link: string) => number | null): KernelSide {
  const attachments: BpfAttachment[] = [];
  const ports: BpfPort[] = [];
  const services: BpfService[] = [];
  const answered: { index: number; address: BpfAddress }[] = [];
  for (const { index, encap, locals, services: all = [], routing } of networks) {
    // Flows cannot answer for them on the kernel's datapath.
    const gateways = (routing?.own ?? []).filter((ip) => !isIp4(ip));
    if ((all.length === 0 && gateways.length === 0) || encap === 'vlan') continue;
    answered.push(...gateways.map((address) => ({ index, address: { family: 6, address } as const })));
    services.push(...all.map((s) => ({ ...s, index })));
    for (const { id, direct, mac, ip: ip4, ip6 } of locals) {
      const link = hostLink(id);
      const number = direct === true ? null : ifindex(link);
      if (number === null) continue;
      attachments.push(
        { ifindex: number, link, program: 'service_out' },
        { ifindex: number, link, program: 'service_in' },
      );
      ports.push({ ifindex: number, slow: 0, index, mac, ip4, ip6, linkLocal: linkLocalOf(mac), express: false });
    }
  }
  return { model: { ...NOTHING, ports, services, answered }, attachments };
}
