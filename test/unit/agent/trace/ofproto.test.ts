/** Output of ofproto/trace, as Open vSwitch has printed it (data/), read. */
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { fieldOf, finalFields, lastSet, parseTrace, type Traced } from '../../../../agent/trace/ofproto.ts';

const data = (name: string): string => readFileSync(new URL(`data/${name}.txt`, import.meta.url), 'utf8');
const readFile = (name: string): Traced => parseTrace(data(name), 'br-weft');
const tables = (t: Traced): number[] => t.sections.flatMap((s) => s.flows.map((f) => f.table));
const outputs = (t: Traced): (number | 'in_port')[] => t.sections.flatMap((s) => s.outputs);

describe.each(['3.1', '3.5'])('what ofproto/trace of Open vSwitch %s says', (version) => {
  const read = (name: string): Traced => readFile(`ovs-${version}-${name}`);

  it('to a port here', () => {
    const t = read('local');
    expect(tables(t)).toEqual([0, 4, 28, 44]);
    expect(outputs(t)).toEqual([4]);
    const [first] = t.sections[0]!.flows;
    expect(first).toMatchObject({ match: 'in_port=3', priority: 400, cookie: 0x5765667400000001n, called: false });
    expect(first!.actions).toEqual(['set_field:0x1->reg0', 'set_field:0x1->reg1', 'goto_table:4']);
    expect(finalFields(t.sections).get('dl_dst')).toBe('02:58:0a:80:00:03');
  });

  it('to another host: the tag is in the final flow', () => {
    const t = read('remote');
    expect(outputs(t)).toEqual([1]);
    expect(finalFields(t.sections).get('dl_vlan')).toBe('1');
  });

  it.each(['spoof', 'nobody', 'vault'])('nowhere: %s', (name) => expect(outputs(read(name))).toEqual([]));

  it('what is dropped is so by the last flow', () => {
    expect(tables(read('spoof'))).toEqual([0, 4]);
    expect(tables(read('nobody'))).toEqual([0, 4, 28]);
  });

  it('back to where it came from: ARP and ping', () => {
    const arp = read('arp');
    expect(outputs(arp)).toEqual(['in_port']);
    expect(finalFields(arp.sections).get('arp_sha')).toBe('02:58:0a:80:00:20');
    expect(outputs(read('ping-gw'))).toEqual(['in_port']);
    expect(outputs(read('arp-own-nobody'))).toEqual([]);
  });

  it('after conntrack a section of its own begins', () => {
    const t = read('policy-dst');
    expect(t.sections.map((s) => s.state)).toEqual([null, 'new|trk']);
    expect(tables(t)).toEqual([0, 12, 28, 32, 36, 44]);
    expect(outputs(t)).toEqual([4]);
    const judge = t.sections[1]!.flows.find((f) => f.table === 32)!;
    expect(fieldOf(judge.match, 'conj_id')).toBe('3975589980');
    expect(judge.priority).toBe(36098);
  });

  it('what a called flow’s caller does after it is the caller’s', () => {
    const [, second] = read('policy-src').sections;
    const l2 = second!.flows.find((f) => f.table === 28)!;
    const commit = second!.flows.find((f) => f.table === 36)!;
    expect(l2.actions).toEqual([
      'resubmit(,36)',
      'push_vlan:0x88a8',
      'set_field:4098->vlan_vid',
      'set_field:0x1->reg2',
      'goto_table:44',
    ]);
    expect(commit).toMatchObject({ called: true, actions: ['ct(commit,zone=NXM_NX_REG0[0..15])', 'drop'] });
  });

  it('what goes to the agent', () => {
    const t = read('policy-local');
    expect(t.sections.flatMap((s) => s.punts)).toEqual([expect.stringMatching(/^controller\(userdata=02[,)]/)]);
    expect(outputs(t)).toEqual([]);
  });
});

describe('besides', () => {
  it('flows of another bridge, which a tunnel in user space passes too, are not read', () => {
    const t = readFile('ovs-3.1-native-tunnel');
    expect(tables(t)).toEqual([0, 4, 28, 44]);
    expect(outputs(t)).toEqual([1]);
    expect(lastSet(t.sections, 'tun_dst')).toBe('192.0.2.2');
    expect(Number(lastSet(t.sections, 'tun_id'))).toBe(4096);
  });

  it('a table without a flow, cookies left out, remarks of later versions', () => {
    const t = readFile('ovs-other-versions');
    const [first, second, third] = t.sections[0]!.flows;
    expect(first).toMatchObject({ table: 0, match: 'in_port=2', priority: 400, cookie: 0n });
    expect(second).toMatchObject({ table: 8, match: 'conj_id=7,reg0=0x1', priority: 36098 });
    expect(third).toMatchObject({ table: 9, match: null });
    expect(outputs(t)).toEqual([]);
  });

  it.each(['', 'nonsense\n  of all kinds\n', 'Flow: x\n\nbridge("br-weft")\n'])('nothing is read from %j', (text) => {
    const t = parseTrace(text, 'br-weft');
    expect(tables(t)).toEqual([]);
    expect(outputs(t)).toEqual([]);
  });
});
