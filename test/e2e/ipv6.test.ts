/** IPv6: dual-stack networks and networks of IPv6 alone, between three hosts. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseCidr, parseIp } from '../../lib/addr.ts';
import { formatIp6, linkLocalOf } from '../../lib/ip6.ts';
import { parseMac } from '../../lib/mac.ts';
import {
  addressOf,
  auditClean,
  clean,
  docker,
  IMAGE,
  on,
  onOk,
  pings,
  sleeper,
  until,
  weft,
  weftJson,
  weftOk,
} from '../harness/lab.ts';

const HOSTS = ['h1', 'h2', 'h3'];

interface EndpointJson {
  readonly id: string;
  readonly host: string;
  readonly container: { readonly name: string } | null;
  readonly ips: string[];
  readonly mac: string;
}
interface NetworkJson {
  readonly subnets: string[];
  readonly gateways: string[];
}

const address6Of = (host: string, container: string, network: string): Promise<string> =>
  docker(host, 'inspect', '-f', `{{(index .NetworkSettings.Networks "${network}").GlobalIPv6Address}}`, container);

/** What the container's interface has, without what is not to be used yet. */
const shown = (host: string, container: string, link = 'eth0'): Promise<string> =>
  docker(host, 'exec', container, 'ip', 'addr', 'show', 'dev', link);

/** The kernel asks whether somebody has the address, for a second or two, before it answers for it (RFC 4862 §5.4). */
async function sureOfLinkLocals(container: (host: string) => string): Promise<void> {
  for (const host of HOSTS)
    await until(`${container(host)} has its link-local address`, async () => {
      const text = await shown(host, container(host));
      return text.includes('inet6 fe80') && !text.includes('tentative');
    });
}

const endpointOf = (network: string, container: string): Promise<EndpointJson> =>
  until(`${container} is registered`, async () => {
    const all = await weftJson<EndpointJson[]>('endpoint', 'ls', '--network', network);
    return all.find((e) => e.container?.name === container);
  });

/** Everybody reaches everybody, at what `address` says of each. */
async function allReach(name: (host: string) => string, address: (host: string) => Promise<string>): Promise<void> {
  for (const to of HOSTS) {
    const ip = await address(to);
    const reached = await Promise.all(HOSTS.filter((from) => from !== to).map((from) => pings(from, name(from), ip)));
    expect(reached, `${to} at ${ip}`).toEqual([true, true]);
  }
}

afterAll(async () => {
  await clean(HOSTS);
  await auditClean();
});

