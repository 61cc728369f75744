/** Flows after any sequence of edits are those of a fresh rendering, by the agent's own planner; and one change of a label is a small bundle. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { renderMeters } from '../../agent/flows/punt.ts';
import { render as renderAfresh } from '../../agent/flows/render.ts';
import { FlowSide } from '../../agent/flowside.ts';
import type { FlowDriver, FlowStats } from '../../agent/openflow/driver.ts';
import { type Flow, flowKey } from '../../agent/openflow/flow.ts';
import { formatFlow } from '../../agent/openflow/format.ts';
import type { Meter } from '../../agent/openflow/meter.ts';
import { keyed } from '../../agent/plan/flows.ts';
import { Policy } from '../../gen/weft/v1/types.ts';
import { bridgeOf } from '../harness/mesh-models.ts';
import { drawn, edit, type Mesh, type MeshEndpoint, meshOf } from '../harness/policy-mesh.ts';

const METERS = 1000;

/** A switch that does as it is told, and remembers how much it was told. */
class FakeSwitch {
  readonly flows = new Map<string, Flow>();
  readonly meters = new Map<number, Meter>();
  told = 0;
  readonly #side: FlowSide;

  constructor() {
    const driver: Pick<FlowDriver, 'observe' | 'observeMeters' | 'maxMeters' | 'apply' | 'applyMeters'> = {
      observe: async () => [...this.flows.values()].map((f): FlowStats => ({ ...f, packets: 0n, bytes: 0n })),
      observeMeters: async () => new Map(this.meters),
      maxMeters: async () => METERS,
      apply: async ({ add, remove }) => {
        for (const flow of remove) this.flows.delete(flowKey(flow));
        for (const flow of add) this.flows.set(flowKey(flow), flow);
        this.told += add.length + remove.length;
      },
      applyMeters: async (steps) => {
        for (const { kind, meter } of steps)
          if (kind === 'removeMeter') this.meters.delete(meter.id);
          else this.meters.set(meter.id, meter);
      },
    };
    this.#side = new FlowSide(driver as FlowDriver);
  }

  /** A pass of the agent's. @returns flows that were changed */
  async become(m: Mesh, fresh = false): Promise<number> {
    const before = this.told;
    const { maxMeters: _, ...model } = bridgeOf(m, 'h1');
    if (fresh || !this.#side.known) await this.#side.observe(true);
    const { flows, meters } = this.#side.plan(model);
    await this.#side.apply(flows, meters);
    return this.told - before;
  }
}

const texts = (flows: Iterable<Flow>): string[] => [...flows].map(formatFlow).sort();

test('any sequence of edits ends where a fresh rendering begins', async () => {
  let edits = 0;
  await fc.assert(
    fc.asyncProperty(
      drawn,
      fc.array(fc.tuple(edit, fc.integer({ min: 0, max: 9 })), { minLength: 1, maxLength: 12 }),
      async (start, steps) => {
        const bridge = new FakeSwitch();
        let m = start;
        await bridge.become(meshOf(m));
        for (const [change, dice] of steps) {
          m = change(m);
          // Now and then the switch is read anew.
          await bridge.become(meshOf(m), dice === 0);
          const whole = { ...bridgeOf(meshOf(m), 'h1'), maxMeters: METERS };
          expect(texts(bridge.flows.values())).toEqual(texts(keyed(renderAfresh(whole)).values()));
          expect(new Map(bridge.meters)).toEqual(new Map(renderMeters(whole)));
          edits++;
        }
        expect(await bridge.become(meshOf(m), true)).toBe(0);
      },
    ),
    { numRuns: 30 },
  );
  expect(edits).toBeGreaterThan(60);
}, 120_000);

/** Tiers of an application, each of which is called by the one before it; `size` endpoints, one in ten of this host. */
function layered(size: number, tiers: number, changed: { readonly at: number; readonly tier: number } | null): Mesh {
  const endpoints = Array.from({ length: size }, (_, i): MeshEndpoint => {
    const ip = `10.1.${64 + (i >> 8)}.${i & 255}`;
    const tier = changed?.at === i ? changed.tier : ((i / 10) % tiers) | 0;
    return {
      id: i.toString(16).padStart(4, '0').repeat(16),
      network: 'n1',
      host: i % 10 === 0 ? 'h1' : 'h2',
      ips: [ip],
      labels: { app: `a${tier}` },
      mac: `02:59:00:00:${(i >> 8).toString(16).padStart(2, '0')}:${(i & 255).toString(16).padStart(2, '0')}`,
      ofport: i + 2,
    };
  });
  const policies = Array.from({ length: tiers }, (_, i) =>
    Policy.fromPartial({
      networkId: 'n1',
      name: `p${i}`,
      tier: 'application',
      order: 100,
      selector: { app: `a${i}` },
      ingress: [
        {
          action: 'allow',
          peers: [{ who: { $case: 'endpoints', value: { networkId: '', labels: { app: `a${(i + 1) % tiers}` } } } }],
          ports: [{ protocol: 'tcp', first: 80, last: 90 }],
        },
        { action: 'drop', peers: [], ports: [] },
      ],
    }),
  );
  const networks = new Map([['n1', { shut: false, subnets: ['10.1.0.0/16'] }]]);
  return { networks, endpoints, policies, routers: [], services: new Map() };
}

test.each(['here', 'elsewhere'])('a label of one endpoint %s is as many flows in a mesh of any size', async (where) => {
  const touched: number[] = [];
  for (const [size, tiers] of [
    [200, 10],
    [2000, 10],
    [2000, 50],
  ] as const) {
    const bridge = new FakeSwitch();
    await bridge.become(layered(size, tiers, null));
    touched.push(await bridge.become(layered(size, tiers, { at: where === 'here' ? 50 : 51, tier: 1 })));
    expect(bridge.flows.size).toBeGreaterThan(size / 10);
  }
  // Whom its port, and whom its address is about: flows that rules share change what they say.
  expect(touched).toEqual(Array.from({ length: 3 }, () => (where === 'here' ? 2 : 1)));
});
