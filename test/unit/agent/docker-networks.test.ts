import { expect, test } from 'vitest';
import type { LocalNetwork } from '../../../agent/contract.ts';
import type { DockerNetwork } from '../../../agent/docker/api.ts';
import { type NetworkStep, type NetworksInput, planNetworks } from '../../../agent/docker/networks.ts';
import type { Network } from '../../../lib/model.ts';
import { networkOf } from '../../harness/fake-mesh.ts';

const N = networkOf({ id: 'n1', name: 'net', subnets: ['10.0.0.0/24'], labels: { a: '1' }, revision: 5n });

const docker = (fields: Partial<DockerNetwork> = {}): DockerNetwork => ({
  id: 'd1',
  name: 'net',
  driver: 'weft',
  ipamDriver: 'weft',
  subnet: '10.0.0.0/24',
  subnet6: '',
  ipRanges: [],
  gateway: '10.0.0.1',
  gateway6: '',
  auxAddresses: {},
  internal: false,
  attachable: false,
  options: {},
  labels: { a: '1' },
  ...fields,
});

const row = (network: Network = N, dockerNetworkId: string | null = 'd1'): LocalNetwork => ({
  networkId: network.id,
  dockerNetworkId,
  name: network.name,
  index: 1,
  network,
});

function plan(fields: {
  catalogue?: Network[];
  actual?: DockerNetwork[];
  rows?: LocalNetwork[];
  inSync?: boolean;
  removed?: string[];
  young?: string[];
  unlisted?: string[];
  heal?: boolean;
  starting?: boolean;
}): { steps: string[]; conflicts: string[] } {
  const input: NetworksInput = {
    catalogue: new Map((fields.catalogue ?? []).map((n) => [n.id, n])),
    actual: fields.actual ?? [],
    rows: new Map((fields.rows ?? []).map((r) => [r.networkId, r])),
    inSync: fields.inSync ?? true,
    removed: new Set(fields.removed),
    young: new Set(fields.young),
    unlisted: new Set(fields.unlisted),
    heal: fields.heal ?? true,
    starting: fields.starting ?? false,
  };
  const { steps, conflicts } = planNetworks(input);
  return { steps: steps.map(text), conflicts: conflicts.map((c) => c.message) };
}

function text(step: NetworkStep): string {
  switch (step.kind) {
    case 'create':
      return `create ${step.name}`;
    case 'remove':
      return `remove ${step.dockerId}: ${step.why}`;
    case 'bind':
      return `bind ${step.docker.id} as ${step.docker.name}`;
    case 'adopt':
      return `adopt ${step.dockerId}`;
    case 'refresh':
      return `refresh ${step.row.networkId}`;
    case 'forget':
      return `forget ${step.row.networkId}${step.missing ? ', missing' : ''}`;
  }
}

const reserved = networkOf({ id: 'n1', subnets: ['10.0.0.0/24'], state: 'reserved' });
const newer = { ...N, revision: 6n };
const dual = networkOf({ ...N, subnets: ['10.0.0.0/24', 'fd00::/64'], gateways: ['10.0.0.1', 'fd00::1'], ipv6: true });
const dual6 = { subnet6: 'fd00::/64', gateway6: 'fd00::1' };
const alone = networkOf({ ...N, subnets: ['fd00::/64'], gateways: ['fd00::1'], ipv6: true });

