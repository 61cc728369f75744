import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BpfDriver } from '../../../agent/bpf/driver.ts';
import { encode } from '../../../agent/bpf/encode.ts';
import type { BpfAttachment, BpfModel, BpfPort, BpfService } from '../../../agent/bpf/model.ts';
import { hookOf, placeId } from '../../../agent/bpf/model.ts';
import { planMaps, planPrograms } from '../../../agent/plan/maps.ts';
import { parseIp } from '../../../lib/ip.ts';
import { parseIp6 } from '../../../lib/ip6.ts';
import { macOfIp, parseMac } from '../../../lib/mac.ts';
import { counting, driverIn, inside, Mounts, Namespaces, sweepNamespaces } from '../../harness/bpf.ts';
import { Dialog } from '../../harness/dialog.ts';
import { addressOf, BASE } from '../../harness/service-frames.ts';

/**
 * Virtual addresses on links that are ports of a switch in the kernel, which takes frames after tc ingress and sends them before tc egress.
 * The kernel's bridge stands for Open vSwitch here: this kernel need not have that.
 */

const NET = 5000;
const PORT = 8080;
const LARGE = 8 << 20;
const GATEWAY = '02:57:65:66:74:01';
const VIRTUAL = { IPv4: '10.128.9.1', IPv6: 'fd00:128::9:1' } as const;
type Family = keyof typeof VIRTUAL;
const FAMILIES = ['IPv4', 'IPv6'] as const;

interface Box {
  readonly netns: string;
  readonly name: string;
  readonly mac: string;
  readonly ips: Readonly<Record<Family, string>>;
  readonly port: BpfPort;
}

