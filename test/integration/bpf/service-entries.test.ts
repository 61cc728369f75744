import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BpfModel, BpfSource } from '../../../agent/bpf/model.ts';
import { parseIp6 } from '../../../lib/ip6.ts';
import { parseMac } from '../../../lib/mac.ts';
import { counting, inside } from '../../harness/bpf.ts';
import { NET, Pair, STRANGER, VNI, v4, vtep } from '../../harness/bpf-pair.ts';
import { sendVxlan } from '../../harness/frames.ts';
import { packet, read } from '../../harness/transport.ts';

/** Who came in by another host's published port is answered by that host. */

const GATEWAY = '02:57:65:66:74:01';
const OTHER_HOST = '02:5b:c0:00:02:02';
const THIRD_HOST = '02:5b:c0:00:02:03';
const THIS_HOST = '02:5b:c0:00:02:01';
/** Of no host. */
const FORGED = '02:5b:c0:00:02:04';
const FORGER = '192.0.2.10';
const LINK_LOCAL = 'fe80:0:0:0:58:aff:fe80:7';
const FAMILIES = [
  ['IPv4', '10.128.0.7', '203.0.113.9'],
  ['IPv6', 'fd00:128:0:0:0:0:0:7', '2001:db8:0:0:0:0:0:9'],
] as const;
const SOON = { timeout: 5_000, interval: 20 };

/** Host a's, which knows host b and a third one by their MACs, and an external peer. */
function modelOf({ ca, modelA, b }: Pair): BpfModel {
  const host = (mac: string, address: string): BpfModel['fdb'][number] => ({
    index: NET,
    mac: parseMac(mac),
    place: { kind: 'remote', ...vtep(v4(address)) },
    express: true,
  });
  const { device } = modelA.nets[0]!;
  const source = (address: string, external: boolean): BpfSource => ({
    index: NET,
    vtep: v4(address),
    device,
    key: VNI,
    external,
    learn: false,
  });
  const addresses = { ip6: parseIp6('fd00:128::7'), linkLocal: parseIp6('fe80::58:aff:fe80:7') };
  return {
    ...modelA,
    ports: modelA.ports.map((p) => (p === ca.port ? { ...p, ...addresses } : p)),
    fdb: [
      ...modelA.fdb,
      host(OTHER_HOST, b.vtep),
      host(THIRD_HOST, STRANGER),
      {
        index: NET,
        mac: parseMac(THIS_HOST),
        place: { kind: 'local', ifindex: ca.port.ifindex, rewrite: null, host: true },
        express: true,
      },
    ],
    sources: [...modelA.sources, source(STRANGER, false), source(FORGER, true)],
    services: [{ id: 1, index: NET, address: v4('10.128.9.1'), protocol: 6, port: 80, affinity: 0, backends: [] }],
  };
}

describe('entries', () => {
  let pair: Pair;
  let model: BpfModel;

  beforeAll(async () => {
    pair = await Pair.start();
    await inside(pair.b.netns, 'ip', 'addr', 'add', `${FORGER}/24`, 'dev', 'u0');
    model = modelOf(pair);
    await pair.a.apply(model);
  });
  afterAll(async () => {
    await pair?.[Symbol.asyncDispose]();
  });

  describe.each(FAMILIES)('%s', (_name, me, caller) => {
    describe.each(['tcp', 'udp'] as const)('%s', (protocol) => {
      const mine = (): string => pair.ca.mac;
      const call = (from: string, sport = 50_000): string =>
        packet({ to: mine(), from, src: caller, dst: me, protocol, sport, dport: 8080 });
      const answer = (dport = 50_000): string =>
        packet({ to: GATEWAY, from: mine(), src: me, dst: caller, protocol, sport: 8080, dport, flags: 18 });
      /** By tunnel, and until the container has it. */
      const arrive = async (from: string, frame: string, express = true): Promise<void> => {
        const seen = await counting(pair.a.driver);
        await sendVxlan(pair.b.netns, from, pair.a.vtep, VNI, [frame]);
        await expect.poll(seen, SOON).toEqual(express ? { express_rx: 1 } : { tunnel_to_ovs: 1, ovs_to_container: 1 });
      };
      const leaves = async (frame: string): Promise<string> =>
        (await pair.a.driver.run('from_container', frame, pair.ca.port.ifindex)).frame;
      const toHost = (host: string, frame: string): string => frame.replace(/^.{12}/, host.replaceAll(':', ''));

      it('the answer goes to the host by which the call came; any other as ever', async () => {
        await arrive(pair.b.vtep, call(OTHER_HOST));
        const seen = await counting(pair.a.driver);
        const frame = await leaves(answer());
        expect(frame).toBe(toHost(OTHER_HOST, answer()));
        expect(read(frame).sums).toEqual({ header: true, transport: true });
        expect(await leaves(answer(50_001))).toBe(answer(50_001));
        expect(await seen()).toEqual({ service_entry: 1, express_remote: 1, slow: 1 });
      });

      it('so it does where Open vSwitch has brought the call', async () => {
        const slow = (e: BpfModel['fdb'][number]) => (e.mac === pair.ca.port.mac ? { ...e, express: false } : e);
        await pair.a.apply({ ...model, fdb: model.fdb.map(slow) });
        await arrive(pair.b.vtep, call(OTHER_HOST, 50_002), false);
        expect(await leaves(answer(50_002))).toBe(toHost(OTHER_HOST, answer(50_002)));
        await pair.a.apply(model);
      });

      it('the host gets nothing that is no answer to who came in by it, whoever knows its MAC', async () => {
        const seen = await counting(pair.a.driver);
        for (const src of [me, ...(me.includes(':') ? [LINK_LOCAL] : [])])
          await leaves(packet({ to: THIS_HOST, from: mine(), src, dst: caller, protocol, sport: 8080, dport: 9 }));
        expect(await seen()).toEqual({ security: me.includes(':') ? 2 : 1 });
      });

      it('the last host counts', async () => {
        await arrive(pair.b.vtep, call(OTHER_HOST));
        await arrive(STRANGER, call(THIRD_HOST));
        expect(read(await leaves(answer())).to).toBe(THIRD_HOST);
        const { frame } = await pair.a.driver.run('from_ovs', call(GATEWAY), pair.ca.port.slow);
        expect(frame).toBe(call(GATEWAY));
        expect(await leaves(answer())).toBe(answer());
      });

      it('nobody is believed to be a host but by its VTEP', async () => {
        await arrive(FORGER, call(FORGED, 50_003), false);
        expect(await leaves(answer(50_003))).toBe(answer(50_003));
        await pair.a.driver.run('from_ovs', call(OTHER_HOST, 50_004), pair.ca.port.slow);
        expect(await leaves(answer(50_004))).toBe(answer(50_004));
        const seen = await counting(pair.a.driver);
        await sendVxlan(pair.b.netns, FORGER, pair.a.vtep, VNI, [call(OTHER_HOST, 50_005)]);
        await expect.poll(seen, SOON).toEqual({ foreign_source: 1 });
      });
    });
  });
});
