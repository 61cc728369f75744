import { HostStatus } from '../../../gen/weft/v1/control.ts';
import { Endpoint, Network } from '../../../gen/weft/v1/types.ts';

/** Records as a coordinator answers them. */
export const BLUE = Network.fromPartial({
  id: '00112233445566aa',
  project: 'default',
  name: 'blue',
  space: 'default',
  vni: 4711,
  subnets: ['10.128.0.0/20'],
  gateways: ['10.128.0.1'],
  encap: 'vxlan',
  mtu: 1450,
  labels: { team: 'a' },
  state: 'bound',
  revision: 9_007_199_254_740_993n,
});

export const hostStatus = (name: string, state: string): HostStatus =>
  HostStatus.fromPartial({
    host: {
      id: `00000000000000${name.padStart(2, '0')}`.slice(-16).replaceAll(/[^0-9a-f]/g, '0'),
      name,
      vteps: [{ address: '192.0.2.1', encaps: ['vxlan'], encrypted: false }],
      datapath: 'netdev',
      versions: { weft: '0.1.0' },
    },
    state,
    appliedRevision: state === 'down' ? undefined : { epoch: 1n, number: 42n },
    coordinator: state === 'down' ? '' : 'c1',
    reason: state === 'lagging' ? 'port veth1: no such device' : '',
  });

export const endpoint = (id: string, hostId: string, container: string | null, ip: string): Endpoint =>
  Endpoint.fromPartial({
    id: id.repeat(64).slice(0, 64),
    networkId: BLUE.id,
    hostId,
    ips: [ip],
    mac: '02:58:0a:80:00:07',
    ...(container === null ? {} : { container: { id: `c${id}`.repeat(32), name: container } }),
    state: container === null ? 'pending' : 'known',
    labels: { app: 'x' },
    ofport: 3,
  });
