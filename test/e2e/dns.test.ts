/** Names: what a container finds by name, on all hosts, on its own networks and no others. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { addressOf, auditClean, clean, docker, pings, sleeper, until, weftOk } from '../harness/lab.ts';
import { labStatus } from '../harness/lab-direct.ts';
import { addresses, find, lookup } from '../harness/lookup.ts';
import { Stranger } from '../harness/stranger.ts';

const HOSTS = ['h1', 'h2', 'h3'];
const BLUE = 'dn-blue';
const RED = 'dn-red';

beforeAll(async () => {
  await weftOk('network', 'create', BLUE);
  await weftOk('network', 'create', RED, '--internal');
  await weftOk('wait');
  await Promise.all([
    sleeper('h1', 'dn-a', BLUE, '--network-alias', 'any_one.of'),
    sleeper('h2', 'dn-b', BLUE, '--network-alias', 'any_one.of', '--network-alias', 'Only-B'),
    sleeper('h3', 'dn-c', BLUE),
    sleeper('h3', 'dn-r', RED),
  ]);
  await weftOk('wait');
  // Names come to the mesh a moment after their containers.
  for (const name of ['dn-b', 'dn-c'])
    await until(`${name} is known on h1`, async () => (await find('h1', 'dn-a', name)).length === 1);
});

afterAll(async () => {
  await clean(HOSTS);
  await auditClean();
});

describe('a name', () => {
  it('is found from other hosts: name, alias of any form, with the network’s name, in any case', async () => {
    const ip = await addressOf('h2', 'dn-b', BLUE);
    for (const name of ['dn-b', 'DN-B', 'only-b', `dn-b.${BLUE}`, `dn-b.${BLUE}.weft`])
      expect({ name, found: await find('h1', 'dn-a', name) }).toEqual({ name, found: [ip] });
    expect(await pings('h1', 'dn-a', 'dn-b')).toBe(true);
  });

  it('that several have leads to all of them', async () => {
    const all = [await addressOf('h1', 'dn-a', BLUE), await addressOf('h2', 'dn-b', BLUE)].toSorted();
    expect(await find('h3', 'dn-c', 'any_one.of')).toEqual(all);
  });

  it('is found by its address, the same on every host', async () => {
    const ip = await addressOf('h3', 'dn-c', BLUE);
    for (const [host, container] of [
      ['h1', 'dn-a'],
      ['h2', 'dn-b'],
    ] as const) {
      const text = await lookup(host, container, ip);
      expect([...text.matchAll(/name = (\S+)$/gm)].map((m) => m[1])).toEqual([`dn-c.${BLUE}`, `dn-c.${BLUE}.weft`]);
    }
  });

  it('of an IPv4 network has no IPv6 address, which is no error', async () => {
    const text = await lookup('h1', 'dn-a', '-type=aaaa', 'dn-b');
    expect(text).not.toMatch(/can't find|NXDOMAIN|SERVFAIL/);
    expect(addresses(text)).toEqual([]);
  });

  it('is not found from other networks, nor are addresses of them', async () => {
    expect(await find('h3', 'dn-r', 'dn-b')).toEqual([]);
    expect(await find('h3', 'dn-r', `dn-b.${BLUE}`)).toEqual([]);
    expect(await lookup('h3', 'dn-r', `dn-b.${BLUE}.weft`)).toMatch(/NXDOMAIN/);
    expect(await find('h1', 'dn-a', 'dn-r')).toEqual([]);
  });

  it('ends with its container', async () => {
    await sleeper('h2', 'dn-gone', BLUE);
    await until('dn-gone is known', async () => (await find('h1', 'dn-a', 'dn-gone')).length === 1);
    await docker('h2', 'rm', '-f', 'dn-gone');
    await until('dn-gone is not known', async () => (await find('h1', 'dn-a', 'dn-gone')).length === 0, 5_000);
  });
});

describe('a container with two networks', () => {
  it('finds the names of both, and goes on when one of them is disconnected', async () => {
    await sleeper('h1', 'dn-two', BLUE);
    await docker('h1', 'network', 'connect', RED, 'dn-two');
    const [b, r] = [await addressOf('h2', 'dn-b', BLUE), await addressOf('h3', 'dn-r', RED)];
    await until('the names of both are known', async () => {
      const found = [await find('h1', 'dn-two', 'dn-b'), await find('h1', 'dn-two', 'dn-r')];
      return JSON.stringify(found) === JSON.stringify([[b], [r]]);
    });
    await docker('h1', 'network', 'disconnect', BLUE, 'dn-two');
    expect(await find('h1', 'dn-two', 'dn-r')).toEqual([r]);
    expect(await find('h1', 'dn-two', 'dn-b')).toEqual([]);
  });
});

describe('the resolver', () => {
  it('answers without any coordinator, and again after its agent’s restart', async () => {
    const ip = await addressOf('h2', 'dn-b', BLUE);
    for (const c of ['coord1', 'coord2']) await weftOk('lab', 'stop', c);
    try {
      expect(await find('h1', 'dn-a', 'dn-b')).toEqual([ip]);
      await weftOk('lab', 'kill', 'h1', 'agent');
      await weftOk('lab', 'start', 'h1', 'agent');
      await until('it answers', async () => (await find('h1', 'dn-a', 'dn-b'))[0] === ip);
    } finally {
      for (const c of ['coord1', 'coord2']) await weftOk('lab', 'start', c);
      await weftOk('wait', '--timeout', '60');
    }
    await sleeper('h3', 'dn-later', BLUE);
    await until('a new name is known', async () => (await find('h1', 'dn-a', 'dn-later')).length === 1);
  });

  it('serves containers of Docker’s own networks, without names of the mesh', async () => {
    await sleeper('h1', 'dn-bridge', 'bridge');
    expect(await find('h1', 'dn-bridge', `dn-b.${BLUE}`)).toEqual([]);
    expect(await lookup('h1', 'dn-bridge', 'nothing.weft')).toMatch(/NXDOMAIN/);
  });

  it('refuses whoever is on the underlay', async () => {
    const lab = await labStatus();
    await using stranger = await Stranger.open(lab);
    await stranger.run('ip', 'route', 'add', '169.254.100.53/32', 'via', lab.hosts[0]?.underlay.ip ?? '');
    const asked = stranger.run('busybox', 'nslookup', `dn-b.${BLUE}.weft`, '169.254.100.53').then(
      (text) => text,
      (error: { stdout: string }) => error.stdout,
    );
    expect(await asked).toMatch(/REFUSED/);
  });
});
