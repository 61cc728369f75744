/** Random meshes: what is exported is what is there, and an empty mesh becomes the same by it. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { exported, exportYaml } from '../../cli/apply/export.ts';
import type { Actual, Call } from '../../cli/apply/model.ts';
import {
  Endpoint,
  EndpointSettings,
  Network,
  Policy,
  type PolicyPeer,
  type PolicyPort,
  Reservation,
  Router,
  Service,
} from '../../gen/weft/v1/types.ts';
import { formatIp, parseIp } from '../../lib/addr.ts';
import { times } from '../harness/lab.ts';
import { messages, NOTHING, planned } from '../unit/cli/apply/mesh.ts';

/** Texts that YAML could take for something else. */
const text = fc.oneof(
  fc.string({ maxLength: 12, unit: 'grapheme' }),
  fc.constantFrom(
    '1.10',
    'yes',
    'null',
    '~',
    '0x1f',
    '1e3',
    ' a ',
    'a: b',
    '- x',
    '# y',
    "it's",
    '"',
    '{',
    '*a',
    '&a',
    '!x',
    'a\nb',
    '',
  ),
);
const labels = fc.dictionary(
  text.filter((key) => key !== '' && !key.includes('=')),
  text,
  { maxKeys: 3 },
);
const rate = fc.option(
  fc.record({ bits: fc.constantFrom(8_000n, 1_500_000n, 1_000_000_001n), burst: fc.constantFrom(0n, 1_600n, 4_096n) }),
  { nil: undefined },
);
const name = fc.constantFrom('a', 'b', 'c', 'on', '1', 'x-y');
const some = <T>(one: fc.Arbitrary<T>, key: (value: T) => unknown, maxLength = 3) =>
  fc.uniqueArray(one, { maxLength, selector: key });

const NETWORKS = ['n0', 'n1', 'n2', 'n3'];
const networks = fc.tuple(
  ...NETWORKS.map((of, i) =>
    fc
      .record({
        six: fc.constantFrom('4', '6', '46'),
        encap: fc.constantFrom('vxlan', 'geneve', 'gre'),
        mtu: fc.integer({ min: 1280, max: 9000 }),
        range: fc.boolean(),
        gateway: fc.boolean(),
        internal: fc.boolean(),
        allowTrust: fc.boolean(),
        dnsOrder: fc.constantFrom('', 'nearest'),
        policyDefault: fc.constantFrom('', 'drop'),
        labels,
        rate,
        egress: fc.boolean(),
      })
      .map(({ six, range, gateway, egress, ...more }) => {
        const [four, long] = [`10.${i}.0.0/16`, `fd00:${i + 1}::/64`];
        const subnets = [...(six === '6' ? [] : [four]), ...(six === '4' ? [] : [long])];
        const gateways = subnets.map((cidr) => formatIp(parseIp(cidr.split('/')[0]!) + (gateway ? 9n : 1n)));
        return Network.fromPartial({
          ...more,
          id: `id-${of}`,
          name: of,
          space: 'default',
          vni: 5000 + i,
          subnets,
          gateways,
          ipRange: range && six !== '6' ? `10.${i}.4.0/24` : '',
          ipv6: six !== '4',
          egressIps: egress && !more.internal ? ['192.0.2.1'] : [],
        });
      }),
  ),
);

const peer = (of: string): fc.Arbitrary<PolicyPeer> =>
  fc.oneof(
    fc
      .record({
        networkId: fc.constantFrom('', ...NETWORKS.map((n) => `id-${n}`).filter((id) => id !== `id-${of}`)),
        labels,
      })
      .filter((value) => value.networkId !== '' || Object.keys(value.labels).length > 0)
      .map((value): PolicyPeer => ({ who: { $case: 'endpoints', value } })),
    fc.constantFrom([], ['10.1.0.0/16']).map(
      (except): PolicyPeer => ({
        who: { $case: 'addresses', value: { cidr: '10.0.0.0/8', except: [...except] } },
      }),
    ),
  );
