/** Virtual addresses where containers' links are ports of the kernel's Open vSwitch: translated before it, and after it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { datapathClean, endOf, HOSTS } from '../harness/kernel-box.ts';
import { clean, docker, onOk, pings, sleeper, until, weft, weftJson, weftOk } from '../harness/lab.ts';
import { answerers, Backend, calls, Held } from '../harness/service.ts';

const NET = 'ks';
/** Of the containers. */
const TARGET = 8080;
/** The guest is slow: a check has time. */
const CHECKED = ['--health', 'tcp', '--health-interval', '3s', '--health-timeout', '3s', '--health-rise', '1'];

interface Shown {
  readonly ips: string[];
  readonly backends: { readonly container: string | null; readonly state: string }[];
}

const servers = new Map<string, Backend>();
const serve = async (host: string, name: string): Promise<void> => {
  servers.set(name, await Backend.open(host, name, TARGET));
};
const stop = async (name: string): Promise<void> => {
  await servers.get(name)?.[Symbol.asyncDispose]();
  servers.delete(name);
};
const inspect = (): Promise<Shown> => weftJson<Shown>('service', 'inspect', 'web', '--network', NET);
const become = (...wanted: string[]): Promise<unknown> =>
  until(
    `${wanted.join(', ')} behind it`,
    async () => {
      const { backends } = await inspect();
      const healthy = backends.flatMap((b) => (b.state === 'healthy' ? [b.container ?? ''] : []));
      return String(healthy.sort()) === String(wanted);
    },
    120_000,
  );
/** Programs on a container's link, of both directions. */
const programs = async (host: string, name: string): Promise<string[]> => {
  const { port } = await endOf(host, name, NET);
  const shown = await Promise.all(
    ['ingress', 'egress'].map((hook) => onOk(host, 'tc', 'filter', 'show', 'dev', port, hook)),
  );
  return [...new Set(shown.flatMap((text) => [...text.matchAll(/service_\w+/g)].map((m) => m[0])))];
};
const BOTH = ['service_out', 'service_in'];

let vips: readonly string[] = [];

beforeAll(async () => {
  await weftOk('network', 'create', NET, '--ipv6');
  await weftOk('wait');
  // One after the other: with one processor, a host that starts several may lose its session over it.
  for (const host of HOSTS) {
    await sleeper(host, `ks-${host}`, NET, '--label', 'role=web');
    await serve(host, `ks-${host}`);
    await weftOk('wait');
  }
  await sleeper('h1', 'ks-c', NET);
  const ports = ['--port', '80:8080/tcp', '--port', 'ask=80:8080/udp'];
  await weftOk('service', 'create', 'web', '--network', NET, '--selector', 'role=web', ...ports, ...CHECKED);
  await become('ks-h1', 'ks-h2');
  await weftOk('wait');
  ({ ips: vips } = await inspect());
});

afterAll(async () => {
  for (const name of servers.keys()) await stop(name);
  await weft('service', 'rm', 'web', '--network', NET);
  await clean(HOSTS);
});

it('the hosts say that they can', async () => {
  for (const host of HOSTS) {
    const { probes } = await weftJson<{ probes: { name: string; result: string }[] }>('host', 'inspect', host);
    const result = (name: string): string | undefined => probes.find((p) => p.name === name)?.result;
    expect([result('datapath'), result('backend'), result('services')]).toEqual(['system', 'ovs-tunnel', 'yes']);
  }
});

describe('a virtual address', () => {
  it.each(['tcp', 'udp'] as const)('leads to endpoints of both hosts, who see the caller: %s', async (protocol) => {
    const { ip: ip4, ip6 } = await endOf('h1', 'ks-c', NET);
    expect(vips).toHaveLength(2);
    for (const ip of vips) {
      const some = await calls('h1', 'ks-c', { protocol, ip, port: 80 }, 20);
      expect(answerers(some), ip).toEqual(['ks-h1', 'ks-h2']);
      for (const { saw } of some) expect([ip4, ip6]).toContain(saw);
    }
  });

  it('leads from an endpoint behind it to the others', async () => {
    for (const ip of vips)
      expect(answerers(await calls('h2', 'ks-h2', { protocol: 'tcp', ip, port: 80 }, 10)), ip).toEqual(['ks-h1']);
  });

  it('answers a ping', async () => {
    for (const ip of vips) expect(await pings('h1', 'ks-c', ip, 3), ip).toBe(true);
  });

  it('keeps a connection while other containers come and go, and Open vSwitch is configured', async () => {
    const [ip = ''] = vips;
    await using held = await Held.open('h1', 'ks-c', ip, 80);
    const by = await held.ask();
    for (const name of ['ks-guest1', 'ks-guest2']) {
      await sleeper('h1', name, NET);
      expect(await held.ask()).toBe(by);
      expect(await programs('h1', name)).toEqual(BOTH);
    }
    await docker('h1', 'rm', '-f', 'ks-guest1', 'ks-guest2');
    await onOk('h1', 'ovs-vsctl', 'add-br', 'br-other');
    expect(await held.ask()).toBe(by);
    await onOk('h1', 'ovs-vsctl', 'del-br', 'br-other');
    expect(await held.ask()).toBe(by);
    expect(await programs('h1', 'ks-c')).toEqual(BOTH);
  });

  it('leaves who no longer answers; who is alone, and calls, answers itself', async () => {
    await stop('ks-h1');
    await become('ks-h2');
    await weftOk('wait');
    for (const ip of vips) {
      for (const [host, name] of [
        ['h1', 'ks-c'],
        ['h2', 'ks-h2'],
      ] as const)
        for (const protocol of ['tcp', 'udp'] as const)
          expect(
            answerers(await calls(host, name, { protocol, ip, port: 80 }, 5)),
            `${name} ${protocol} ${ip}`,
          ).toEqual(['ks-h2']);
    }
    await serve('h1', 'ks-h1');
    await become('ks-h1', 'ks-h2');
    await weftOk('wait');
  });

  it('is mended where somebody takes a program away', async () => {
    const { port } = await endOf('h1', 'ks-c', NET);
    await onOk('h1', 'tc', 'qdisc', 'del', 'dev', port, 'clsact');
    await until(
      'the programs are there again',
      async () => String(await programs('h1', 'ks-c')) === String(BOTH),
      60_000,
    );
    expect(answerers(await calls('h1', 'ks-c', { protocol: 'tcp', ip: vips[0] ?? '', port: 80 }, 10))).not.toContain(
      'nobody',
    );
  });
});

it('is as it should be', () => datapathClean());

it('leaves no programs on links when the service is gone', async () => {
  await weftOk('service', 'rm', 'web', '--network', NET);
  await weftOk('wait');
  for (const [host, name] of [
    ['h1', 'ks-c'],
    ['h2', 'ks-h2'],
  ] as const)
    expect(await programs(host, name)).toEqual([]);
  await datapathClean();
});
