import { expect, test } from 'vitest';
import { levelsOf } from '../../../lib/policy-order.ts';
import { parsePort, portText } from '../../../lib/policy-port.ts';

test('ports as text, and back', () => {
  for (const text of ['1/tcp', '65535/udp', '8000-8100/tcp', '7/sctp', 'tcp', 'udp', 'icmp', 'icmp/8', 'icmp/0/255'])
    expect(portText(parsePort(text)!)).toBe(text);
  expect(portText(parsePort('80-80/tcp')!)).toBe('80/tcp');
  expect(parsePort('icmp/3/4')).toEqual({ protocol: 'icmp', first: 0, last: 0, icmpType: 3, icmpCode: 4 });
  expect(parsePort('tcp')).toEqual({ protocol: 'tcp', first: 0, last: 0, icmpType: undefined, icmpCode: undefined });
  const bad = ['', '80', '0/tcp', '65536/tcp', '90-80/tcp', '0-80/tcp', '80-0/tcp', '80/icmp', '80/TCP', 'icmp/256'];
  bad.push('icmp/8/256', 'icmp/', 'icmp/8/', 'gre', '80/tcp ', '-80/tcp', '80-/tcp', '1.5/tcp', '80/tcp/udp');
  for (const text of bad) expect(parsePort(text), text).toBe(null);
});

test('a level is the number of changes of action before it', () => {
  const levels = (...actions: string[]) => levelsOf(actions.map((action) => ({ action })));
  expect(levels()).toEqual([]);
  expect(levels('allow', 'allow', 'drop', 'reject', 'reject', 'allow')).toEqual([0, 0, 1, 2, 2, 3]);
});