describe('a dual-stack network', () => {
  const name = (host: string): string => `dual-${host}`;
  let network: NetworkJson;

  beforeAll(async () => {
    network = await weftJson<NetworkJson>('network', 'create', 'v6-dual', '--ipv6', '--subnet', '10.96.0.0/20');
    for (const host of HOSTS) await sleeper(host, name(host), 'v6-dual');
  });

  it('has a /64 of the mesh’s own beside its IPv4 subnet', () => {
    expect(network.subnets).toHaveLength(2);
    const [four = '', six = ''] = network.subnets;
    expect(four).toBe('10.96.0.0/20');
    expect(six).toMatch(/^fd[0-9a-f]{2}:[0-9a-f:]*::?\/64$/);
    const { base } = parseCidr(six);
    expect(network.gateways).toEqual(['10.96.0.1', formatIp6(base + 1n)]);
  });

  it('gives each container an address of each family, from blocks of its host', async () => {
    for (const host of HOSTS) {
      const [four, six] = [await addressOf(host, name(host), 'v6-dual'), await address6Of(host, name(host), 'v6-dual')];
      const { ips, mac } = await endpointOf('v6-dual', name(host));
      expect(ips).toEqual([four, six]);
      const text = await shown(host, name(host));
      for (const line of [`inet ${four}/20`, `inet6 ${six}/64`, `link/ether ${mac}`]) expect(text).toContain(line);
      // The low 32 bits tell the address from others.
      expect(parseIp(six) & 0xffff_ffffn).toBe(parseIp(six) - parseCidr(network.subnets[1]!).base);
    }
  });

  it('carries both families between hosts, link-local addresses and names as well', async () => {
    await allReach(name, (host) => addressOf(host, name(host), 'v6-dual'));
    await allReach(name, (host) => address6Of(host, name(host), 'v6-dual'));
    await sureOfLinkLocals(name);
    await allReach(name, async (host) => {
      const { mac } = await endpointOf('v6-dual', name(host));
      return `${formatIp6(linkLocalOf(parseMac(mac)))}%eth0`;
    });
    await docker(
      'h2',
      'exec',
      '-d',
      name('h2'),
      'iperf3',
      '-s',
      '-1',
      '-B',
      await address6Of('h2', name('h2'), 'v6-dual'),
    );
    const target = await address6Of('h2', name('h2'), 'v6-dual');
    await until('a megabyte by TCP', async () => {
      const r = await on('h1', 'docker', 'exec', name('h1'), 'iperf3', '-6', '-c', target, '-n', '1M');
      return r.code === 0;
    });
  });

  it('tells who asks for an address whether another has it, on its host and on others (RFC 4862, RFC 5227)', async () => {
    await sleeper('h3', 'six-dad', 'v6-dual', '--cap-add', 'NET_ADMIN');
    const base = parseCidr(network.subnets[1]!).base;
    const at = (offset: bigint): string => formatIp6(base + offset);
    const taken = await Promise.all(HOSTS.map((host) => address6Of(host, name(host), 'v6-dual')));
    const free = [at(0x3fn), at(0x7777_0000n), at((1n << 40n) + 5n)];
    for (const ip of [...taken, ...free])
      await docker('h3', 'exec', 'six-dad', 'ip', 'addr', 'add', `${ip}/64`, 'dev', 'eth0');
    const lines = await until('all are decided', async () => {
      const all = (await shown('h3', 'six-dad'))
        .split('\n')
        .filter((line) => line.includes('inet6') && line.includes('global'));
      const undecided = all.filter((line) => line.includes('tentative') && !line.includes('dadfailed'));
      return undecided.length === 0 && all;
    });
    const failed = (ip: string): boolean =>
      lines.some((line) => line.includes(` ${ip}/64`) && line.includes('dadfailed'));
    expect(taken.map(failed)).toEqual([true, true, true]);
    expect(free.map(failed)).toEqual([false, false, false]);
    const probe = async (ip: string): Promise<number> =>
      (await on('h3', 'docker', 'exec', 'six-dad', 'arping', '-D', '-q', '-c', '2', '-w', '3', '-I', 'eth0', ip)).code;
    for (const host of HOSTS) expect(await probe(await addressOf(host, name(host), 'v6-dual')), host).toBe(1);
    expect(await probe('10.96.9.9')).toBe(0);
    // What nobody gave it does not get out.
    const out = ['exec', 'six-dad', 'ping', '-c', '1', '-W', '1', '-I', free[1] ?? '', taken[0] ?? ''];
    expect((await on('h3', 'docker', ...out)).code).not.toBe(0);
    await docker('h3', 'rm', '-f', 'six-dad');
  });

  it('gives wanted addresses: of its blocks, of another host’s, of nobody’s, beyond what is automatic', async () => {
    const base = parseCidr(network.subnets[1]!).base;
    const other = parseIp(await address6Of('h2', name('h2'), 'v6-dual'));
    const wanted = [formatIp6(base + 0x1234_0000n), formatIp6(other + 9n), formatIp6(base + (5n << 48n) + 0x77n)];
    for (const [i, ip] of wanted.entries()) {
      await sleeper('h1', `six-given-${i}`, 'v6-dual', '--ip6', ip);
      expect((await endpointOf('v6-dual', `six-given-${i}`)).ips[1]).toBe(ip);
      for (const host of HOSTS) expect(await pings(host, name(host), ip), `${host} to ${ip}`).toBe(true);
    }
    const again = await on(
      'h3',
      'docker',
      'run',
      '--rm',
      '--network',
      'v6-dual',
      '--ip6',
      wanted[1] ?? '',
      IMAGE,
      'true',
    );
    expect(again.code).not.toBe(0);
    expect(again.stderr).toContain(`address ${wanted[1]}`);
    for (const [ip, sentence] of [
      [formatIp6(base + 1n), 'the gateway'],
      [formatIp6(base), 'the network address'],
      ['fd00:dead::1', 'not'],
    ] as const) {
      const refused = await on('h3', 'docker', 'run', '--rm', '--network', 'v6-dual', '--ip6', ip, IMAGE, 'true');
      expect(refused.code, ip).not.toBe(0);
      expect(refused.stderr, ip).toContain(sentence);
    }
  });

  it('keeps its addresses over restarts of container and agent, and the loss of its link', async () => {
    const ip = formatIp6(parseCidr(network.subnets[1]!).base + 0x42_0000n);
    await sleeper('h2', 'six-kept', 'v6-dual', '--ip6', ip);
    await docker('h2', 'restart', '-t', '0', 'six-kept');
    expect(await shown('h2', 'six-kept')).toContain(`inet6 ${ip}/64`);
    await weftOk('lab', 'kill', 'h2', 'agent');
    expect(await pings('h1', name('h1'), ip)).toBe(true);
    await weftOk('lab', 'start', 'h2', 'agent');
    await weftOk('wait');
    await auditClean();
    expect((await endpointOf('v6-dual', 'six-kept')).ips).toContain(ip);
    // Its link goes, and comes back with both addresses.
    const { id, ips } = await endpointOf('v6-dual', 'six-kept');
    await onOk('h2', 'ip', 'link', 'del', `wft${id.slice(0, 12)}`);
    await until('both addresses are back', async () => {
      const text = await shown('h2', 'six-kept');
      return text.includes(`inet ${ips[0]}/20`) && text.includes(`inet6 ${ip}/64`);
    });
    await until('it is reached again', () => pings('h1', name('h1'), ip));
  });
});

