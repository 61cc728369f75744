import { expect, test } from 'vitest';
import { REG, TABLE } from '../../../../agent/flows/pipeline.ts';
import type { RuleModel } from '../../../../agent/flows/policy-model.ts';
import { renderStaged } from '../../../../agent/flows/staged.ts';
import type { FieldName } from '../../../../agent/openflow/flow.ts';
import type { PacketHandler } from '../../../../agent/openflow/packets.ts';
import { endsOf, StagedCounts, tellStaged } from '../../../../agent/policies/staged.ts';
import type { Event } from '../../../../gen/weft/v1/types.ts';
import { silentLog } from '../../../../lib/log.ts';

const rule = (id: number, policy: string, action: RuleModel['action'] = 'drop'): RuleModel => ({
  id,
  direction: 'ingress',
  priority: 100,
  action,
  subjects: null,
  peers: null,
  ports: null,
  staged: { policy, rule: 2 },
});
const network = (...rules: RuleModel[]) => ({
  index: 7,
  policies: { shut: false, pending: [], open: true, staged: rules.length > 0, rules },
});
const named = { nameOf: (index: number) => `net${index}` };

test('counts go on where flows begin anew, and go with their rule', async () => {
  let rules = [rule(5, 'db'), rule(6, 'web', 'allow')];
  let packets: Record<number, readonly [bigint, bigint]> = { 5: [3n, 1n] };
  let asked = 0;
  const counts = new StagedCounts({
    ...named,
    networks: () => [network(...rules)],
    read: async () => {
      asked++;
      return renderStaged({ index: 7 }, rules, 0).map((flow, i) => ({
        ...flow,
        packets: packets[rules[i >> 1]!.id]?.[i % 2] ?? 0n,
        bytes: 0n,
      }));
    },
  });
  const read = async () => (await counts.read()).map((c) => [c.network, c.policy, c.rule, c.direction, c.packets]);
  expect(await read()).toEqual([
    ['net7', 'db', 2, 'ingress', 4],
    ['net7', 'web', 2, 'ingress', 0],
  ]);
  packets = { 5: [4n, 0n], 6: [0n, 2n] };
  expect((await counts.read()).map((c) => c.packets)).toEqual([5, 2]);
  rules = [rule(6, 'web', 'allow')];
  expect((await counts.read()).map((c) => [c.policy, c.packets])).toEqual([['web', 2]]);
  rules = [];
  expect(await counts.read()).toEqual([]);
  expect(asked).toBe(3);
});

const TCP4 = Buffer.from(
  '02580a800002' +
    '02580a800003' +
    '0800' +
    '45000028000040004006000001020304050607089c40235200000000000000005002000000000000',
  'hex',
);

function told(clock: { at: number }) {
  const events: Event[] = [];
  let handler: PacketHandler = () => undefined;
  tellStaged(
    {
      on: (_, one) => {
        handler = one;
        return () => true;
      },
    },
    {
      ...named,
      networks: () => [network(rule(5, 'db'))],
      host: 'h1',
      event: (event) => events.push(event),
      clock: { now: () => 0, monotonic: () => clock.at } as never,
      log: silentLog(),
    },
  );
  const punt = (data = TCP4, id = 5n): void => {
    const fields = new Map<FieldName, bigint>([
      [REG.network, 7n],
      [REG.staged, id],
      [REG.verdict, 3n],
    ]);
    void handler({
      table: TABLE.staged,
      cookie: 0n,
      reason: 1,
      data,
      fullLength: data.length,
      fields,
      userdata: Buffer.alloc(0),
    });
  };
  return { events, punt };
}

test('a connection is told of once in a while, with its ends, and what is in force', () => {
  const clock = { at: 0 };
  const { events, punt } = told(clock);
  punt();
  punt();
  const other = Buffer.from(TCP4);
  other.writeUInt16BE(40_001, 34); // another attempt, of another port
  punt(other);
  expect(events.map((e) => [e.type, e.action, e.host, e.object, e.message])).toEqual([
    [
      'policy',
      'staged',
      'h1',
      'net7/db',
      'ingress rule 2 would drop tcp 1.2.3.4:40000 → 5.6.7.8:9042; in force: allow',
    ],
  ]);
  clock.at = 60_000;
  punt();
  expect(events).toHaveLength(2);
});

test('nobody is told of what is gone, or cannot be read', () => {
  const { events, punt } = told({ at: 0 });
  punt(TCP4, 9n);
  for (let length = 0; length < 34; length++) punt(TCP4.subarray(0, length));
  expect(events).toEqual([]);
});

test('ends of both families, with and without ports', () => {
  const ping = Buffer.from(TCP4);
  ping[23] = 1;
  ping[34] = 8;
  ping[35] = 0;
  expect(endsOf(ping)?.text).toBe('icmp/8/0 1.2.3.4 → 5.6.7.8');
  ping[23] = 47;
  expect(endsOf(ping)?.text).toBe('protocol 47 1.2.3.4 → 5.6.7.8');
  const udp6 = Buffer.concat([
    Buffer.alloc(12),
    Buffer.from('86dd', 'hex'),
    Buffer.alloc(40),
    Buffer.from('03e80035', 'hex'),
  ]);
  udp6[14] = 0x60;
  udp6[20] = 17;
  udp6[22] = 0xfd;
  udp6[38] = 0xfd;
  udp6[53] = 1;
  expect(endsOf(udp6)?.text).toBe('udp [fd00::]:1000 → [fd00::1]:53');
});
