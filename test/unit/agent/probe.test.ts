/** What the agent chooses from what it found of its host, and how it says so. */
import { describe, expect, it } from 'vitest';
import { bpfSide, type Choices, decide, type Findings } from '../../../agent/probe/decide.ts';

const found: Findings = {
  vtep: '192.0.2.1',
  underlayInterface: 'eth0',
  underlayProblem: '',
  underlayMtu: 1500,
  module: false,
  bpf: '',
  devices: { vxlan: '', geneve: '', gre: '' },
  tso: true,
  checksums: { plain: [], rewritten: [] },
};
const chosen: Choices = {
  datapath: 'auto',
  backend: 'auto',
  express: true,
  udpPorts: { vxlan: 4789, geneve: 6081 },
  outer: { ttl: 64, dscp: 'inherit', checksum: false },
};

function outcome(more: Partial<Findings>, choices: Partial<Choices> = {}): string[] {
  const { wiring, probes } = decide({ ...found, ...more }, { ...chosen, ...choices });
  const offload = probes.find((p) => p.name === 'offload');
  const completion = `${wiring.complete.at}${wiring.complete.tcp ? ', but TCP' : ''}`;
  return [wiring.datapathType, wiring.backend, completion, `${offload?.result}`, `${offload?.reason}`];
}

describe('services', () => {
  const services = (more: Partial<Findings>, choices: Partial<Choices> = {}) => {
    const { probes } = decide({ ...found, ...more }, { ...chosen, ...choices });
    return probes.find((p) => p.name === 'services');
  };

  it('are there where frames are translated on containers’ links, else it is said why not', () => {
    expect(services({})?.result).toBe('yes');
    expect(services({ module: true })?.result).toBe('yes');
    expect(services({ module: true, bpf: 'Operation not permitted' })).toMatchObject({
      result: 'no',
      reason: expect.stringContaining('Operation not permitted'),
    });
    for (const choices of [{ backend: 'ovs-tunnel' }, { datapath: 'netdev', backend: 'ovs-tunnel' }] as const)
      expect(services({}, choices)).toMatchObject({
        result: 'no',
        reason: expect.stringContaining('kernel-tunnel'),
      });
    expect(services({}, { express: false })).toMatchObject({
      result: 'no',
      reason: expect.stringContaining('agent.yaml'),
    });
  });
});

it('of the kernel side, that is tried which would be used', () => {
  expect(bpfSide(true, chosen)).toBe('services');
  expect(bpfSide(true, { ...chosen, datapath: 'netdev' })).toBe('forward');
  expect(bpfSide(true, { ...chosen, backend: 'kernel-tunnel' })).toBe('forward');
  expect(bpfSide(false, chosen)).toBe('forward');
});

describe('choice of offloads', () => {
  it('takes segments whole where the userspace datapath gets them right', () => {
    expect(outcome({})).toEqual([
      'netdev',
      'kernel-tunnel',
      'kernel, but TCP',
      'on',
      'userspace-tso-enable is set, and checksums are right, also after a rewrite: segments stay whole.',
    ]);
  });

  it('takes them where only rewrites go wrong, and says so', () => {
    expect(outcome({}, { express: false })[2]).toBe('both, but TCP');
    expect(outcome({}, { backend: 'ovs-tunnel' })[2]).toBe('container, but TCP');
    expect(outcome({ checksums: { plain: [], rewritten: ['TCP over IPv4', 'UDP over IPv6'] } }).slice(2)).toEqual([
      'kernel, but TCP',
      'on',
      'userspace-tso-enable is set, and checksums are right where nothing is rewritten, as here: segments stay whole. After a rewrite they would be wrong (TCP over IPv4, UDP over IPv6).',
    ]);
  });

  it('makes frames complete where they go wrong without a rewrite', () => {
    const wrong = { plain: ['TCP over IPv6'], rewritten: ['TCP over IPv6'] };
    expect(outcome({ checksums: wrong }).slice(2)).toEqual([
      'kernel',
      'off',
      'Open vSwitch gets checksums wrong (TCP over IPv6): frames are cut and summed before Open vSwitch reads them.',
    ]);
    expect(outcome({ checksums: wrong }, { express: false })[2]).toBe('both');
    expect(outcome({ checksums: wrong }, { backend: 'ovs-tunnel' })[2]).toBe('container');
  });

  it('makes frames complete where it is not known', () => {
    expect(outcome({ checksums: null }).slice(2)).toEqual([
      'kernel',
      'off',
      'Whether Open vSwitch gets checksums right could not be tried: frames are cut and summed before Open vSwitch reads them.',
    ]);
    for (const tso of [false, null])
      expect(outcome({ tso, checksums: null }).slice(2)).toEqual([
        'kernel',
        'off',
        'userspace-tso-enable is not set in Open vSwitch: frames are cut and summed before it reads them.',
      ]);
  });

  it('has nothing to ask of the kernel datapath', () => {
    expect(outcome({ module: true, tso: null, checksums: null })).toEqual([
      'system',
      'ovs-tunnel',
      'none, but TCP',
      'on',
      'The kernel datapath takes frames as the kernel has them.',
    ]);
  });
});