/** Where something is sent to. */
const named: fc.Arbitrary<PolicyPeer> = fc
  .constantFrom('db.example.org', '*.example.org')
  .map((value): PolicyPeer => ({ who: { $case: 'name', value } }));
const port: fc.Arbitrary<PolicyPort> = fc.constantFrom(
  { protocol: 'tcp', first: 80, last: 90 },
  { protocol: 'udp', first: 53, last: 53 },
  { protocol: 'sctp', first: 0, last: 0 },
  { protocol: 'icmp', first: 0, last: 0, icmpType: 3, icmpCode: 1 },
);
const rules = (of: string, out = false) =>
  fc.array(
    fc.record({
      action: fc.constantFrom('allow', 'drop', 'reject'),
      peers: fc.array(out ? fc.oneof(peer(of), named) : peer(of), { maxLength: 2 }),
      ports: fc.array(port, { maxLength: 2 }),
    }),
    { minLength: 1, maxLength: 2 },
  );
const policies = fc.tuple(
  ...NETWORKS.map((of) =>
    some(
      fc
        .record({
          name,
          tier: fc.constantFrom('platform', 'application', 'baseline'),
          order: fc.integer({ min: 0, max: 499 }),
          selector: labels,
          ingress: rules(of),
          egress: rules(of, true),
          staged: fc.boolean(),
          labels,
        })
        .map((p) => Policy.fromPartial({ ...p, networkId: `id-${of}` } as object)),
      (p) => p.name,
    ),
  ),
);

/** The nth address of a network. */
const address = (n: Network, at: number): string[] =>
  n.subnets.map((cidr) => formatIp(parseIp(cidr.split('/')[0]!) + BigInt(256 + at)));

const services = fc.tuple(
  ...NETWORKS.map((of, i) =>
    some(
      fc.record({
        name,
        headless: fc.boolean(),
        protocol: fc.constantFrom('tcp', 'udp'),
        portName: fc.constantFrom('', 'http'),
        target: fc.integer({ min: 1, max: 65_535 }),
        selector: labels.filter((l) => Object.keys(l).length > 0),
        health: fc.option(
          fc.record({
            type: fc.constantFrom('tcp', 'http'),
            port: fc.constantFrom(80, 8080),
            intervalMs: fc.constantFrom(300, 1000, 5000),
            timeoutMs: fc.constantFrom(100, 300, 500),
            rise: fc.integer({ min: 1, max: 10 }),
            fall: fc.integer({ min: 1, max: 10 }),
          }),
          { nil: undefined },
        ),
        affinityS: fc.constantFrom(0, 60),
        localFirst: fc.boolean(),
        publish: fc.constantFrom('', 'all', 'local'),
        labels,
      }),
      (s) => s.name,
    ).map((list) =>
      list.map(({ protocol, portName, target, publish, health, ...s }, at) => {
        const ways = s.headless ? '' : publish;
        const hostPort = ways === '' ? 0 : 1000 + 10 * i + at;
        return Service.fromPartial({
          ...s,
          networkId: `id-${of}`,
          affinityS: s.headless ? 0 : s.affinityS,
          publish: ways,
          ports: [{ name: portName, protocol, port: 80, targetPort: target, hostPort }],
          ...(health === undefined ? {} : { health: { ...health, path: health.type === 'http' ? '/x%20y?z=1' : '' } }),
        } as object);
      }),
    ),
  ),
);

