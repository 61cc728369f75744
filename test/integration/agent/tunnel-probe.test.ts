/** agent/probe/tunnel.pl between two namespaces with a tunnel device each, over IPv4 and IPv6. */
import { execFile, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { inside, Namespaces, sweepNamespaces } from '../../harness/bpf.ts';

const execute = promisify(execFile);
const PROGRAM = fileURLToPath(new URL('../../../agent/probe/tunnel.pl', import.meta.url));
const RUN = '0123456789abcdef';
const namespaces = new Namespaces();
let a = '';
let b = '';

/** What it answers, question by question. */
async function prober(netns: string, vtep: string): Promise<{ ask(line: string): Promise<string>; end(): void }> {
  const [link] = JSON.parse(await inside(netns, 'ip', '-j', 'link', 'show', 'weft-vxlan')) as [{ ifindex: number }];
  const words = [PROGRAM, 'weft-vxlan', String(link.ifindex), vtep, '4789', RUN];
  const child = spawn('nsenter', [`--net=/run/netns/${netns}`, 'perl', ...words], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const read = async (): Promise<string> => (await lines.next()).value ?? '';
  expect(await read()).toBe('ready');
  return {
    ask: (line) => {
      child.stdin.write(`${line}\n`);
      return read();
    },
    end: () => void child.stdin.end(),
  };
}

beforeAll(async () => {
  await sweepNamespaces();
  [a, b] = [await namespaces.add('ta'), await namespaces.add('tb')];
  const on = (netns: string, line: string) => inside(netns, 'ip', ...(line.split(' ') as [string]));
  for (const netns of [a, b])
    await execute('nsenter', [
      `--net=/run/netns/${netns}`,
      'sysctl',
      '-qw',
      'net.ipv6.conf.all.disable_ipv6=0',
      'net.ipv6.conf.default.disable_ipv6=0',
    ]);
  await on(a, `link add u0 mtu 1500 type veth peer name u0 netns ${b}`);
  for (const [netns, n] of [
    [a, 1],
    [b, 2],
  ] as const) {
    await on(netns, `addr add 192.0.2.${n}/24 dev u0`);
    await on(netns, `addr add fd00::${n}/64 dev u0 nodad`);
    await on(netns, 'link set u0 up');
    await on(netns, 'link add weft-vxlan type vxlan external dstport 4789 udp6zerocsumrx');
    await on(netns, 'link set weft-vxlan up');
  }
  // Takes 1500 and four more, sends 1400.
  await on(b, 'link set u0 mtu 1400');
});
afterAll(() => namespaces[Symbol.asyncDispose]());

it.each([
  ['192.0.2.1', '192.0.2.2'],
  ['fd00::1', 'fd00::2'],
])('%s and %s: sizes are those of the packets, each way for itself', async (left, right) => {
  const [one, two] = [await prober(a, left), await prober(b, right)];
  try {
    expect(await one.ask(`send 7 ${right} 128 1404 1405 1500 1501`)).toBe('refused 1501');
    expect(await two.ask('heard')).toBe('heard 7:128 7:1404');
    expect(await one.ask('heard')).toBe('heard');
    expect(await two.ask(`send 9 ${left} 1400 1401`)).toBe('refused 1401');
    expect(await one.ask('heard')).toBe('heard 9:1400');
    // Another run's are not ours.
    expect(await two.ask('heard')).toBe('heard 7:128 7:1404');
  } finally {
    one.end();
    two.end();
  }
});
