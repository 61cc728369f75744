import { expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import type { BridgeModel } from '../../../agent/flows/model.ts';
import { renderMeters } from '../../../agent/flows/punt.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { Policy } from '../../../gen/weft/v1/types.ts';
import { bridgeOf } from '../../harness/mesh-models.ts';
import type { Mesh } from '../../harness/policy-mesh.ts';

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

/** Soon the database is to be called by nobody but the one on another host, and nothing is to be sent to the world. */
const STAGED: Mesh = {
  ...MESH,
  policies: [
    ...MESH.policies,
    Policy.fromPartial({
      networkId: 'n1',
      name: 'soon',
      tier: 'platform',
      order: 100,
      staged: true,
      selector: { app: 'db' },
      ingress: [
        {
          action: 'drop',
          peers: [
            { who: { $case: 'addresses', value: { cidr: '10.1.0.0/28', except: [] } } },
            { who: { $case: 'addresses', value: { cidr: '10.9.0.0/16', except: [] } } },
          ],
          ports: [
            { protocol: 'tcp', first: 9042, last: 9042 },
            { protocol: 'udp', first: 53, last: 53 },
          ],
        },
      ],
      egress: [{ action: 'reject', peers: [], ports: [] }],
    }),
  ],
};

it('what a staged policy adds: flows as any, two counters a rule, and a look before each verdict', async () => {
  const model = (m: Mesh): BridgeModel => ({ ...bridgeOf(m, 'h1'), maxMeters: 1000 });
  const [before, after] = [MESH, STAGED].map((m) => new Set(flowsOf(model(m)))) as [Set<string>, Set<string>];
  const added = [...after].filter((f) => !before.has(f));
  const removed = [...before].filter((f) => !after.has(f));
  const text = [...added.map((f) => `+${f}`), ...removed.map((f) => `-${f}`)].join('\n');
  await expect(`${text}\n`).toMatchFileSnapshot('staged.flows');
  // One endpoint, two ranges, two ports in two families, and the whole: not their product. Egress is one flow.
  const own = added.filter((f) => /reg12=0[, ]/.test(f));
  expect(own).toHaveLength(1 + 2 + 4 + 1 + 1);
  expect(added.filter((f) => f.includes('table=38'))).toHaveLength(4);
  const meters = (m: Mesh): number[] => [...renderMeters(model(m)).keys()];
  expect(meters(STAGED).filter((id) => !meters(MESH).includes(id))).toEqual([5]);
});

it('nothing is lost where all policies are staged', () => {
  const only = STAGED.policies.filter((p) => p.staged);
  const networks = new Map([...STAGED.networks].map(([id, n]) => [id, { ...n, shut: false }]));
  const flows = flowsOf(bridgeOf({ ...STAGED, networks, policies: only }, 'h1'));
  const judges = flows.filter((f) => /table=(16|32),/.test(f) && !/priority=0 /.test(f));
  expect(judges.length).toBeGreaterThan(20);
  expect(judges.filter((f) => /actions=drop|resubmit\(,37\)|controller/.test(f))).toEqual([]);
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
