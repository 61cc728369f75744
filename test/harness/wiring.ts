/** How a host may carry frames. */
import type { Wiring } from '../../agent/wiring.ts';

/** Without the openvswitch module. */
export const EXPRESS_WIRING: Wiring = {
  datapathType: 'netdev',
  backend: 'kernel-tunnel',
  express: true,
  services: true,
  vtep: '192.0.2.1',
  encaps: ['vxlan'],
  udpPorts: { vxlan: 4789, geneve: 6081 },
  underlayMtu: 1500,
  complete: { at: 'none', tcp: false, rewritten: true },
  outer: { ttl: 64, dscp: 'inherit', checksum: false },
};

/** With it. */
export const SYSTEM_WIRING: Wiring = {
  ...EXPRESS_WIRING,
  datapathType: 'system',
  backend: 'ovs-tunnel',
  express: false,
  complete: { at: 'none', tcp: true, rewritten: true },
};
