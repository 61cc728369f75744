import { describe, expect, it } from 'vitest';
import { describeMaps } from '../../../agent/bpf/describe.ts';
import { encode } from '../../../agent/bpf/encode.ts';
import type { LocalEndpoint } from '../../../agent/contract.ts';
import type { NetworkModel } from '../../../agent/flows/model.ts';
import { beside, gateExit, gateLink, hostLink } from '../../../agent/link/names.ts';
import { kernelSide } from '../../../agent/plan/kernel.ts';
import { desiredShaping, planQueues, queueOf } from '../../../agent/plan/queues.ts';
import { QueueSide } from '../../../agent/queueside.ts';
import { askedBy, DSCP, rateProblems, shapedOf } from '../../../agent/rates.ts';
import {
  ELSEWHERE,
  type FoundQueue,
  type FoundShaping,
  lines,
  parseClassified,
  parseDiversion,
  parseQueues,
  type Queue,
  type QueueStep,
} from '../../../agent/shaping/steps.ts';
import type { Wiring } from '../../../agent/wiring.ts';
import type { View } from '../../../lib/model.ts';
import { IPV6_MODEL } from '../../harness/flow-models.ts';

const WIRING: Wiring = {
  services: true,
  datapathType: 'netdev',
  backend: 'kernel-tunnel',
  express: true,
  vtep: '192.0.2.1',
  encaps: ['vxlan'],
  udpPorts: { vxlan: 4789, geneve: 6081 },
  underlayMtu: 1500,
  complete: { at: 'none', tcp: false, rewritten: true },
  outer: { ttl: 64, dscp: 'inherit', checksum: false },
};
const ID = 'a'.repeat(64);
const rate = (bits: bigint, burst = 0n) => ({ bits, burst });
const endpoint = (more: Partial<LocalEndpoint> = {}): LocalEndpoint =>
  ({ id: ID, networkId: 'n', mtu: 1450, labels: {}, container: { id: 'c', name: 'web' }, ...more }) as LocalEndpoint;
const view = (network?: bigint, set?: bigint): View =>
  ({
    networks: new Map([['n', network === undefined ? {} : { rate: rate(network) }]]),
    interests: new Map([['n', { settings: new Map(set === undefined ? [] : [[ID, { rate: rate(set) }]]) }]]),
  }) as unknown as View;
const shaping = (e: LocalEndpoint, v: View, express = true, datapathType: 'netdev' | 'system' = 'netdev') =>
  desiredShaping([e], v, { express, datapathType });
const queues = (e: LocalEndpoint, v: View, express = true) => shaping(e, v, express).queues;
const planned = (want: readonly Queue[], have: ReadonlyMap<string, FoundQueue>) =>
  planQueues({ queues: want, diversions: [] }, { queues: new Map(have), diversions: new Map() });

describe('queues', () => {
  it('hold what an endpoint receives on its link, what it sends on its gate; each rate counts payload', () => {
    const wanted = queues(endpoint(), view(undefined, 200_000_000n));
    expect(wanted.map((q) => q.link)).toEqual([hostLink(ID), gateLink(ID)]);
    // 25 MB/s in segments of 1398 bytes, which are frames of 1464.
    for (const q of wanted) expect(q).toMatchObject({ rate: 26_180_258, burst: 261_803, limit: 1_309_013 });
  });

  it.each([
    [8_000n, 0n, 10_000],
    [1_000_000n, 0n, 10_000],
    [10_000_000n, 0n, 70_000],
    [1_000_000_000n, 0n, 1_309_013],
    [100_000_000_000n, 0n, 16_777_216],
    [1_000_000n, 4_000n, 4_000],
    [1_000_000n, 1_600n, 2_936],
  ])('%d bit/s, burst %d: %d bytes at once, and a frame always passes', (bits, burst, bytes) => {
    const q = queueOf('l', rate(bits, burst), 1450);
    expect(q.burst).toBe(bytes);
    expect(q.limit).toBeGreaterThanOrEqual(Math.max(32_768, Math.min(2 * q.burst, 262_144)));
    expect(q.limit).toBeLessThan(2 ** 32);
  });

  it('there are none without a rate, for devices of the user, and where frames cannot wait', () => {
    expect(queues(endpoint(), view())).toEqual([]);
    expect(queues(endpoint(), view(1_000_000n, 0n))).toEqual([]);
    expect(queues(endpoint(), view(1_000_000n), false)).toEqual([]);
    const attached = { kind: 'tap', name: 't', link: 't', mtu: 1450, up: true } as const;
    expect(queues(endpoint({ attached }), view(1_000_000n))).toEqual([]);
    expect(queues(endpoint(), view(1_000_000n))).toHaveLength(2);
  });
});

