import { describe, expect, it } from 'vitest';
import { checkEdit, MAX_EGRESS_IPS } from '../../../coordinator/alloc/edits.ts';
import type { Network } from '../../../lib/model.ts';
import { aNetworkRecord } from './samples.ts';

const network = aNetworkRecord('n1', { subnets: ['10.7.0.0/24'], gateways: ['10.7.0.1'] });
const edit = (egressIps: string[], of: Network = network) => checkEdit(of, ['egressIps'], { ...of, egressIps });

describe('egress addresses of a network', () => {
  it('are canonical, each once; none takes them away', () => {
    const dual = { ...network, subnets: ['10.7.0.0/24', 'fd00::/64'], gateways: ['10.7.0.1', 'fd00::1'] };
    expect(edit(['192.0.2.1', '2001:DB8::0:1', '192.0.2.1'], dual)).toEqual({
      egressIps: ['192.0.2.1', '2001:db8::1'],
    });
    expect(edit([])).toEqual({ egressIps: [] });
  });

  it.each([
    [['eth0'], 'is no address'],
    [['127.0.0.1'], 'no host’s address'],
    [['169.254.1.1'], 'no host’s address'],
    [['255.255.255.255'], 'no host’s address'],
    [['10.7.0.9'], 'own subnet 10.7.0.0/24'],
    [['2001:db8::1'], 'has no IPv6'],
    [Array.from({ length: MAX_EGRESS_IPS + 1 }, (_, i) => `192.0.${i >> 8}.${i & 255}`), 'More than 256'],
  ])('%j are refused', (ips, message) => {
    const refused = { code: 'INVALID_ARGUMENT', message: expect.stringContaining(message) };
    expect(() => edit(ips)).toThrow(expect.objectContaining(refused));
  });

  it.each([
    [{ internal: true }, 'it is internal'],
    [{ encap: 'vlan' }, 'gateways of its own'],
    [{ publishBy: 'docker' }, 'gateway bridge'],
    [{ gateways: [] }, 'no gateway'],
  ])('are refused where there is no way out: %j', (more, message) => {
    expect(() => edit(['192.0.2.1'], { ...network, ...more })).toThrow(
      expect.objectContaining({ code: 'FAILED_PRECONDITION', message: expect.stringContaining(message) }),
    );
    expect(edit([], { ...network, ...more })).toEqual({ egressIps: [] });
  });
});

describe('the rate of endpoints of a network', () => {
  const rate = (bits: bigint, burst = 0n) => checkEdit(network, ['rate'], { ...network, rate: { bits, burst } });

  it('is set, and goes; what is not named stays', () => {
    expect(rate(500_000_000n)).toEqual({ rate: { bits: 500_000_000n, burst: 0n } });
    for (const none of [rate(0n), checkEdit(network, ['rate'], network)]) {
      expect(Object.keys(none)).toEqual(['rate']);
      expect(none.rate).toBeUndefined();
    }
  });

  it.each([
    [7_999n, 0n],
    [100_000_000_001n, 0n],
    [0n, 65_536n],
    [1_000_000n, 1n],
    [1_000_000n, 2_000_000n],
  ])('%d bit/s with a burst of %d is refused', (bits, burst) => {
    expect(() => rate(bits, burst)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });
});

it('what cannot be changed is named, and nothing is changed with it', () => {
  expect(() => checkEdit(network, ['egressIps', 'vni'], network)).toThrow(
    expect.objectContaining({ code: 'UNIMPLEMENTED', message: expect.stringContaining('"vni"') }),
  );
  expect(() => checkEdit(network, [], network)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
});

it('what no policy is about is changed by itself', () => {
  const set = (policyDefault: string, of = network) => checkEdit(of, ['policyDefault'], { ...of, policyDefault });
  expect(set('drop')).toEqual({ policyDefault: 'drop' });
  expect(set('allow')).toEqual({ policyDefault: '' });
  const both = checkEdit(network, ['policyDefault', 'egressIps'], { ...network, policyDefault: 'drop' });
  expect(both).toEqual({ policyDefault: 'drop', egressIps: [] });
  expect(() => set('deny')).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  const vlan = { ...network, encap: 'vlan' };
  expect(() => set('drop', vlan)).toThrow(expect.objectContaining({ code: 'FAILED_PRECONDITION' }));
  expect(set('allow', vlan)).toEqual({ policyDefault: '' });
});
