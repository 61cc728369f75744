/** Routes to where routers lead, in a real network namespace that stands for a container. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ContainerRoutes } from '../../../agent/container-routes.ts';
import type { LocalEndpoint, LocalNetwork } from '../../../agent/contract.ts';
import { EMPTY_VIEW } from '../../../agent/view.ts';
import { Network, Router } from '../../../gen/weft/v1/types.ts';
import { exec } from '../../../lib/exec.ts';
import { silentLog } from '../../../lib/log.ts';
import type { Conflict, View } from '../../../lib/model.ts';
import { MemoryJournal } from '../../harness/memory-journal.ts';

const NS = `weft-cr-${process.pid}`;
const net = (id: string, n: number): Network =>
  Network.fromPartial({
    id,
    name: id,
    encap: 'vxlan',
    subnets: [`10.${n}.0.0/24`, `fd00:${n}::/64`],
    gateways: [`10.${n}.0.1`, `fd00:${n}::1`],
  });
const [A, B] = [net('a', 1), net('b', 2)];
const LED: View = {
  ...EMPTY_VIEW,
  networks: new Map([A, B].map((n) => [n.id, n])),
  routers: new Map([['r', Router.fromPartial({ name: 'r', networkIds: ['a', 'b'] })]]),
};

const ip = async (...args: string[]): Promise<string> => {
  const { code, stdout, stderr } = await exec('ip', args);
  if (code !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr}`);
  return stdout;
};
const routes = async (family: '-4' | '-6'): Promise<string[]> =>
  (await ip('-n', NS, family, 'route')).split('\n').filter((line) => line.includes(' via '));

let view: View;
let conflicts: readonly Conflict[];
let journal: MemoryJournal;
let keeper: ContainerRoutes;

/** A container whose interface has that name. */
async function container(name: string): Promise<void> {
  await ip('-n', NS, 'link', 'add', 'name', name, 'type', 'veth', 'peer', 'name', 'other');
  for (const end of [name, 'other']) await ip('-n', NS, 'link', 'set', 'dev', end, 'up');
  await ip('-n', NS, 'addr', 'add', '10.1.0.5/24', 'dev', name);
  const endpoint = { id: 'e1', networkId: 'a', ip: '10.1.0.5', ip6: 'fd00:1::5', sandbox: `/run/netns/${NS}` };
  const value = { ...endpoint, interfaceName: name, container: { id: 'c', name: 'web' } } as unknown as LocalEndpoint;
  await journal.write([
    ...[A, B].map((network, i) => ({
      table: 'network' as const,
      key: network.id,
      value: { networkId: network.id, index: i + 1, network } as unknown as LocalNetwork,
    })),
    { table: 'endpoint', key: 'e1', value },
  ]);
}

beforeEach(async () => {
  await ip('netns', 'add', NS);
  view = LED;
  conflicts = [];
  journal = new MemoryJournal();
  const mesh = {
    complete: true,
    view: () => view,
    reportConflicts: (_: string, all: readonly Conflict[]) => {
      conflicts = all;
    },
  };
  keeper = new ContainerRoutes({ journal, mesh: () => mesh, hostName: 'h1', log: silentLog() });
});
afterEach(async () => {
  await keeper.close();
  await ip('netns', 'del', NS);
});

test.each(['eth0', `a"b'c`, 'x#y'])(
  'come and go by an interface called %j, and what cannot be set is told',
  async (name) => {
    await container(name);
    // It has no IPv6 address, so that family's gateway is nowhere.
    await keeper.settled();
    expect(await routes('-4')).toEqual([expect.stringContaining('10.2.0.0/24 via 10.1.0.1')]);
    expect(journal.endpoints.get('e1')?.routed).toEqual([{ cidr: '10.2.0.0/24', via: '10.1.0.1' }]);
    expect(conflicts).toEqual([
      { host: 'h1', network: '', message: expect.stringMatching(/^web has not all routes to where routers lead: ./) },
    ]);
    view = { ...LED, routers: new Map() };
    await keeper.settled();
    expect(await routes('-4')).toEqual([]);
    expect(journal.endpoints.get('e1')?.routed).toEqual([]);
    expect(conflicts).toEqual([]);
  },
);

test('a journal that cannot be written is told, and ends nothing', async () => {
  await container('eth0');
  const write = journal.write.bind(journal);
  journal.write = () => Promise.reject(new Error('no space left'));
  await keeper.settled();
  expect(conflicts[0]?.message).toContain('no space left');
  journal.write = write;
  view = { ...LED, routers: new Map() };
  await keeper.settled();
  expect(conflicts).toEqual([]);
});
