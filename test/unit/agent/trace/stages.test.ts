/** Recorded ways through the bridge (data/) in plain words, and which rule of a policy a flow is. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import type { PortMatch, RuleModel } from '../../../../agent/flows/policy-model.ts';
import type { NamedRule } from '../../../../agent/policies/resolve.ts';
import { type MetFlow, parseTrace } from '../../../../agent/trace/ofproto.ts';
import { changedBy, checked, difference, flowText, packetText } from '../../../../agent/trace/packet.ts';
import { ruleOf } from '../../../../agent/trace/rules.ts';
import { bridgeHops, outOf, type Words } from '../../../../agent/trace/stages.ts';
import { Policy, TracePacket } from '../../../../gen/weft/v1/types.ts';
import { cidrOf, parseCidr, parseIp } from '../../../../lib/addr.ts';

const packet = (more: Partial<TracePacket> = {}): TracePacket =>
  TracePacket.fromPartial({
    sourceMac: '02:58:0a:80:10:02',
    destinationMac: '02:58:0a:80:10:20',
    sourceIp: '10.128.16.2',
    destinationIp: '10.128.16.32',
    protocol: 6,
    sourcePort: 40_000,
    destinationPort: 9042,
    ttl: 64,
    ...more,
  });

const named = (rule: number, model: Partial<RuleModel>): NamedRule => ({
  policy: Policy.fromPartial({ name: 'db', tier: 'application', order: 100 }),
  rule,
  model: {
    id: rule,
    direction: 'ingress',
    priority: 0,
    action: 'allow',
    subjects: null,
    peers: null,
    ports: null,
    ...model,
  },
});
/** As they were when the data were recorded. */
const RULES = [
  named(1, { id: 3975589980, priority: 36098, subjects: [4] }),
  named(2, { priority: 36096, action: 'reject', subjects: [4] }),
];
const words: Words = {
  host: 'h1',
  port: (n) => (n === 1 ? 'the tunnels' : `e${n}`),
  network: (n) => `net${n}`,
  policing: () => ({ rules: RULES, shut: false, pending: [] }),
  mac: () => '02:58:0a:80:00:02',
  translates: true,
  service: () => null,
};
const toldBy =
  (version: string) =>
  (name: string, inPort: number, p: TracePacket): { what: string[]; reason: string } => {
    const text = readFileSync(new URL(`data/ovs-${version}-${name}.txt`, import.meta.url), 'utf8');
    const { hops, reason } = bridgeHops(parseTrace(text, 'br-weft').sections, { inPort, packet: p }, words);
    return { what: hops.map((h) => `${h.table} ${h.what}`), reason };
  };

describe.each(['3.1', '3.5'])('ways through Open vSwitch %s in words', (version) => {
  const told = toldBy(version);

  it('to a port here', () =>
    expect(told('local', 3, packet({ sourceIp: '10.128.0.2', destinationMac: '02:58:0a:80:00:03' })).what).toEqual([
      '0 from e3: network net1',
      '4 e3 may send from 10.128.0.2 and 02:58:0a:80:10:02',
      '28 02:58:0a:80:00:03 is e4’s',
      '44 out to e4',
    ]));

  it('allowed by a rule, and committed', () =>
    expect(told('policy-dst', 1, packet()).what).toEqual([
      '0 from the tunnels: network net2',
      '12 connections of network net2 are tracked',
      '28 02:58:0a:80:10:20 is e4’s',
      '32 ingress of e4: allow, policy db, ingress rule 1 (application, order 100)',
      '36 the connection is remembered as allowed',
      '44 out to e4',
    ]));

  it('rejected by one', () => {
    const { what, reason } = told('policy-local', 5, packet());
    expect(reason).toBe('policy db, ingress rule 2 of network net2');
    expect(what.at(-1)).toBe('32 ingress of e4: reject, policy db, ingress rule 2 (application, order 100)');
  });

  it.each([
    ['vault', packet(), 'no rule is about it: the default of network net3'],
    [
      'spoof',
      packet({ sourceMac: '02:58:0a:80:00:02', sourceIp: '10.9.9.9' }),
      'port security: 10.9.9.9 is not an address of e3',
    ],
    ['spoof', packet({ sourceMac: '02:00:00:00:00:09' }), 'port security: 02:00:00:00:00:09 is not the MAC of e3'],
    ['nobody', packet(), 'no endpoint of network net1 that h1 knows has 10.128.16.32 (02:58:0a:80:10:20)'],
  ])('dropped: %s', (name, p, reason) => expect(told(name, 3, p).reason).toBe(reason));

  it('to the host, translated', () =>
    expect(told('out', 3, packet()).what.slice(2)).toEqual([
      '28 02:58:0a:80:10:20 is the gateway of net1',
      '24 to h1 itself, source becomes 169.254.67.72',
      '44 out to e2',
    ]));
});

