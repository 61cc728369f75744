/** Programs on ports of Open vSwitch's: which links have them. */
import { describe, expect, it } from 'vitest';
import { describeMaps } from '../../../agent/bpf/describe.ts';
import type { BpfDriver } from '../../../agent/bpf/driver.ts';
import { type EncodedMaps, encode, SERVICE_MAPS } from '../../../agent/bpf/encode.ts';
import { type BpfPlaceOnLink, hookOf, placeId } from '../../../agent/bpf/model.ts';
import type { NetworkModel, ServiceModel, Tunnels } from '../../../agent/flows/model.ts';
import { renderNetwork } from '../../../agent/flows/render.ts';
import { entryMac } from '../../../agent/gateway/addresses.ts';
import { Kernel } from '../../../agent/kernel.ts';
import { hostLink } from '../../../agent/link/names.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import type { AttachedProgram, BpfStep } from '../../../agent/plan/maps.ts';
import { serviceLinks, serviceSide } from '../../../agent/plan/service-links.ts';
import { formatMac } from '../../../lib/mac.ts';
import { IPV6_MODEL } from '../../harness/flow-models.ts';
import { SYSTEM_WIRING } from '../../harness/wiring.ts';

const web: ServiceModel = {
  id: 7,
  address: { family: 4, address: 0x0a800901 },
  protocol: 6,
  port: 80,
  affinity: 0,
  backends: [{ address: { family: 4, address: 0x0a800002 }, mac: 0x02580a800002n, port: 8080 }],
};
const [first, second] = IPV6_MODEL.networks as [NetworkModel, NetworkModel];
const SERVED: NetworkModel[] = [{ ...first, services: [web] }, second];

/** Numbers of links, in the order in which they are asked for. */
function numbering(): (link: string) => number {
  const numbers = new Map<string, number>();
  return (link) => numbers.get(link) ?? numbers.set(link, numbers.size + 1).size;
}

/** A kernel that has what was done to it. */
function machine() {
  const numbers = numbering();
  const attached = new Map<string, AttachedProgram>();
  const maps: EncodedMaps = new Map(SERVICE_MAPS.map((name) => [name, new Map()]));
  const driver = {
    maps: SERVICE_MAPS,
    observe: () => maps,
    observeFresh: async () => maps,
    ifindexes: async (names: readonly string[]) => new Map(names.map((name) => [name, numbers(name)])),
    attached: async (places: readonly BpfPlaceOnLink[]) =>
      new Map(places.map((at) => [placeId(at), attached.get(placeId(at)) ?? null])),
    apply: async (steps: readonly BpfStep[]) => {
      for (const s of steps) {
        if (s.kind === 'attach') attached.set(placeId({ ifindex: s.ifindex, hook: hookOf(s.program) }), s.program);
        if (s.kind === 'detach') attached.delete(placeId(s));
      }
    },
  };
  const kernel = new Kernel(driver as unknown as BpfDriver, SYSTEM_WIRING);
  const pass = async (some: readonly NetworkModel[]): Promise<void> => {
    const { planned } = await kernel.plan(some, new Map(), false);
    await kernel.apply(planned.filter((p) => p.kind === 'program'));
  };
  return { attached, pass };
}

const links = (n: NetworkModel): string[] => n.locals.filter((p) => p.direct !== true).map((p) => hostLink(p.id));

describe('links with programs', () => {
  it('are those of networks with services, in both directions; nothing else is asked for', () => {
    const vlan: NetworkModel = { ...first, index: 9, encap: 'vlan', services: [web] };
    const { model, attachments } = serviceSide([...SERVED, vlan], numbering());
    expect(links(first).length).toBeGreaterThan(0);
    expect(attachments.map((a) => `${a.link} ${a.program}`)).toEqual(
      links(first).flatMap((link) => [`${link} service_out`, `${link} service_in`]),
    );
    expect(model.services).toEqual([{ ...web, index: first.index }]);
    expect(new Set(model.ports.map((p) => p.index))).toEqual(new Set([first.index]));
    expect([model.fdb, model.blocks, model.nets, model.sources]).toEqual([[], [], [], []]);
    expect(serviceLinks(SERVED)).toEqual([...links(first), ...links(second)]);
  });

  it('answer for gateways of IPv6, where a router leads on', () => {
    const gateway = (0xfd00_0001n << 96n) | 1n;
    const routing = { mac: 1n, own: [0xffff_0a80_0001n, gateway], answering: [], subnets: [], routes: [] };
    const { model, attachments } = serviceSide([{ ...first, routing }, second], numbering());
    expect(attachments).toHaveLength(2 * links(first).length);
    expect(model.answered).toEqual([{ index: first.index, address: { family: 6, address: gateway } }]);
    const said = describeMaps(encode(model, ['services', 'ports'])).split('\n');
    expect(said).toContain(`services net ${first.index} fd00:1::1 = virtual in net ${first.index}`);
    expect(said.filter((text) => text.endsWith(' served'))).toHaveLength(links(first).length);
    const only4 = { ...routing, own: [0xffff_0a80_0001n] };
    expect(serviceSide([{ ...first, routing: only4 }], numbering()).attachments).toEqual([]);
  });

  it('lose them with the last service', async () => {
    const { attached, pass } = machine();
    await pass(SERVED);
    expect(attached.size).toBe(2 * links(first).length);
    await pass([first, second]);
    expect(attached.size).toBe(0);
  });
});

describe('hosts that let in who calls a published service', () => {
  const published: NetworkModel = { ...first, published: { entry: 0x025b_0000_0001n, services: [], hosts: [] } };
  const others = (n: NetworkModel, tunnels: Tunnels): string[] =>
    renderNetwork(n, { tunnels, maxMeters: 0 })
      .map(formatFlow)
      .filter((text) => text.includes('dl_dst=02:5b:'));

  it('get the answers of containers here, by their tunnels', () => {
    const hosts = first.remotes.filter((r) => r.hostId !== '');
    expect(hosts.length).toBeGreaterThan(0);
    const flows = others(published, { kind: 'ovs', ports: { vxlan: 91, geneve: 92, gre: 93 } });
    expect(flows).toHaveLength(hosts.length);
    for (const { hostId, vtep } of hosts) {
      const [flow] = flows.filter((text) => text.includes(`dl_dst=${formatMac(entryMac(hostId))}`));
      expect(flow).toContain(vtep);
    }
  });

  it('send nothing else, where they have no endpoint', () => {
    const hosts = [{ hostId: 'far', vtep: '192.0.2.77' }];
    const alone: NetworkModel = { ...first, remotes: [], published: { entry: 1n, services: [], hosts } };
    const flows = renderNetwork(alone, {
      tunnels: { kind: 'ovs', ports: { vxlan: 91, geneve: 92, gre: 93 } },
      maxMeters: 0,
    })
      .map(formatFlow)
      .filter((text) => text.includes('192.0.2.77'));
    const mac = formatMac(entryMac('far'));
    expect(flows).toHaveLength(2);
    expect(flows.filter((text) => text.includes(`tun_src=192.0.2.77`)).map((t) => t.includes(`dl_src=${mac}`))).toEqual(
      [true],
    );
    expect(flows.find((text) => text.includes('table=28'))).toContain(`dl_dst=${mac}`);
  });

  it('are known to eBPF where that carries frames, and to nobody where nothing is published', () => {
    expect(others(published, { kind: 'kernel', port: 90 })).toEqual([]);
    expect(others(first, { kind: 'ovs', ports: { vxlan: 91, geneve: 92, gre: 93 } })).toEqual([]);
  });
});