test.each<[string, Parameters<typeof plan>[0], string[]]>([
  ['nothing anywhere', {}, []],
  ['all as it should be', { catalogue: [N], actual: [docker()], rows: [row()] }, []],
  ['both families', { catalogue: [dual], actual: [docker(dual6)], rows: [row(dual)] }, []],
  ['both families, the journal lost', { catalogue: [dual], actual: [docker(dual6)] }, ['adopt d1']],
  [
    'IPv6 as Docker writes it',
    { catalogue: [dual], actual: [docker({ ...dual6, subnet6: 'fd00:0::/64' })] },
    ['adopt d1'],
  ],
  [
    'IPv6 alone',
    { catalogue: [alone], actual: [docker({ ...dual6, subnet: '', gateway: '' })], rows: [row(alone)] },
    [],
  ],
  [
    'made without a pool for its IPv6 subnet',
    { catalogue: [dual], actual: [docker()], rows: [row(dual)] },
    ['remove d1: IPv6 subnet: , should be fd00::/64'],
  ],
  ['a new network', { catalogue: [N] }, ['create net']],
  ['not in sync: made too', { catalogue: [N], inSync: false }, ['create net']],
  ['of another project', { catalogue: [{ ...N, project: 'p' }] }, ['create p.net']],
  ['a reservation is not made', { catalogue: [reserved] }, []],
  ['gone from the mesh', { actual: [docker()], rows: [row()] }, ['remove d1: the mesh does not have it']],
  ['gone, not in sync', { actual: [docker()], rows: [row()], inSync: false }, []],
  ['gone, named a moment ago', { actual: [docker()], rows: [row()], young: ['n1'] }, []],
  ['gone, and the journal lost', { actual: [docker()] }, ['remove d1: the mesh does not have it']],
  [
    'made by a user, gone from the mesh',
    { actual: [docker()], rows: [row()] },
    ['remove d1: the mesh does not have it'],
  ],
  ['named by Docker', { actual: [docker()], rows: [row(reserved)] }, ['bind d1 as net']],
  ['bound meanwhile', { catalogue: [N], actual: [docker()], rows: [row(reserved)] }, ['refresh n1']],
  ['changed record', { catalogue: [newer], actual: [docker()], rows: [row()] }, ['refresh n1']],
  ['journal lost', { catalogue: [N], actual: [docker()] }, ['adopt d1']],
  ['unknown to the journal, the agent just begun', { actual: [docker()], starting: true }, []],
  ['a gateway that its maker did not give', { catalogue: [N], actual: [docker({ gateway: '' })], rows: [row()] }, []],
  ['removed behind our back', { catalogue: [N], rows: [row()] }, ['forget n1, missing', 'create net']],
  ['removed behind our back, not healing', { catalogue: [N], rows: [row()], heal: false }, []],
  ['made a moment ago, not listed yet', { catalogue: [N], rows: [row()], unlisted: ['n1'] }, []],
  ['removed here a moment ago', { catalogue: [N], removed: ['n1'] }, []],
  ['being removed here', { catalogue: [N], actual: [docker()], rows: [row()], removed: ['n1'] }, []],
  ['an unfinished creation', { rows: [row(reserved, null)] }, ['forget n1']],
  ['a creation under way', { rows: [row(reserved, null)], young: ['n1'] }, []],
  ['a copy waiting for its creation', { catalogue: [N], rows: [row(N, null)] }, ['create net']],
  [
    'other labels',
    { catalogue: [N], actual: [docker({ labels: {} })], rows: [row()] },
    ['remove d1: labels: , should be a=1'],
  ],
  ['other labels, not in sync', { catalogue: [N], actual: [docker({ labels: {} })], rows: [row()], inSync: false }, []],
  [
    'other name and gateway',
    { catalogue: [N], actual: [docker({ name: 'x', gateway: '10.0.0.9' })], rows: [row()] },
    ['remove d1: name: x, should be net; gateway: 10.0.0.9, should be 10.0.0.1'],
  ],
  [
    'a range that its maker did not give',
    { catalogue: [{ ...N, ipRange: '10.0.0.0/25' }], actual: [docker()], rows: [row()] },
    [],
  ],
  ['networks of other drivers', { actual: [docker({ driver: 'bridge' })] }, []],
])('%s', (_, fields, steps) => {
  expect(plan(fields)).toEqual({ steps, conflicts: [] });
});

test('names that mean something else are left alone and reported', () => {
  const foreign = docker({ id: 'b', driver: 'bridge', subnet: '172.20.0.0/16' });
  const found = plan({ catalogue: [N], actual: [foreign] });
  expect(found.steps).toEqual([]);
  expect(found.conflicts).toEqual([expect.stringContaining('another network named net (driver bridge')]);
  const second = plan({ catalogue: [N], actual: [docker(), docker({ id: 'd2' })], rows: [row()] });
  expect(second).toEqual({ steps: [], conflicts: [expect.stringContaining('second copy')] });
});