describe('a flow that moves fields', () => {
  const trace = (...lines: string[]): string =>
    ['bridge("br-weft")', '-----------------', ...lines, '', 'Final flow: unchanged'].join('\n');

  it('the frame is another network’s, and to another MAC, from there on', () => {
    const text = trace(
      '25. ip,reg0=0x1,nw_dst=10.2.0.0/24, priority 124, cookie 0x5765667419000001',
      '    dec_ttl',
      '    set_field:02:5c:00:00:00:01->eth_src',
      '    set_field:0x2->reg0',
      '    goto_table:26',
      '26. ip,reg0=0x2, priority 1, cookie 0x576566741a000002',
      '    set_field:02:58:00:00:00:00->eth_dst',
      '    move:NXM_OF_IP_DST[]->NXM_OF_ETH_DST[0..31]',
      '     -> NXM_OF_ETH_DST[0..31] is now 0xa020003',
      '    resubmit(,28)',
      '28. priority 0, cookie 0x576566741c000000',
      '    drop',
    );
    const p = packet({ destinationIp: '10.2.0.3', destinationMac: '02:57:65:66:74:01' });
    const { hops, reason } = bridgeHops(parseTrace(text, 'br-weft').sections, { inPort: 3, packet: p }, words);
    expect(hops[0]).toMatchObject({ table: 25, what: 'routed into network net2' });
    expect(reason).toBe('no endpoint of network net2 that h1 knows has 10.2.0.3 (02:58:0a:02:00:03)');
  });

  it('a register that is moved into counts too', () => {
    const [section] = parseTrace(
      trace(
        '30. priority 1, cookie 0x576566741e000001',
        '    move:NXM_NX_REG4[]->NXM_NX_REG2[]',
        '     -> NXM_NX_REG2[] is now 0x7',
      ),
      'br-weft',
    ).sections;
    expect(outOf(section!.flows[0]!)).toBe(7);
  });
});

