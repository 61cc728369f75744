import { describe, expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import type { BridgeModel, NetworkModel, ServiceModel } from '../../../agent/flows/model.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { parseCidr } from '../../../lib/addr.ts';
import { parseIp } from '../../../lib/ip.ts';
import { parseIp6 } from '../../../lib/ip6.ts';
import { localPort, network } from '../../harness/flow-models.ts';

const at = (address: ServiceModel['address'], port: number): ServiceModel => ({
  id: port,
  address,
  protocol: 6,
  port,
  affinity: 0,
  backends: [],
});
const VIP4 = { family: 4, address: parseIp('10.1.0.200') } as const;
const VIP6 = { family: 6, address: parseIp6('fd00:1::200') } as const;
const GATEWAYS = { ip: parseIp('10.1.0.1'), ip6: parseIp6('fd00:1::1') };

/** A network that leads out, with a service of two ports in both families whose endpoints are checked; one that does not, with one. */
const SERVED: Pick<NetworkModel, 'services' | 'checks'>[] = [
  { services: [at(VIP4, 80), at(VIP4, 443), at(VIP6, 80), at(VIP6, 443)], checks: GATEWAYS },
  { services: [at(VIP4, 80)] },
];
const model = (served: readonly Pick<NetworkModel, 'services' | 'checks'>[]): BridgeModel => ({
  maxMeters: 65_536,
  tunnels: { kind: 'kernel', port: 1 },
  gateway: 9,
  networks: [
    network({
      index: 1,
      remotes: [],
      egress: { ...GATEWAYS, subnets: [parseCidr('10.1.0.0/24'), parseCidr('fd00:1::/64')] },
      locals: [{ ...localPort(2, '10.1.0.2', 'fd00:1::2'), transit: parseIp('169.254.70.1') }],
      ...served[0],
    }),
    network({ index: 2, ipv6: false, remotes: [], locals: [localPort(3, '10.1.0.2', '')], ...served[1] }),
  ],
});
const flowsOf = (m: BridgeModel): string[] => [...render(m, new Map()).values()].map(formatFlow).sort();

describe('virtual addresses', () => {
  it('are answered for by the host, and what is for no port of theirs is dropped; the host asks who answers', async () => {
    const without = new Set(flowsOf(model([])));
    const more = flowsOf(model(SERVED)).filter((f) => !without.has(f));
    await expect(`${more.join('\n')}\n`).toMatchFileSnapshot('services.flows');
  });

  it('are rendered again when they change, and not for who is behind them', () => {
    const memo = new Map();
    const first = render(model(SERVED), memo);
    const backend = { address: VIP4, mac: 2n, port: 80 };
    const [services = [], other] = [SERVED[0]?.services, SERVED[1] ?? {}];
    const busy = services.map((s) => ({ ...s, backends: [backend] }));
    const second = render(model([{ ...SERVED[0], services: busy }, other]), memo);
    expect([...second].filter(([key, flow]) => first.get(key) !== flow)).toEqual([]);
    const fewer = render(model([{ ...SERVED[0], services: services.slice(0, 2) }, other]), memo);
    expect(fewer.size).toBeLessThan(first.size);
  });

  it('of a thousand services with ten endpoints each cost little, and next to nothing while they stay', () => {
    const services = Array.from(
      { length: 1_000 },
      (_, i): ServiceModel => ({
        ...at({ family: 4, address: VIP4.address + 256 * (i >> 8) + (i & 255) }, 80),
        id: i + 1,
        backends: Array.from({ length: 10 }, (_, j) => ({ address: VIP4, mac: BigInt(j), port: 8080 })),
      }),
    );
    const memo = new Map();
    const all = model([{ services }, {}]);
    const took = (work: () => unknown): number => {
      const from = performance.now();
      work();
      return performance.now() - from;
    };
    render(all, memo);
    const again = took(() => render(all, memo));
    const more = model([{ services: [...services, { ...at(VIP6, 80), id: 2_000 }] }, {}]);
    const one = took(() => render(more, memo));
    expect(render(all, memo).size).toBeGreaterThan(3_000);
    expect(again).toBeLessThan(1_000);
    expect(one).toBeLessThan(1_000);
  });
});