const meshes = fc
  .record({
    networks,
    policies,
    services,
    reserved: fc.array(fc.record({ labels, mac: fc.constantFrom('', '02:00:00:00:00:1') }), { maxLength: 3 }),
    routed: fc.uniqueArray(fc.constantFrom(...NETWORKS), { minLength: 2, maxLength: 4 }),
    routes: fc.constantFrom([], [{ cidr: '172.16.0.0/12', via: ['10.0.0.7', '10.0.0.8'] }]),
    set: fc.record({ draining: fc.boolean(), rate, priority: fc.constantFrom('high', 'low', undefined) }),
  })
  .map(({ networks: all, policies: rulesOf, services: offered, reserved, routed, routes, set }): Actual => {
    const served = offered.flatMap((list, i) =>
      list.map((s, at) => (s.headless ? s : { ...s, ips: address(all[i]!, at) })),
    );
    const endpoint = Endpoint.fromPartial({
      id: 'e'.repeat(64),
      networkId: 'id-n0',
      hostId: 'hosth1',
      ips: ['10.0.9.9'],
    });
    return {
      ...NOTHING,
      networks: all,
      policies: rulesOf.flat(),
      services: served,
      reservations: reserved.map(({ mac, ...r }, at) =>
        Reservation.fromPartial({
          ...r,
          name: `r${at}`,
          networkId: 'id-n1',
          mac: mac && mac + at,
          ips: address(all[1]!, 100 + at),
        } as object),
      ),
      routers: [
        Router.fromPartial({
          name: 'core',
          networkIds: routed.map((one) => `id-${one}`),
          labels: {},
          routes: routes.map(({ cidr, via }) => ({ cidr, via: [...via] })),
        }),
      ],
      endpoints: [endpoint],
      settings: {
        [endpoint.id]: EndpointSettings.fromPartial({
          ...set,
          endpointId: endpoint.id,
          networkId: 'id-n0',
          allowed: [{ ip: '10.0.9.8', mac: '' }],
        }),
      },
    };
  });

/** What a coordinator would have after these calls. */
function done(calls: readonly Call[], before: Actual): Actual {
  const idOf = (network: string): string => `id-${network}`;
  const after = structuredClone(before) as {
    -readonly [K in keyof Actual]: Actual[K] extends readonly (infer T)[] ? T[] : Actual[K];
  };
  for (const call of calls) {
    if (call.method === 'createNetwork') {
      const { request: r } = call;
      const gateways =
        r.gateways.length > 0 ? r.gateways : r.subnets.map((cidr) => formatIp(parseIp(cidr.split('/')[0]!) + 1n));
      const ipv6 = r.subnets.some((cidr) => cidr.includes(':'));
      const more = { id: idOf(r.name), space: r.space || 'default', encap: r.encap || 'vxlan', gateways, ipv6 };
      after.networks.push(Network.fromPartial({ ...r, ...more } as object));
    } else if (call.method === 'updateNetwork') {
      const { fields, values } = call.request;
      const at = after.networks.findIndex((n) => n.name === call.request.network);
      const changed = Object.fromEntries(fields.map((field) => [field, values?.[field as keyof Network]]));
      after.networks[at] = { ...after.networks[at]!, ...changed };
    } else if (call.method === 'createReservation')
      after.reservations.push({ ...call.request.reservation!, networkId: idOf(call.request.network) });
    else if (call.method === 'createRouter')
      after.routers.push({ ...call.request.router!, networkIds: call.request.router!.networkIds.map(idOf) });
    else if (call.method === 'createService')
      after.services.push({ ...call.request.service!, networkId: idOf(call.request.network) });
    else if (call.method === 'applyPolicies')
      for (const { network, policy } of call.request.policies) {
        const own = structuredClone(policy!);
        for (const { who } of [...own.ingress, ...own.egress].flatMap(({ peers }) => peers))
          if (who?.$case === 'endpoints' && who.value.networkId !== '') who.value.networkId = idOf(who.value.networkId);
        after.policies.push({ ...own, networkId: idOf(network) });
      }
    else throw new Error(call.method);
  }
  return after;
}

test('what is exported is what is there, and makes an empty mesh the same', { timeout: 120_000 }, () => {
  fc.assert(
    fc.property(meshes, (mesh) => {
      const yaml = exportYaml(exported(mesh, null).document);
      const same = planned(yaml, mesh, true);
      expect(messages(same.problems)).toEqual([]);
      expect(same.changes).toEqual([]);
      const fresh = planned(yaml);
      expect(messages(fresh.problems)).toEqual([]);
      const made = done(
        fresh.changes.flatMap(({ calls }) => calls),
        NOTHING,
      );
      const again = exportYaml(
        exported({ ...made, endpoints: mesh.endpoints, settings: mesh.settings }, null).document,
      );
      expect(again).toBe(yaml);
    }),
    { numRuns: times(2000, 200) },
  );
});