describe('drift of queues', () => {
  const want = queueOf('wft1', rate(200_000_000n), 1450);
  const ours = (more: object = {}): ReadonlyMap<string, FoundQueue> =>
    new Map([['wft1', { kind: 'ours', ...want, ...more }]]);

  it('is seen, whatever differs', () => {
    expect(planned([want], ours())).toEqual([]);
    // The kernel keeps whole microseconds of the burst.
    expect(planned([want], ours({ burst: want.burst - 25 }))).toEqual([]);
    for (const other of [{ rate: want.rate + 1 }, { burst: want.burst - 100 }, { limit: want.limit - 1 }])
      expect(planned([want], ours(other))).toMatchObject([{ kind: 'queue', id: 'wft1', change: 'differs' }]);
    expect(planned([want], new Map())).toMatchObject([{ change: 'missing', have: '' }]);
    expect(planned([], ours())).toMatchObject([{ change: 'extra', step: { kind: 'delQueue', link: 'wft1' } }]);
  });

  it('what others have put there gives way where a rate is wanted, and is left alone elsewhere', () => {
    const theirs = new Map<string, FoundQueue>([['wft1', { kind: 'other', text: 'netem 8001:' }]]);
    expect(planned([], theirs)).toEqual([]);
    const [p] = planned([want], theirs);
    expect(p).toMatchObject({ change: 'differs', have: 'netem 8001:', step: { instead: true } });
    expect(lines(p?.step as QueueStep)).toEqual([
      'qdisc del dev wft1 root',
      'qdisc replace dev wft1 root handle 57ef: tbf rate 209442064bit burst 261803b limit 1309013b',
    ]);
  });

  it('is read from what tc says', () => {
    const tbf = { kind: 'tbf', handle: '57ef:', dev: 'wft1', root: true, options: { rate: 125, burst: 9, limit: 7 } };
    const all = [
      tbf,
      { ...tbf, dev: 'eth0' },
      { ...tbf, dev: 'wft2', handle: '1:' },
      { kind: 'noqueue', handle: '0:', dev: 'wft3', root: true, options: {} },
      { kind: 'clsact', handle: 'ffff:', dev: 'wft3', parent: 'ffff:fff1', options: {} },
    ];
    expect([...parseQueues(JSON.stringify(all), (link) => link.startsWith('wft')).values()]).toEqual([
      { kind: 'ours', link: 'wft1', rate: 125, burst: 9, limit: 7 },
      { kind: 'other', text: 'tbf 1:' },
    ]);
    expect(parseQueues('', () => true).size).toBe(0);
  });

  it('a queue goes with its link, and what failed is read anew', async () => {
    let there = new Map<string, FoundQueue>();
    let reads = 0;
    let broken = true;
    const driver = {
      observe: () => {
        reads++;
        return Promise.resolve({ queues: new Map(there), diversions: new Map<string, string>() });
      },
      apply: (steps: readonly QueueStep[]) => {
        if (broken) return Promise.reject(new Error('no'));
        there = new Map(
          steps.flatMap((s) => (s.kind === 'setQueue' ? [[s.queue.link, { kind: 'ours', ...s.queue }]] : [])),
        );
        return Promise.resolve();
      },
    };
    const side = new QueueSide(driver, false);
    const gate = { queues: [{ ...want, link: gateLink(ID) }], diversions: [] };
    await expect(side.apply(await side.plan(gate, false))).rejects.toThrow('no');
    broken = false;
    await side.apply(await side.plan(gate, false));
    expect(await side.plan(gate, false)).toEqual([]);
    expect(reads).toBe(2);
    side.renewed([gateExit(ID)]);
    expect(await side.plan(gate, false)).toHaveLength(1);
    expect(reads).toBe(2);
    expect(await side.plan(gate, true)).toEqual([]);
  });
});

