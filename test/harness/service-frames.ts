/** Frames of clients of services and of their backends, and a model of one client, for BPF_PROG_TEST_RUN. */
import type { BpfAddress, BpfBackend, BpfModel, BpfPort } from '../../agent/bpf/model.ts';
import { parseIp } from '../../lib/ip.ts';
import { parseIp6 } from '../../lib/ip6.ts';
import { formatMac, parseMac } from '../../lib/mac.ts';
import { v4, vtep } from './bpf-pair.ts';

/** The loopback link of the namespace: the client's own, and the slow path's of another endpoint. */
export const LINK = 1;
export const NET = 3;
export const GATEWAY = '02:57:65:66:74:01';
export const [SYN, ACK, SYN_ACK] = [2, 16, 18];

export interface Family {
  readonly me: string;
  readonly virtual: string;
  readonly second: string;
  readonly stranger: string;
  readonly backend: (n: number) => string;
}
export const FAMILIES: Readonly<Record<'IPv4' | 'IPv6', Family>> = {
  IPv4: {
    me: '10.128.0.7',
    virtual: '10.128.9.1',
    second: '10.128.9.2',
    stranger: '10.128.0.8',
    backend: (n) => `10.128.1.${n}`,
  },
  IPv6: {
    me: 'fd00:128:0:0:0:0:0:7',
    virtual: 'fd00:128:0:0:0:0:9:1',
    second: 'fd00:128:0:0:0:0:9:2',
    stranger: 'fd00:128:0:0:0:0:0:8',
    backend: (n) => `fd00:128:0:0:0:0:1:${n.toString(16)}`,
  },
};
export const MY_MAC = '02:58:0a:80:00:07';
export const macOf = (n: number): string => formatMac(0x02aa_0000_0000n + BigInt(n));

export const addressOf = (ip: string): BpfAddress =>
  ip.includes(':') ? { family: 6, address: parseIp6(ip) } : { family: 4, address: parseIp(ip) };
export const backend = (f: Family, n: number, port = 8080): BpfBackend => ({
  address: addressOf(f.backend(n)),
  mac: parseMac(macOf(n)),
  port,
});
export const itself = (f: Family): BpfBackend => ({ address: addressOf(f.me), mac: parseMac(MY_MAC), port: 8080 });

const remote = { kind: 'remote', ...vtep(v4('192.0.2.2')) } as const;
const me: BpfPort = {
  ifindex: LINK,
  slow: 100,
  index: NET,
  mac: parseMac(MY_MAC),
  ip4: parseIp(FAMILIES.IPv4.me),
  ip6: parseIp6(FAMILIES.IPv6.me),
  linkLocal: null,
  express: true,
};
export const BASE: BpfModel = {
  config: {
    tunnelPort: 101,
    ttl: 64,
    dscp: 0,
    checksum: false,
    dontFragment: true,
    source4: null,
    source6: null,
    entry: 0n,
  },
  // The second one's slow path is the link where frames of OVS are run.
  ports: [me, { ...me, ifindex: 100, slow: LINK, mac: parseMac('02:aa:00:00:10:00') }],
  nets: [{ index: NET, device: 102, vni: 4097, mtu: 1450 }],
  fdb: [],
  blocks: [{ index: NET, mac: parseMac('02:aa:00:00:00:00'), bits: 32, place: remote, express: true }],
  sources: [],
  lists: [],
  groups: [],
  services: [],
};
