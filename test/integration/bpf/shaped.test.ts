import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BpfDriver } from '../../../agent/bpf/driver.ts';
import { encode } from '../../../agent/bpf/encode.ts';
import type { BpfModel, BpfPort } from '../../../agent/bpf/model.ts';
import { planMaps } from '../../../agent/plan/maps.ts';
import { parseIp } from '../../../lib/ip.ts';
import { parseMac } from '../../../lib/mac.ts';
import { counting, driverIn, Mounts, Namespaces, sweepNamespaces } from '../../harness/bpf.ts';
import { v4, vtep } from '../../harness/bpf-pair.ts';
import { arp, ethernet, ipv4, ipv6, udp } from '../../harness/frames.ts';

/** BPF_PROG_TEST_RUN: marks of endpoints with a priority, gates of those with a rate. */

const DROP = 2;
const REDIRECT = 7;
/** The loopback link plays the endpoint's, or the exit of its gate. */
const PORT = 1;
const NET = 3;
const ME = { mac: '02:58:0a:80:00:07', ip: '10.128.0.7', ip6: 'fd00:128::7' };
const TO = '02:aa:00:00:00:01';
const IP = 14;

const port: BpfPort = {
  ifindex: PORT,
  slow: 100,
  index: NET,
  mac: parseMac(ME.mac),
  ip4: parseIp(ME.ip),
  ip6: BigInt(`0x${ipv6(ME.ip6, '::', 0, '').slice(16, 48)}`),
  linkLocal: null,
  express: true,
};
const modelOf = (more: Partial<BpfPort>): BpfModel => ({
  config: {
    tunnelPort: 101,
    ttl: 64,
    dscp: null,
    checksum: false,
    dontFragment: true,
    source4: null,
    source6: null,
    entry: 0n,
  },
  ports: [{ ...port, ...more }],
  nets: [{ index: NET, device: 102, vni: 4097, mtu: 1450 }],
  fdb: [{ index: NET, mac: parseMac(TO), place: { kind: 'remote', ...vtep(v4('192.0.2.2')) }, express: true }],
  blocks: [],
  sources: [],
  lists: [],
  groups: [],
  services: [],
});

const bytes = (hex: string, from: number, to: number): number[] => [...Buffer.from(hex, 'hex').subarray(from, to)];
/** RFC 1071: zero when the header's own checksum is right. */
function sumOf(header: readonly number[]): number {
  let sum = 0;
  for (let i = 0; i < header.length; i += 2) sum += ((header[i] ?? 0) << 8) | (header[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}
/** @param tos of the frame */
function packet(tos: number): string {
  const raw = ipv4(ME.ip, '10.128.0.9').replace(/^45../, `45${tos.toString(16).padStart(2, '0')}`);
  const sum = sumOf(bytes(raw, 0, 20))
    .toString(16)
    .padStart(4, '0');
  return ethernet(TO, ME.mac, 0x0800, raw.slice(0, 20) + sum + raw.slice(24));
}
const packet6 = ethernet(TO, ME.mac, 0x86dd, ipv6(ME.ip6, 'fd00:128::9', 17, udp()).replace(/^6b800000/, '6b9abcde'));

describe('what endpoints with a rate or a priority send', () => {
  const namespaces = new Namespaces();
  let mounts: Mounts;
  let driver: BpfDriver;
  const apply = async (more: Partial<BpfPort>): Promise<void> => {
    const planned = planMaps(encode(modelOf(more)), driver.observe() ?? new Map());
    await driver.apply(planned.map((p) => p.step));
  };

  beforeAll(async () => {
    await sweepNamespaces();
    mounts = await Mounts.make();
    ({ driver } = driverIn(await namespaces.add('shaped'), mounts));
    await driver.start();
  });
  afterAll(async () => {
    await driver?.close();
    await mounts?.[Symbol.asyncDispose]();
    await namespaces[Symbol.asyncDispose]();
  });

  it.each([
    [undefined, 0xb8, 0xb8],
    [34, 0x00, 0x88],
    [34, 0xbb, 0x8b],
    [34, 0x88, 0x88],
    [1, 0xb9, 0x05],
    [0, 0xb9, 0x01],
  ])('DSCP %s of IPv4 with TOS %d: %d, ECN and checksum as they must be', async (dscp, before, after) => {
    for (const express of [true, false]) {
      await apply(dscp === undefined ? { express } : { express, dscp });
      const { action, frame } = await driver.run('from_container', packet(before), PORT);
      expect(action).toBe(REDIRECT);
      expect(bytes(frame, IP, IP + 2)).toEqual([0x45, after]);
      expect(sumOf(bytes(frame, IP, IP + 20))).toBe(0);
      expect(frame).toBe(packet(after));
    }
  });

  it('of IPv6 likewise; the flow label stays', async () => {
    await apply({ dscp: 34 });
    const { frame } = await driver.run('from_container', packet6, PORT);
    // 0xb9 before: EF, ECN 1. Then AF41 with it.
    expect(frame).toBe(packet6.replace('6b9abcde', '689abcde'));
  });

  it('what is no IP is as it was', async () => {
    await apply({ dscp: 34 });
    const question = arp(TO, ME.mac, ME.ip, '10.128.0.9');
    expect((await driver.run('from_container', question, PORT)).frame).toBe(question);
  });

  it('goes into a gate, and on from its exit as if it came from the container', async () => {
    await apply({ gate: { entry: 200, exit: 201 } });
    let seen = await counting(driver);
    expect((await driver.run('to_gate', packet(0), PORT)).action).toBe(REDIRECT);
    expect(await seen()).toEqual({});
    // This link now is the exit of another one's gate.
    await apply({ ifindex: 300, gate: { entry: 200, exit: PORT } });
    seen = await counting(driver);
    expect((await driver.run('from_gate', packet(0), PORT)).action).toBe(REDIRECT);
    expect(await seen()).toEqual({ express_remote: 1 });
    await apply({ ifindex: 300, gate: { entry: 200, exit: PORT }, express: false });
    seen = await counting(driver);
    expect((await driver.run('from_gate', packet(0), PORT)).action).toBe(REDIRECT);
    expect(await seen()).toEqual({ slow: 1 });
  });

  it('goes nowhere by a gate that is not known', async () => {
    await apply({ ifindex: 300 });
    for (const program of ['to_gate', 'from_gate'] as const) {
      const seen = await counting(driver);
      expect((await driver.run(program, packet(0), PORT)).action).toBe(DROP);
      expect(await seen()).toEqual({ unknown_port: 1 });
    }
  });
});
