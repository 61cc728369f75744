import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BpfDriver } from '../../../agent/bpf/driver.ts';
import { encode } from '../../../agent/bpf/encode.ts';
import type { BpfModel, BpfPort } from '../../../agent/bpf/model.ts';
import { planMaps } from '../../../agent/plan/maps.ts';
import { parseIp } from '../../../lib/ip.ts';
import { parseIp6 } from '../../../lib/ip6.ts';
import { parseMac } from '../../../lib/mac.ts';
import { counting, driverIn, Mounts, Namespaces, sweepNamespaces } from '../../harness/bpf.ts';
import { v4, vtep } from '../../harness/bpf-pair.ts';
import { packet, read } from '../../harness/transport.ts';

/** Who came in by another host's published port is answered by that host. */

const LINK = 1;
const NET = 3;
const GATEWAY = '02:57:65:66:74:01';
const OTHER_HOST = '02:5b:c0:00:02:02';
const THIRD_HOST = '02:5b:c0:00:02:03';
const MY_MAC = '02:58:0a:80:00:07';
const FAMILIES = [
  ['IPv4', '10.128.0.7', '203.0.113.9'],
  ['IPv6', 'fd00:128:0:0:0:0:0:7', '2001:db8:0:0:0:0:0:9'],
] as const;

const remote = { kind: 'remote', ...vtep(v4('192.0.2.2')) } as const;
const port: BpfPort = {
  ifindex: LINK,
  slow: 100,
  index: NET,
  mac: parseMac(MY_MAC),
  ip4: parseIp('10.128.0.7'),
  ip6: parseIp6('fd00:128::7'),
  linkLocal: null,
  express: true,
};
const MODEL: BpfModel = {
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
  ports: [port, { ...port, ifindex: 100, slow: LINK }],
  nets: [{ index: NET, device: 102, vni: 4097, mtu: 1450 }],
  fdb: [{ index: NET, mac: parseMac(OTHER_HOST), place: remote, express: true }],
  blocks: [],
  sources: [],
  lists: [],
  groups: [],
  services: [{ id: 1, index: NET, address: v4('10.128.9.1'), protocol: 6, port: 80, affinity: 0, backends: [] }],
};

describe('entries', () => {
  const namespaces = new Namespaces();
  let mounts: Mounts;
  let driver: BpfDriver;
  const apply = async (model: BpfModel): Promise<void> =>
    driver.apply(planMaps(encode(model), driver.observe() ?? new Map()).map((p) => p.step));

  beforeAll(async () => {
    await sweepNamespaces();
    mounts = await Mounts.make();
    ({ driver } = driverIn(await namespaces.add('entries'), mounts));
    await driver.start();
    await apply(MODEL);
  });
  afterAll(async () => {
    await driver?.close();
    await mounts?.[Symbol.asyncDispose]();
    await namespaces[Symbol.asyncDispose]();
  });

  describe.each(FAMILIES)('%s', (_name, me, caller) => {
    describe.each(['tcp', 'udp'] as const)('%s', (protocol) => {
      const call = (from: string, sport = 50_000): string =>
        packet({ to: MY_MAC, from, src: caller, dst: me, protocol, sport, dport: 8080 });
      const answer = (dport = 50_000): string =>
        packet({ to: GATEWAY, from: MY_MAC, src: me, dst: caller, protocol, sport: 8080, dport, flags: 18 });
      const arrive = async (frame: string): Promise<void> => {
        expect((await driver.run('from_ovs', frame, LINK)).frame).toBe(frame);
      };
      const leaves = async (frame: string): Promise<string> => (await driver.run('from_container', frame, LINK)).frame;

      it('the answer goes to the host by which the call came; any other as ever', async () => {
        await arrive(call(OTHER_HOST));
        const seen = await counting(driver);
        const frame = await leaves(answer());
        expect(frame).toBe(answer().replace(/^.{12}/, OTHER_HOST.replaceAll(':', '')));
        expect(read(frame).sums).toEqual({ header: true, transport: true });
        expect(await leaves(answer(50_001))).toBe(answer(50_001));
        expect(await seen()).toEqual({ service_entry: 1, express_remote: 1, slow: 1 });
      });

      it('the last host counts', async () => {
        await arrive(call(OTHER_HOST));
        await arrive(call(THIRD_HOST));
        expect(read(await leaves(answer())).to).toBe(THIRD_HOST);
        await arrive(call(GATEWAY));
        expect(await leaves(answer())).toBe(answer());
      });
    });
  });
});
