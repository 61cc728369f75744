/** Two networks that a router joins, where the kernel's Open vSwitch forwards. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { datapathClean, HOSTS } from '../harness/kernel-box.ts';
import { clean, docker, on, type Result, sleeper, weftOk } from '../harness/lab.ts';

const NETWORKS = ['kt-near', 'kt-far'] as const;
/** The far one takes less. */
const MTU = 1300;
const sandboxes = new Map<string, string>();
const addresses = new Map<string, { ip: string; ip6: string }>();
const inside = (host: string, container: string, ...command: string[]): Promise<Result> =>
  on(host, 'nsenter', `--net=${sandboxes.get(container)}`, ...command);
const ping = async (to: string, ...more: string[]): Promise<string> => {
  const { stdout } = await inside('h1', 'kt-a', 'ping', '-n', '-c', '2', '-i', '0.2', '-W', '5', ...more, to);
  return stdout;
};

const ENDS = [
  ['h1', 'kt-a', NETWORKS[0]],
  ['h1', 'kt-b', NETWORKS[1]],
  ['h2', 'kt-c', NETWORKS[1]],
] as const;

async function start([host, name, network]: (typeof ENDS)[number]): Promise<void> {
  await sleeper(host, name, network);
  const format = `{{json .NetworkSettings}}`;
  const of = JSON.parse(await docker(host, 'inspect', '-f', format, name)) as {
    SandboxKey: string;
    Networks: Record<string, { IPAddress: string; GlobalIPv6Address: string }>;
  };
  const { IPAddress: ip, GlobalIPv6Address: ip6 } = of.Networks[network]!;
  sandboxes.set(name, of.SandboxKey);
  addresses.set(name, { ip, ip6 });
}

beforeAll(async () => {
  await weftOk('network', 'create', NETWORKS[0], '--ipv6');
  await weftOk('network', 'create', NETWORKS[1], '--ipv6', '--mtu', String(MTU));
  await weftOk('router', 'create', 'kt-router', ...NETWORKS.flatMap((n) => ['--network', n]));
  // One after the other: more at once is too much for a guest's one processor.
  for (const end of ENDS) await start(end);
  await weftOk('wait');
}, 600_000);
afterAll(async () => {
  await weftOk('router', 'rm', 'kt-router');
  await clean(HOSTS);
});

it.each(['kt-b', 'kt-c'])('leads to %s, in both families, by one router', async (name) => {
  const { ip, ip6 } = addresses.get(name)!;
  for (const to of [ip, ip6]) {
    const text = await ping(to);
    expect(text, to).toContain(' 0% packet loss');
    expect(text).toContain('ttl=63');
  }
});

it('answers for its gateways, and says where a packet ends, and what is too big', async () => {
  const { ip, ip6 } = addresses.get('kt-c')!;
  expect(await ping(ip, '-t', '1')).toContain('Time to live exceeded');
  expect(await ping(ip6, '-t', '1')).toContain('Hop limit');
  expect(await ping(ip, '-M', 'do', '-s', String(MTU))).toContain(`mtu = ${MTU}`);
  expect(await ping(ip, '-M', 'do', '-s', String(MTU - 28))).toContain(' 0% packet loss');
  expect(await ping(ip.replace(/\.\d+$/, '.200'))).toMatch(/Unreachable|100% packet loss/);
});

it('is what it should be', datapathClean);