describe('the rule of a flow', () => {
  const flow = (match: string, priority = 36098): MetFlow => ({
    table: 32,
    match,
    priority,
    cookie: 0n,
    actions: [],
    effects: [],
    called: false,
  });
  const find = (rules: NamedRule[], f: MetFlow, p = packet()): number | null =>
    ruleOf(rules, 'ingress', f, p, 4)?.rule ?? null;
  const at = (rule: number, model: Partial<RuleModel>): NamedRule => named(rule, { priority: 36098, ...model });

  it('by the number of its conjunction', () => {
    expect(find(RULES, flow('conj_id=3975589980,reg0=0x2'))).toBe(1);
    expect(find(RULES, flow('conj_id=5,reg0=0x2'))).toBeNull();
  });

  it('else by its one dimension: of rules that share the flow the first', () => {
    const [host, net] = [cidrOf(parseIp('10.128.16.2'), 128), parseCidr('10.128.16.0/24')];
    const rules = [
      at(1, { subjects: [9] }),
      at(2, { peers: [parseCidr('10.9.0.0/16')] }),
      at(3, { peers: [host] }),
      at(4, { peers: [net] }),
    ];
    expect(find(rules, flow('ip,reg0=0x2,nw_src=10.128.16.2'))).toBe(3);
    expect(find([at(1, { direction: 'egress' }), at(2, {})], flow('reg0=0x2'))).toBe(2);
    expect(find([at(1, {})], flow('reg0=0x2', 36099))).toBeNull();
  });

  it.each<[PortMatch, Partial<TracePacket>, boolean]>([
    [{ protocol: 'tcp', first: 0, last: 0 }, {}, true],
    [{ protocol: 'tcp', first: 9000, last: 9042 }, {}, true],
    [{ protocol: 'tcp', first: 9043, last: 9100 }, {}, false],
    [{ protocol: 'udp', first: 0, last: 0 }, {}, false],
    [{ protocol: 'icmp', type: null, code: null }, {}, false],
    [{ protocol: 'icmp', type: 8, code: null }, { protocol: 1, icmpType: 8 }, true],
    [{ protocol: 'icmp', type: 8, code: 1 }, { protocol: 1, icmpType: 8 }, false],
  ])('%j of %j: %s', (port, p, is) =>
    expect(find([at(1, { ports: [port] })], flow('tcp,reg0=0x2'), packet(p))).toBe(is ? 1 : null),
  );
});

describe('a packet as Open vSwitch takes it', () => {
  it.each<[Partial<TracePacket>, Parameters<typeof flowText>[1], string]>([
    [
      {},
      { inPort: 3 },
      'in_port=3,dl_src=02:58:0a:80:10:02,dl_dst=02:58:0a:80:10:20,tcp,nw_src=10.128.16.2,nw_dst=10.128.16.32,nw_ttl=64,tcp_src=40000,tcp_dst=9042,tcp_flags=2',
    ],
    [
      { established: true },
      { inPort: 1, vlan: 2 },
      'in_port=1,dl_vlan=2,dl_src=02:58:0a:80:10:02,dl_dst=02:58:0a:80:10:20,tcp,nw_src=10.128.16.2,nw_dst=10.128.16.32,nw_ttl=64,tcp_src=40000,tcp_dst=9042,tcp_flags=16',
    ],
    [
      { protocol: 58, icmpType: 128, sourceIp: 'fd00::2', destinationIp: 'fd00::3' },
      { inPort: 1, tunnel: { key: 7, from: '192.0.2.2', to: '192.0.2.1' } },
      'in_port=1,tun_id=7,tun_src=192.0.2.2,tun_dst=192.0.2.1,dl_src=02:58:0a:80:10:02,dl_dst=02:58:0a:80:10:20,icmp6,ipv6_src=fd00::2,ipv6_dst=fd00::3,nw_ttl=64,icmpv6_type=128,icmpv6_code=0',
    ],
  ])('%j', (more, entry, text) => expect(flowText(packet(more), entry)).toBe(text));

  it.each<Partial<TracePacket>>([
    { destinationIp: '' },
    { destinationIp: '10.1.0.2,actions=drop' },
    { sourceIp: '-batch' },
    { sourceMac: '02:00:00:00:00:01,in_port=1' },
    { destinationPort: 70_000 },
  ])('not with %j', (more) =>
    expect(() => checked(packet(more))).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' })),
  );

  it('and as a final flow changes it', () => {
    const after = changedBy(
      packet(),
      new Map([
        ['nw_dst', '10.0.0.9'],
        ['tp_dst', '80'],
        ['dl_dst', '02:00:00:00:00:01'],
      ]),
    );
    expect(after).toMatchObject({
      destinationIp: '10.0.0.9',
      destinationPort: 80,
      destinationMac: '02:00:00:00:00:01',
    });
    expect(difference(packet(), after)).toBe('destination 10.128.16.32:9042 becomes 10.0.0.9:80');
    expect(packetText(after)).toBe('tcp 10.128.16.2:40000 → 10.0.0.9:80');
    expect(changedBy(packet(), new Map())).toEqual(packet());
  });
});
