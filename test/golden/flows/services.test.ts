import { describe, expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import type { BridgeModel, ServiceModel } from '../../../agent/flows/model.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { SERVED, servicesModel, VIP4, VIP6, virtualPort } from '../../harness/flow-models.ts';

const flowsOf = (m: BridgeModel): string[] => [...render(m, new Map()).values()].map(formatFlow).sort();

describe('virtual addresses', () => {
  it('are answered for by the host, and what is for no port of theirs is dropped; the host asks who answers', async () => {
    const without = new Set(flowsOf(servicesModel([])));
    const more = flowsOf(servicesModel(SERVED)).filter((f) => !without.has(f));
    await expect(`${more.join('\n')}\n`).toMatchFileSnapshot('services.flows');
  });

  it('are rendered again when they change, and not for who is behind them', () => {
    const memo = new Map();
    const first = render(servicesModel(SERVED), memo);
    const backend = { address: VIP4, mac: 2n, port: 80 };
    const [services = [], other] = [SERVED[0]?.services, SERVED[1] ?? {}];
    const busy = services.map((s) => ({ ...s, backends: [backend] }));
    const second = render(servicesModel([{ ...SERVED[0], services: busy }, other]), memo);
    expect([...second].filter(([key, flow]) => first.get(key) !== flow)).toEqual([]);
    const fewer = render(servicesModel([{ ...SERVED[0], services: services.slice(0, 2) }, other]), memo);
    expect(fewer.size).toBeLessThan(first.size);
  });

  it('of a thousand services with ten endpoints each cost little, and next to nothing while they stay', () => {
    const services = Array.from(
      { length: 1_000 },
      (_, i): ServiceModel => ({
        ...virtualPort({ family: 4, address: VIP4.address + 256 * (i >> 8) + (i & 255) }, 80),
        id: i + 1,
        backends: Array.from({ length: 10 }, (_, j) => ({ address: VIP4, mac: BigInt(j), port: 8080 })),
      }),
    );
    const memo = new Map();
    const all = servicesModel([{ services }, {}]);
    const took = (work: () => unknown): number => {
      const from = performance.now();
      work();
      return performance.now() - from;
    };
    render(all, memo);
    const again = took(() => render(all, memo));
    const more = servicesModel([{ services: [...services, { ...virtualPort(VIP6, 80), id: 2_000 }] }, {}]);
    const one = took(() => render(more, memo));
    expect(render(all, memo).size).toBeGreaterThan(3_000);
    expect(again).toBeLessThan(1_000);
    expect(one).toBeLessThan(1_000);
  });
});