describe('a network of IPv6 alone', () => {
  const name = (host: string): string => `alone-${host}`;

  beforeAll(async () => {
    await weftOk('network', 'create', 'v6-alone', '--subnet', 'fd00:97::/64');
    for (const host of HOSTS) await sleeper(host, name(host), 'v6-alone');
  });

  it('has no IPv4 in it, and reaches everybody by address, link-local address and name', async () => {
    expect(await weftJson('network', 'inspect', 'v6-alone')).toMatchObject({
      subnets: ['fd00:97::/64'],
      gateways: ['fd00:97::1'],
    });
    for (const host of HOSTS) {
      const text = await shown(host, name(host));
      expect(text).not.toContain('inet ');
      const { ips, mac } = await endpointOf('v6-alone', name(host));
      expect(ips).toEqual([await address6Of(host, name(host), 'v6-alone')]);
      const low = (parseIp(ips[0]!) & 0xffff_ffffn).toString(16).padStart(8, '0');
      expect(mac).toBe(`02:59:${low.replace(/..(?=.)/g, '$&:')}`);
    }
    await allReach(name, (host) => address6Of(host, name(host), 'v6-alone'));
    await sureOfLinkLocals(name);
    await allReach(name, async (host) => {
      const { mac } = await endpointOf('v6-alone', name(host));
      return `${formatIp6(linkLocalOf(parseMac(mac)))}%eth0`;
    });
    await sleeper('h1', 'alone-second', 'v6-alone');
    expect(await pings('h1', name('h1'), 'alone-second')).toBe(true);
  });

  it('takes wanted addresses, and MACs that nobody can guess from them', async () => {
    await sleeper('h1', 'alone-far', 'v6-alone', '--ip6', 'fd00:97::1:0:0:7');
    // The same last 32 bits, and a MAC of its own.
    const mac = ['--ip6', 'fd00:97::2:0:0:7', '--mac', '02:aa:00:00:00:07'];
    await weftOk('network', 'connect', 'v6-alone', 'h2/dual-h2', ...mac);
    expect(await shown('h2', 'dual-h2', 'eth1')).toContain('02:aa:00:00:00:07');
    for (const ip of ['fd00:97::1:0:0:7', 'fd00:97::2:0:0:7'])
      for (const host of HOSTS) expect(await pings(host, name(host), ip), `${host} to ${ip}`).toBe(true);
  });

  it('is what docker network create makes of 0.0.0.0/0 and an IPv6 subnet, and connect takes --ip6', async () => {
    const pools = ['--ipv6', '--subnet', '0.0.0.0/0', '--subnet', 'fd00:98::/64'];
    await docker('h2', 'network', 'create', '-d', 'weft', '--ipam-driver', 'weft', ...pools, 'v6-docker');
    await weftOk('wait', '--network', 'v6-docker');
    expect(await weftJson('network', 'inspect', 'v6-docker')).toMatchObject({ subnets: ['fd00:98::/64'] });
    const connected = await weftJson('network', 'connect', 'v6-docker', `h1/${name('h1')}`, '--ip6', 'fd00:98::51');
    expect(connected).toMatchObject({ host: 'h1', ip6: 'fd00:98::51' });
    expect(await shown('h1', name('h1'), 'eth1')).toContain('inet6 fd00:98::51/64');
    await sleeper('h3', 'alone-docker', 'v6-docker');
    expect(await pings('h3', 'alone-docker', 'fd00:98::51')).toBe(true);
  });

  it('overlaps with no other', async () => {
    for (const subnet of ['fd00:97::/64', 'fd00:97::/48', 'fd00:97::8000:0:0:0/65']) {
      const refused = await weft('network', 'create', 'v6-over', '--subnet', subnet);
      expect(refused.code, subnet).toBe(1);
      expect(refused.stderr).toContain('overlaps');
    }
  });
});
