/**
 * External peers, end to end: a plain device of the kernel on a machine that knows nothing of Weft, in each encapsulation that all hosts of
 * the lab carry. For the lab's hosts natively, and for a guest whose kernel has openvswitch.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ethernet, ipv4, sendRaw } from './frames.ts';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  IMAGE,
  on,
  pings,
  sleeper,
  until,
  weft,
  weftJson,
  weftOk,
} from './lab.ts';
import { type LabStatus, labStatus } from './lab-direct.ts';
import { Stranger } from './stranger.ts';
import { boxOf, Ear } from './wire.ts';

const HOSTS = ['h1', 'h2'] as const;
const TUNNELS = ['vxlan', 'geneve', 'gre'];
/** Behind the peer; the network's blocks are all in the first half of 10.71.0.0/24. */
const PEER = { ip: '10.71.0.200', mac: '02:ee:00:00:00:c8' };
const KEY = 7777;

/** Of what all hosts say that they can carry. */
export async function tunnelsOf(hosts: readonly string[]): Promise<string[]> {
  const of = async (host: string): Promise<string[]> =>
    (await weftJson<{ vteps: { encaps: string[] }[] }>('host', 'inspect', host)).vteps.flatMap((v) => v.encaps);
  const all = await Promise.all(hosts.map(of));
  return TUNNELS.filter((encap) => all.every((one) => one.includes(encap)));
}

/** A tunnel of the kernel's own to the hosts. Those that have one end only reach the first. */
async function tunnel(stranger: Stranger, encap: string, key: number, hosts: readonly string[]): Promise<void> {
  const { ip } = stranger;
  const run = (...command: string[]): Promise<string> => stranger.run(...command);
  const [first = ''] = hosts;
  const kind: Readonly<Record<string, readonly string[]>> = {
    vxlan: ['vxlan', 'id', String(key), 'local', ip, 'dstport', '4789'],
    geneve: ['geneve', 'id', String(key), 'remote', first],
    gre: ['gretap', 'key', String(key), 'local', ip, 'remote', first],
  };
  await run('ip', 'link', 'add', 'vx', 'mtu', '1400', 'address', PEER.mac, 'type', ...(kind[encap] ?? []));
  if (encap === 'vxlan')
    for (const host of hosts) await run('bridge', 'fdb', 'append', '00:00:00:00:00:00', 'dev', 'vx', 'dst', host);
  await run('ip', 'addr', 'add', `${PEER.ip}/24`, 'dev', 'vx');
  await run('ip', 'link', 'set', 'vx', 'addrgenmode', 'none', 'up');
}

