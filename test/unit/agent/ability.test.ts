import { expect, test } from 'vitest';
import { uplinkProbes, uplinksOf } from '../../../agent/ability.ts';

const link = (name: string, more: object = {}) => ({ name, mtu: 1500, kind: '', master: '', addresses: [], ...more });

test('interfaces that a vlan network could have, with their MTU; of others why not', () => {
  const host = {
    interfaces: [
      link('eth1', { mtu: 9000 }),
      link('eth0', { addresses: [{ address: '192.0.2.1', prefix: 24 }] }),
      link('docker0', { kind: 'bridge' }),
      link('veth1', { kind: 'veth', master: 'docker0' }),
      link('eth2', { master: 'ovs-system' }),
      link('eth3'),
    ],
    bridgeOf: (name: string) => ({ eth2: 'br-weft', eth3: 'br-ex' })[name] ?? null,
    ourBridge: 'br-weft',
  };
  expect(uplinksOf(host)).toEqual(['eth1', 'eth2']);
  expect(uplinkProbes(host)).toEqual([
    { name: 'uplink/eth0', result: 'no', reason: expect.stringContaining('has the address 192.0.2.1') },
    { name: 'uplink/eth1', result: '9000', reason: '' },
    { name: 'uplink/eth2', result: '1500', reason: '' },
    { name: 'uplink/eth3', result: 'no', reason: 'its interface eth3 is in bridge br-ex' },
  ]);
});