describe('where the kernel’s Open vSwitch forwards', () => {
  const wanted = shaping(endpoint(), view(1_000_000n), false, 'system');
  const [wft, wfi] = [hostLink(ID), beside(ID)];
  const there = (to: string | null): FoundShaping => ({
    queues: new Map(wanted.queues.map((q) => [q.link, { kind: 'ours', ...q }])),
    diversions: new Map(to === null ? [] : [[wft, to]]),
  });

  it('what an endpoint sends waits beside its link, to which a filter leads', () => {
    expect(wanted.queues.map((q) => q.link)).toEqual([wft, wfi]);
    expect(wanted.diversions).toEqual([{ link: wft, to: wfi }]);
    expect(planQueues(wanted, there(wfi))).toEqual([]);
    const [first, , third, none] = planQueues(wanted, { queues: new Map(), diversions: new Map() });
    expect([first?.object, third?.object, none]).toEqual([wft, `${wft} ingress`, undefined]);
    expect(lines(third?.step as QueueStep)).toEqual([
      `qdisc replace dev ${wft} clsact`,
      `filter add dev ${wft} ingress protocol all pref 2 u32 match u32 0 0 action mirred egress redirect dev ${wfi}`,
    ]);
  });

  it('nothing leads to a queue that goes; what is not ours stays', () => {
    const steps = planQueues({ queues: [], diversions: [] }, there(wfi)).map((p) => p.step);
    expect(steps[0]).toEqual({ kind: 'undivert', link: wft });
    expect(steps).toHaveLength(3);
    expect(planQueues({ queues: [], diversions: [] }, there('eth7')).map((p) => p.step.kind)).not.toContain('undivert');
    // Another one's filter, or one that leads nowhere any more, gives way; where a program is there may be none.
    for (const other of [ELSEWHERE, 'eth7'])
      expect(planQueues(wanted, there(other))).toMatchObject([{ change: 'differs', step: { instead: true } }]);
    expect(planQueues(wanted, there(''))).toMatchObject([{ change: 'missing', step: { instead: false } }]);
    const [p] = planQueues(wanted, there('eth7'));
    expect(lines(p?.step as QueueStep).slice(0, 2)).toEqual([
      `qdisc replace dev ${wft} clsact`,
      `filter del dev ${wft} ingress pref 2`,
    ]);
    // The program that translates for services stays.
    expect(lines({ kind: 'undivert', link: wft })).toEqual([`filter del dev ${wft} ingress pref 2`]);
  });

  it('what leads to a link that is new leads nowhere', async () => {
    const side = new QueueSide({ observe: () => Promise.resolve(there(wfi)), apply: () => Promise.resolve() }, true);
    expect(await side.plan(wanted, false)).toEqual([]);
    side.renewed([wfi]);
    expect((await side.plan(wanted, false)).map((p) => p.object)).toEqual([wfi, `${wft} ingress`]);
  });

  it('is read from what tc says', () => {
    const mirred = { kind: 'mirred', mirred_action: 'redirect', direction: 'egress', to_dev: wfi };
    const rule = { protocol: 'all', pref: 2, kind: 'u32', options: { match: { value: '0', mask: '0' }, actions: [mirred] } };
    const table = { protocol: 'all', pref: 2, kind: 'u32', options: { fh: '800:', ht_divisor: 1 } };
    const program = { protocol: 'all', pref: 1, kind: 'bpf', options: { handle: '0x1', 'direct-action': true } };
    expect(parseDiversion(JSON.stringify([program, { kind: 'u32', pref: 2 }, table, rule]))).toBe(wfi);
    expect(parseDiversion(JSON.stringify([program]))).toBe('');
    expect(parseDiversion('[]')).toBe('');
    for (const other of [
      [table],
      [table, rule, rule],
      [{ ...rule, options: { ...rule.options, match: { mask: 'ff' } } }],
      [{ ...rule, options: { ...rule.options, actions: [{ ...mirred, mirred_action: 'mirror' }] } }],
      [{ ...rule, options: { ...rule.options, actions: [mirred, mirred] } }],
    ])
      expect(parseDiversion(JSON.stringify(other))).toBe(ELSEWHERE);
    const shown = [
      { kind: 'clsact', dev: wft, parent: 'ffff:fff1' },
      { kind: 'clsact', dev: 'eth0' },
      { kind: 'pfifo_fast', handle: '0:', dev: wfi, root: true },
    ];
    expect(parseClassified(JSON.stringify(shown), (link) => link !== 'eth0')).toEqual([wft]);
    expect(parseQueues(JSON.stringify(shown), () => true).size).toBe(0);
  });
});

