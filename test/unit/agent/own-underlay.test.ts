/** Which address is the host's VTEP, what happens when it is not there (yet), and how unreachable peers are named. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { unreachable } from '../../../agent/peers.ts';
import type { HostInterface } from '../../../agent/probe/links.ts';
import { ownUnderlay, vtepProblem, type Wanted } from '../../../agent/probe/own.ts';
import { EMPTY_VIEW } from '../../../agent/view.ts';
import { parseAgentConfig } from '../../../lib/config.ts';
import { silentLog } from '../../../lib/log.ts';

const iface = (name: string, ...addresses: string[]): HostInterface => ({
  name,
  mtu: 1500,
  kind: '',
  master: '',
  addresses: addresses.map((text) => {
    const [address = '', prefix] = text.split('/');
    return { address, prefix: Number(prefix) };
  }),
});
const HOST = [iface('eth0', '192.0.2.1/24', 'fd99::1/64'), iface('eth1', '198.51.100.1/24')];
const REFUSAL = 'This host does not have an address in 203.0.113.0/24; it has none.';

describe('own VTEP', () => {
  let dir = '';
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'own-underlay-'));
  });
  afterEach(async () => {
    await rm(dir, { recursive: true });
  });
  const own = (wanted: Wanted, ...looks: (readonly HostInterface[])[]) =>
    ownUnderlay(wanted, {
      look: async () => (looks.length > 1 ? looks.shift() : looks[0]) ?? [],
      file: join(dir, 'underlay.json'),
      log: silentLog(),
      waitMs: looks.length > 1 ? 30_000 : 0,
    });

  it.each([
    [{ on: '198.51.100.0/24' }, '198.51.100.1', 'eth1'],
    [{ on: 'fd99::/64' }, 'fd99::1', 'eth0'],
    [{ on: 'eth1' }, '198.51.100.1', 'eth1'],
    [{ vtep: '192.0.2.1' }, '192.0.2.1', 'eth0'],
  ])('is found by %j', async (wanted, vtep, name) => {
    expect(await own(wanted, HOST)).toEqual({ vtep, interface: name, mtu: 1500, problem: '' });
  });

  it('is waited for', async () => {
    expect(await own({ on: '192.0.2.0/24' }, [], [], HOST)).toMatchObject({ vtep: '192.0.2.1', problem: '' });
  });

  it('is refused when it never was there', async () => {
    await expect(own({ on: '203.0.113.0/24' }, [])).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: REFUSAL,
    });
  });

  it('is what it was the last time, for the same question', async () => {
    await own({ on: '203.0.113.0/24' }, [iface('eth0', '203.0.113.5/24')]);
    expect(await own({ on: '203.0.113.0/24' }, [])).toEqual({
      vtep: '203.0.113.5',
      interface: 'eth0',
      mtu: 1500,
      problem: REFUSAL,
    });
    await expect(own({ on: 'eth7' }, [])).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
  });

  it('is watched', () => {
    expect(vtepProblem({ on: 'eth0' }, '192.0.2.1', HOST)).toBe('');
    expect(vtepProblem({ on: 'eth0' }, '192.0.2.1', [iface('eth0', '192.0.2.9/24')])).toBe(
      'The VTEP of this host is 192.0.2.9 on eth0 now; its agent still uses 192.0.2.1: restart the agent.',
    );
    expect(vtepProblem({ vtep: '192.0.2.1' }, '192.0.2.1', [iface('eth1', '198.51.100.1/24')])).toBe(
      'This host does not have 192.0.2.1; it has 198.51.100.1 on eth1. Other hosts do not reach its containers.',
    );
  });

  it('is the flag’s rather than the file’s', () => {
    const file = 'coordinators: 192.0.2.7\nunderlay: {vtep: 192.0.2.1, mtu: 1400}\n';
    const on = (underlay: string) => parseAgentConfig(file, 'agent.yaml', { underlay }).underlay;
    expect(on('fd99::/64')).toEqual({ on: 'fd99::/64', mtu: 1400, shape: null });
    expect(on('eth1')).toEqual({ on: 'eth1', mtu: 1400, shape: null });
    expect(on('198.51.100.1')).toEqual({ vtep: '198.51.100.1', mtu: 1400, shape: null });
    expect(parseAgentConfig('coordinators: 192.0.2.7\n', 'agent.yaml', { underlay: 'eth1' }).underlay).toEqual({
      on: 'eth1',
      mtu: null,
      shape: null,
    });
  });
});

it('names peers that cannot be reached', () => {
  const view = {
    ...EMPTY_VIEW,
    interests: new Map([
      [
        'n1',
        {
          networkId: 'n1',
          blocks: new Map(),
          endpoints: new Map(),
          peers: new Map([
            [
              'i3',
              {
                hostId: 'i3',
                name: 'h3',
                vteps: [{ address: '192.0.2.3', encaps: [], encrypted: false }],
                entry: false,
                routed: false,
              },
            ],
          ]),
          addresses: new Map(),
          externals: new Map(),
          memberships: new Map(),
          settings: new Map(),
          reservations: new Map(),
          services: new Map(),
          policies: new Map(),
        },
      ],
    ]),
  };
  const missing = new Map([
    ['192.0.2.3', 'it does not answer on eth0'],
    ['192.0.2.9', 'there is no route to it'],
  ]);
  expect(unreachable('h1', view, missing)).toEqual([
    { host: 'h1', network: '', message: 'h1 cannot reach the VTEP 192.0.2.3 of h3: it does not answer on eth0.' },
    { host: 'h1', network: '', message: 'h1 cannot reach the VTEP 192.0.2.9: there is no route to it.' },
  ]);
});