describe('services on ports of a switch', () => {
  const namespaces = new Namespaces();
  const boxes: Box[] = [];
  const servers: Dialog[] = [];
  let netns: string;
  let mounts: Mounts;
  let driver: BpfDriver;
  let client: Dialog;

  const addBox = async (n: number): Promise<void> => {
    const [name, link] = [`box${n}`, `wft${n}`];
    const ips = { IPv4: `10.128.0.${n}`, IPv6: `fd00:128::${n}` };
    const mac = macOfIp(ips.IPv4);
    const box = await namespaces.add(name);
    const peer = ['type', 'veth', 'peer', 'name', 'eth0', 'mtu', '1450', 'address', mac, 'netns', box];
    await inside(netns, 'ip', 'link', 'add', link, 'mtu', '1450', ...peer);
    await inside(netns, 'ip', 'link', 'set', link, 'master', 'br0', 'addrgenmode', 'none', 'up');
    await inside(box, 'sysctl', '-qw', 'net.ipv6.conf.eth0.disable_ipv6=0');
    await inside(box, 'ip', 'addr', 'add', `${ips.IPv4}/16`, 'dev', 'eth0');
    await inside(box, 'ip', 'addr', 'add', `${ips.IPv6}/64`, 'dev', 'eth0', 'nodad');
    await inside(box, 'ip', 'link', 'set', 'eth0', 'up');
    // ARP for virtual addresses is answered by Open vSwitch; neighbour discovery by the programs.
    const { IPv4: ip } = VIRTUAL;
    await inside(box, 'ip', 'neigh', 'replace', ip, 'lladdr', GATEWAY, 'dev', 'eth0', 'nud', 'permanent');
    const [shown] = JSON.parse(await inside(netns, 'ip', '-j', 'link', 'show', link)) as { ifindex: number }[];
    const port: BpfPort = {
      ifindex: shown?.ifindex ?? 0,
      slow: 0,
      index: NET,
      mac: parseMac(mac),
      ip4: parseIp(ips.IPv4),
      ip6: parseIp6(ips.IPv6),
      linkLocal: null,
      express: false,
    };
    boxes.push({ netns: box, name, mac, ips, port });
    servers.push(await Dialog.serve(box, PORT, name));
  };

  const services = (behind: readonly Box[], at: number): BpfService[] =>
    FAMILIES.flatMap((family, i) =>
      ([6, 17] as const).map((protocol, j) => ({
        id: 1 + i * 2 + j,
        index: NET,
        address: addressOf(VIRTUAL[family]),
        protocol,
        port: 80,
        affinity: 0,
        backends: behind.map((b) => ({ address: addressOf(b.ips[family]), mac: parseMac(b.mac), port: at })),
      })),
    );
  const serve = async (
    behind: readonly Box[] | null,
    at = PORT,
    answered: BpfModel['answered'] = [],
  ): Promise<number> => {
    const model: BpfModel = {
      ...BASE,
      nets: [],
      blocks: [],
      ports: boxes.map((b) => b.port),
      services: behind === null ? [] : services(behind, at),
      answered,
    };
    const attachments = boxes.flatMap(({ port }): BpfAttachment[] => [
      { ifindex: port.ifindex, link: 'wft', program: 'service_out' },
      { ifindex: port.ifindex, link: 'wft', program: 'service_in' },
    ]);
    const places = attachments.map((a) => ({ ifindex: a.ifindex, hook: hookOf(a.program) }));
    const steps = [
      ...planMaps(encode(model, driver.maps), await driver.observeFresh()),
      ...planPrograms(attachments, await driver.attached(places)),
    ];
    await driver.apply(steps.map((p) => p.step));
    return steps.length;
  };

  beforeAll(async () => {
    await sweepNamespaces();
    mounts = await Mounts.make();
    netns = await namespaces.add('switch');
    await inside(netns, 'ip', 'link', 'add', 'br0', 'type', 'bridge');
    await inside(netns, 'ip', 'link', 'set', 'br0', 'up');
    ({ driver } = driverIn(netns, mounts, 'services'));
    await driver.start();
    for (const n of [1, 2, 3]) await addBox(n);
    client = Dialog.client(boxes[0]!.netns);
  });
  afterAll(async () => {
    await client?.[Symbol.asyncDispose]();
    for (const s of servers) await s[Symbol.asyncDispose]();
    await driver?.close();
    await mounts?.[Symbol.asyncDispose]();
    await namespaces[Symbol.asyncDispose]();
  });

  it('a gateway of IPv6 is known by its MAC, where there are no services; nobody else is', async () => {
    const { netns: box } = boxes[0]!;
    await serve(null, 0, [{ index: NET, address: addressOf('fd00:128::8:1') }]);
    const known = async (ip: string): Promise<string> => {
      await inside(box, 'ping', '-c', '1', '-W', '0.3', ip).catch(() => '');
      return inside(box, 'ip', '-6', 'neigh', 'show', ip, 'dev', 'eth0');
    };
    expect(await known('fd00:128::8:1')).toContain(GATEWAY);
    expect(await known('fd00:128::99')).not.toContain('lladdr');
    expect(await known(boxes[1]!.ips.IPv6)).toContain(boxes[1]!.mac);
  });

  it.each(
    FAMILIES.flatMap((family) => [
      { family, who: 'another container', n: 1 },
      { family, who: 'the client itself', n: 0 },
    ]),
  )('$family: $who answers, TCP and UDP, small, large and in fragments', async ({ family, n }) => {
    const box = boxes[n]!;
    const seen = n === 0 ? VIRTUAL[family] : boxes[0]!.ips[family];
    await serve([box]);
    const counted = await counting(driver);
    expect(await client.ask('open', 'one', VIRTUAL[family], 80, 0)).toBe('open');
    expect(await client.ask('who', 'one')).toMatch(new RegExp(`^${box.name} ${seen} \\d+$`));
    expect(await client.ask('get', 'one', LARGE)).toBe('right');
    expect(await client.ask('put', 'one', LARGE)).toBe('right');
    expect(await client.ask('close', 'one')).toBe('closed');
    for (const size of [100, 1_400, 8_000])
      expect(await client.ask('udp', VIRTUAL[family], 80, 0, size)).toBe(`${box.name} ${seen}`);
    const after = await counted();
    expect(after).toMatchObject({ service: expect.any(Number) });
    expect(Object.keys(after).filter((reason) => !['service', 'service_reply'].includes(reason))).toEqual([]);
  });

  it.each(FAMILIES)(
    '%s: a connection stays where it is while the list changes; that nobody listens is heard',
    async (family) => {
      await serve([boxes[1]!]);
      expect(await client.ask('open', 'old', VIRTUAL[family], 80, 0)).toBe('open');
      await serve([boxes[2]!]);
      expect(await client.ask('open', 'new', VIRTUAL[family], 80, 0)).toBe('open');
      expect(await client.ask('who', 'old')).toMatch(/^box2 /);
      expect(await client.ask('who', 'new')).toMatch(/^box3 /);
      for (const id of ['old', 'new']) expect(await client.ask('close', id)).toBe('closed');
      await serve([boxes[1]!], PORT + 1);
      expect(await client.ask('open', 'none', VIRTUAL[family], 80, 0)).toBe('ECONNREFUSED');
      expect(await client.ask('udp', VIRTUAL[family], 80, 0, 100)).toBe('ECONNREFUSED');
    },
  );

  it('who has a virtual address of IPv6 is answered, also to who would take it; of another address it is not', async () => {
    await serve([boxes[1]!]);
    const { netns: box } = boxes[0]!;
    const ip = (...args: string[]) => inside(box, 'ip', '-6', ...args);
    await ip('neigh', 'flush', 'dev', 'eth0');
    expect(await client.ask('open', 'six', VIRTUAL.IPv6, 80, 0)).toBe('open');
    expect(await client.ask('close', 'six')).toBe('closed');
    expect(await ip('neigh', 'show', VIRTUAL.IPv6)).toContain(GATEWAY);
    await ip('addr', 'add', `${VIRTUAL.IPv6}/64`, 'dev', 'eth0');
    await ip('addr', 'add', 'fd00:128::77/64', 'dev', 'eth0');
    const shown = (): Promise<string> => ip('-o', 'addr', 'show', 'dev', 'eth0');
    await expect.poll(shown, { timeout: 10_000 }).toMatch(/fd00:128::9:1\/64 [^\n]*dadfailed/);
    await expect.poll(shown, { timeout: 10_000 }).not.toMatch(/fd00:128::77\/64 [^\n]*tentative/);
    expect(await shown()).not.toMatch(/fd00:128::77\/64 [^\n]*dadfailed/);
    for (const address of [VIRTUAL.IPv6, 'fd00:128::77']) await ip('addr', 'del', `${address}/64`, 'dev', 'eth0');
  });

  it('what is on links is known, mended, and taken away', async () => {
    await serve([boxes[1]!]);
    expect(await serve([boxes[1]!])).toBe(0);
    await inside(netns, 'tc', 'qdisc', 'del', 'dev', 'wft1', 'clsact');
    expect(await serve([boxes[1]!])).toBe(2);
    const { ifindex } = boxes[0]!.port;
    const places = (['ingress', 'egress'] as const).map((hook) => ({ ifindex, hook, link: 'wft1' }));
    const gone = planPrograms([], await driver.attached(places), places);
    expect(gone.map((p) => `${p.change} ${p.object}`)).toEqual(['extra wft1', 'extra wft1 egress']);
    await driver.apply(gone.map((p) => p.step));
    expect([...(await driver.attached(places))]).toEqual(places.map((at) => [placeId(at), null]));
  });
});