describe('an endpoint with a rate, on the kernel side', () => {
  const [first] = IPV6_MODEL.networks as [NetworkModel, ...NetworkModel[]];
  const [local] = first.locals;
  const paced: NetworkModel = {
    ...first,
    locals: first.locals.map((l) => (l.id === local?.id ? { ...l, paced: true } : l)),
  };
  const id = local?.id ?? '';
  const side = (there: (link: string) => boolean, network = paced) => {
    const numbers = new Map<string, number>();
    return kernelSide([network], WIRING, (link) => {
      if (!there(link)) return null;
      numbers.set(link, numbers.get(link) ?? numbers.size + 1);
      return numbers.get(link) ?? 0;
    });
  };

  it('sends through its gate, and receives by its own queue', () => {
    const { model, attachments } = side(() => true);
    const places = attachments.map(({ link, program }) => `${link} ${program}`);
    const [exit, entry] = [`${gateExit(id)} from_gate`, `${hostLink(id)} to_gate`];
    expect(places).toContain(entry);
    expect(places.indexOf(exit)).toBeGreaterThanOrEqual(0);
    expect(places.indexOf(exit)).toBeLessThan(places.indexOf(entry));
    const port = model.ports.find((p) => p.gate !== undefined);
    expect(model.ports.filter((p) => p.gate !== undefined)).toHaveLength(1);
    const maps = describeMaps(encode(model));
    expect(maps).toContain(`gates ifindex ${port?.ifindex} = ifindex ${port?.gate?.entry}`);
    expect(maps).toContain(`gates ifindex ${port?.gate?.exit} = ifindex ${port?.ifindex}`);
    expect(maps).toMatch(new RegExp(`fdb .* = local ifindex ${port?.ifindex} .*paced`));
  });

  it('marks what it sends, and nobody else does', () => {
    const marked = { ...first, locals: first.locals.map((l) => (l.id === id ? { ...l, dscp: DSCP.high } : l)) };
    const { model } = side(() => true, marked);
    expect(describeMaps(encode(model)).match(/^ports .* dscp 34$/gm)).toHaveLength(1);
    expect(model.ports.filter((p) => p.dscp !== undefined)).toHaveLength(1);
    expect(shapedOf(endpoint({ labels: { 'weft.priority': 'low' } }), view())).toEqual({ dscp: 1 });
    expect(shapedOf(endpoint({ labels: { 'weft.priority': 'normal' } }), view())).toEqual({});
    expect(shapedOf(endpoint(), view(1_000_000n))).toEqual({ paced: true });
  });

  it('goes on as before until its gate is there', () => {
    const { model, attachments } = side((link) => link !== gateLink(id));
    expect(attachments).toContainEqual(expect.objectContaining({ link: hostLink(id), program: 'from_container' }));
    expect(model.ports.every((p) => p.gate === undefined)).toBe(true);
  });
});

describe('what a container asks for', () => {
  it('by driver option before label; nonsense is named, and the rest counts', () => {
    const labels = { 'weft.rate': '200', 'weft.priority': 'high' };
    expect(askedBy(endpoint({ labels }))).toMatchObject({
      priority: 'high',
      nonsense: [expect.stringContaining('"200"')],
    });
    expect(askedBy(endpoint({ labels, asked: { 'weft.rate': '2mbit' } }))).toEqual({
      rate: rate(2_000_000n),
      priority: 'high',
      nonsense: [],
    });
  });

  it('is a conflict where it cannot be held', () => {
    const problems = (e: LocalEndpoint, v: View, express = true) =>
      rateProblems([e], v, { express, datapathType: 'netdev' });
    expect(problems(endpoint(), view(1_000_000n))).toEqual([]);
    expect(problems(endpoint(), view(1_000_000n), false)).toEqual([expect.stringMatching(/^endpoint web: .*not held/)]);
    expect(problems(endpoint({ labels: { 'weft.rate': 'x' } }), view())).toEqual([
      expect.stringMatching(/^endpoint web: /),
    ]);
    expect(problems(endpoint({ labels: { 'weft.rate': '1mbit' } }), view(), false)).toHaveLength(1);
  });
});
