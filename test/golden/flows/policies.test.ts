import { expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import type { BridgeModel } from '../../../agent/flows/model.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { Policy } from '../../../gen/weft/v1/types.ts';
import { bridgeOf, type Mesh } from '../../harness/policy-mesh.ts';

const flowsOf = (m: BridgeModel): string[] => [...render(m, new Map()).values()].map(formatFlow).sort();

/** A database behind two clients, one of them on another host; what nobody allows is dropped. */
const MESH: Mesh = {
  networks: new Map([
    ['n1', { shut: true, subnets: ['10.1.0.0/24', 'fd00:1::/64'] }],
    ['n2', { shut: false, subnets: ['10.2.0.0/24', 'fd00:2::/64'] }],
  ]),
  routers: [],
  endpoints: [
    {
      id: '0'.repeat(64),
      network: 'n1',
      host: 'h1',
      ips: ['10.1.0.2'],
      labels: { app: 'db' },
      mac: '02:58:0a:01:00:02',
      ofport: 2,
    },
    {
      id: '1'.repeat(64),
      network: 'n1',
      host: 'h1',
      ips: ['10.1.0.3'],
      labels: { app: 'web' },
      mac: '02:58:0a:01:00:03',
      ofport: 3,
    },
    {
      id: '2'.repeat(64),
      network: 'n1',
      host: 'h2',
      ips: ['10.1.0.18'],
      labels: { app: 'web' },
      mac: '02:58:0a:01:00:12',
      ofport: 4,
    },
    {
      id: '3'.repeat(64),
      network: 'n1',
      host: 'h1',
      ips: ['10.1.0.4'],
      labels: null,
      mac: '02:58:0a:01:00:04',
      ofport: 5,
    },
  ],
  services: new Map(),
  policies: [
    Policy.fromPartial({
      networkId: 'n1',
      name: 'db',
      tier: 'application',
      order: 100,
      selector: { app: 'db' },
      ingress: [
        {
          action: 'allow',
          peers: [{ who: { $case: 'endpoints', value: { networkId: '', labels: { app: 'web' } } } }],
          ports: [{ protocol: 'tcp', first: 9042, last: 9043 }],
        },
        { action: 'reject', peers: [], ports: [] },
      ],
    }),
    Policy.fromPartial({
      networkId: 'n1',
      name: 'out',
      tier: 'baseline',
      order: 0,
      egress: [
        {
          action: 'allow',
          peers: [{ who: { $case: 'addresses', value: { cidr: '10.1.0.0/24', except: ['10.1.0.128/25'] } } }],
          ports: [],
        },
      ],
    }),
  ],
};

it('what policies add to a bridge', async () => {
  const without = new Set(
    flowsOf(
      bridgeOf(
        { ...MESH, networks: new Map([...MESH.networks].map(([id, n]) => [id, { ...n, shut: false }])), policies: [] },
        'h1',
      ),
    ),
  );
  const more = flowsOf({ ...bridgeOf(MESH, 'h1'), maxMeters: 1000 }).filter(
    (f) => !without.has(f) && !f.includes('meter_id=1)') && !/meter:|table=52/.test(f),
  );
  await expect(`${more.join('\n')}\n`).toMatchFileSnapshot('policies.flows');
});

it('one endpoint more, of whatever labels, is a handful of flows', () => {
  const memo = new Map();
  const before = render(bridgeOf(MESH, 'h1'), memo);
  const one = {
    id: '4'.repeat(64),
    network: 'n1',
    host: 'h2',
    ips: ['10.1.0.19'],
    labels: { app: 'web' },
    mac: '02:58:0a:01:00:13',
    ofport: 6,
  };
  const after = render(bridgeOf({ ...MESH, endpoints: [...MESH.endpoints, one] }, 'h1'), memo);
  const changed = [...after].filter(
    ([key, f]) => before.get(key) === undefined || formatFlow(before.get(key)!) !== formatFlow(f),
  );
  expect(changed.map(([, f]) => formatFlow(f))).toEqual([
    expect.stringContaining('nw_src=10.1.0.19 actions=conjunction('),
  ]);
});