/** A test file is this, for what the lab at hand can carry. */
export function peerSuite(encaps: readonly string[]): void {
  afterAll(async () => {
    await clean(HOSTS);
    await auditClean();
  });

  // Each as a network's and as a peer's; where there are several, never both the same.
  const pairs = encaps.map((network, i) => ({ network, peer: encaps[(i + 1) % encaps.length] ?? network }));
  describe.each(pairs)('a $peer peer of a $network network', ({ network: encap, peer: spoken }) => {
    const network = `peers-${encap}-${spoken}`;
    let lab: LabStatus;
    let stranger: Stranger;
    /** By host; those that the peer's tunnel reaches. */
    let boxes: { host: string; name: string; ip: string }[];

    beforeAll(async () => {
      lab = await labStatus();
      stranger = await Stranger.open(lab);
      const underlay = HOSTS.map((name) => lab.hosts.find((h) => h.name === name)?.underlay.ip ?? '');
      await tunnel(stranger, spoken, KEY, underlay);
      await weftOk(
        'network',
        'create',
        network,
        '--encap',
        encap,
        '--subnet',
        '10.71.0.0/24',
        '--ip-range',
        '10.71.0.0/25',
      );
      const reached = spoken === 'vxlan' ? HOSTS : HOSTS.slice(0, 1);
      boxes = await Promise.all(
        reached.map(async (host) => {
          const name = await sleeper(host, `${network}-box`, network, '--cap-add', 'NET_ADMIN');
          return { host, name, ip: await addressOf(host, name, network) };
        }),
      );
    });
    afterAll(async () => {
      await Promise.all(HOSTS.map((host) => on(host, 'docker', 'rm', '-f', `${network}-box`)));
      await weft('network', 'rm', network);
      await stranger?.[Symbol.asyncDispose]();
    });

    const add = (...flags: string[]): Promise<string> =>
      weftOk(
        'peer',
        'add',
        'router',
        '--network',
        network,
        '--vtep',
        stranger.ip,
        '--encap',
        spoken,
        '--key',
        String(KEY),
        ...flags,
      );
    afterEach(() => weft('peer', 'rm', '--network', network, 'router'));
    const peerPings = (ip: string): Promise<boolean> =>
      stranger.run('ping', '-c', '2', '-i', '0.2', '-W', '2', ip).then(
        () => true,
        () => false,
      );
    /** Nobody remembers anybody. */
    const forget = async (): Promise<void> => {
      await stranger.run('ip', 'neigh', 'flush', 'dev', 'vx');
      for (const b of boxes) await docker(b.host, 'exec', b.name, 'ip', 'neigh', 'flush', 'dev', 'eth0');
    };
    /** @param first who speaks first: nobody may need the other to have spoken before */
    const bothWays = async (first: 'container' | 'peer'): Promise<void> => {
      await forget();
      for (const b of boxes) {
        const outward = async () => expect(await pings(b.host, b.name, PEER.ip, 2), `${b.host} → peer`).toBe(true);
        const inward = async () => expect(await peerPings(b.ip), `peer → ${b.host}`).toBe(true);
        for (const way of first === 'container' ? [outward, inward] : [inward, outward]) await way();
      }
    };

    it('nobody who is not added reaches anybody', async () => {
      expect(await peerPings(boxes[0]?.ip ?? '')).toBe(false);
    });

    it('a MAC with its address: ARP is answered on the container’s host', async () => {
      await add('--mac', `${PEER.mac}=${PEER.ip}`);
      await bothWays('container');
      await bothWays('peer');
      await auditClean();
      await stranger.run('ip', 'link', 'set', 'vx', 'down');
      for (const b of boxes) {
        const answer = await docker(b.host, 'exec', b.name, 'arping', '-c', '1', '-w', '3', '-I', 'eth0', PEER.ip);
        expect(answer.toLowerCase()).toContain(PEER.mac);
      }
      await stranger.run('ip', 'link', 'set', 'vx', 'up');
    });

    it('a MAC behind it is no container’s', async () => {
      await add('--mac', `${PEER.mac}=${PEER.ip}`);
      const given = ['run', '--rm', '--network', network, '--mac-address', PEER.mac, IMAGE, 'true'];
      for (const host of HOSTS)
        expect(await on(host, '/usr/bin/docker', ...given)).toMatchObject({
          code: 125,
          stderr: expect.stringMatching(/in use by the external peer/),
        });
    });

    it('a MAC alone: the peer is asked for its addresses', async () => {
      await add('--mac', PEER.mac);
      await bothWays('container');
      await bothWays('peer');
      await auditClean();
    });

    // With MACs that nothing was ever sent to: Open vSwitch goes on dropping what it dropped just before, until it looks at its cache again.
    it('learned: no MAC is known beforehand', async () => {
      await stranger.run('ip', 'link', 'set', 'vx', 'address', '02:ee:00:00:00:c9');
      await add('--learn');
      await bothWays('container');
      await auditClean();
      // Another machine behind the same peer.
      await stranger.run('ip', 'link', 'set', 'vx', 'address', '02:ee:00:00:00:ca');
      await bothWays('peer');
      await bothWays('container');
      await auditClean();
      await stranger.run('ip', 'link', 'set', 'vx', 'address', PEER.mac);
    });

    it('questions for the peer are asked of no container', async () => {
      await add('--learn');
      const [one, two] = boxes;
      if (one === undefined || two === undefined) return;
      await stranger.run('ip', 'addr', 'add', '10.71.0.222/24', 'dev', 'vx');
      await using ear = await Ear.open(await boxOf(two.host, two.name, network));
      const answer = await docker(
        one.host,
        'exec',
        one.name,
        'arping',
        '-c',
        '2',
        '-w',
        '4',
        '-I',
        'eth0',
        '10.71.0.222',
      );
      expect(answer.toLowerCase()).toContain(PEER.mac);
      expect(ear.heard('0a4700de')).toBe(0);
    });

    it('a peer that sends as a container is not believed', async () => {
      await add('--learn');
      const [one, two] = boxes;
      if (one === undefined || two === undefined) return;
      const [from, to] = [await boxOf(one.host, one.name, network), await boxOf(two.host, two.name, network)];
      await using ear = await Ear.open(to);
      const frame = (src: string, mark: string): string =>
        ethernet(to.mac, src, 0x0800, ipv4(from.ip, to.ip, { size: 64, mark }));
      const [link] = JSON.parse(await stranger.run('ip', '-j', 'link', 'show', 'vx')) as [{ ifindex: number }];
      // Frames keep their order: when the last one is there, the others have been judged.
      await sendRaw(stranger.netns, link.ifindex, [
        frame(from.mac, 'f00dcafe01'),
        frame(to.mac, 'f00dcafe02'),
        frame(PEER.mac, 'f00dcafe03'),
      ]);
      await until('the peer’s own', async () => ear.heard('f00dcafe03') === 1);
      expect([ear.heard('f00dcafe01'), ear.heard('f00dcafe02')]).toEqual([0, 0]);
    });

    it('is gone when it is removed', async () => {
      await forget();
      expect(await peerPings(boxes[0]?.ip ?? '')).toBe(false);
      const [b] = boxes;
      if (b !== undefined) expect(await pings(b.host, b.name, PEER.ip, 1)).toBe(false);
      await until('everything as it should be', async () => (await weft('audit', '--json', '--no-heal')).code === 0);
    });
  });
}
