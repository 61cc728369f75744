/**
 * UDP segmentation offload (QUIC uses it) between places of every kind: Open vSwitch's userspace datapath knows no such segments, so
 * the kernel must cut them before it, and on the express path they stay whole.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { configure } from '../harness/drift.ts';
import { auditClean, clean, on, onOk, sleeper, until, WEFT, weft, weftJson, weftOk } from '../harness/lab.ts';
import { DATAGRAMS, type End, segmentsThrough } from '../harness/segments.ts';
import { boxOf } from '../harness/wire.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NET = 'segments';
const NETNS = 'segments-ns';

interface Place extends End {
  readonly name: string;
  readonly ips: readonly string[];
}
const places = new Map<string, Place>();
const place = (name: string): Place => places.get(name) as Place;

/** With an address that nobody checks for it, an endpoint does not take the express path. */
async function slow(name: string, free: string): Promise<void> {
  await weftOk('endpoint', 'set', name, '--allow-address', free);
  await until(
    `${name} is off the express path`,
    async () => (await weftJson<{ express: boolean }>('endpoint', 'inspect', name)).express === false,
  );
}

describe.each([true, false])('express %s', (express) => {
  beforeAll(async () => {
    if (!express) for (const host of HOSTS) await configure(host, { express: false });
    await weftOk('wait');
    await weftOk('network', 'create', NET, '--subnet', '10.97.0.0/24', '--ipv6', '--allow-trust');
    const trusting = `name=${NET},driver-opt=weft.trust=true`;
    for (const [host, name, network] of [
      ['h1', 'sg-fast', NET],
      ['h1', 'sg-slow', NET],
      ['h1', 'sg-near', NET],
      ['h2', 'sg-far', NET],
      ['h2', 'sg-farslow', NET],
      ['h2', 'sg-trusted', trusting],
    ] as const) {
      await sleeper(host, name, network);
      const { ip, ip6, sandbox } = await boxOf(host, name, NET);
      places.set(name, { host, name, sandbox, ips: [ip, ip6] });
    }
    await onOk('h1', 'ip', 'netns', 'add', NETNS);
    const attach = ['attach', NET, '--netns', NETNS, '--json'];
    const { ips } = JSON.parse(await onOk('h1', WEFT, ...attach)) as { ips: string[] };
    places.set(NETNS, { host: 'h1', name: NETNS, sandbox: `/run/netns/${NETNS}`, ips });
    await slow('h1/sg-slow', '10.97.0.200');
    await slow('h2/sg-farslow', '10.97.0.201');
    await weftOk('wait');
  });
  afterAll(async () => {
    await on('h1', WEFT, 'detach', NETNS);
    await on('h1', 'ip', 'netns', 'del', NETNS);
    await clean(HOSTS);
    if (!express) for (const host of HOSTS) await configure(host, { express: null });
    await weftOk('wait');
    await auditClean();
  });

  it.each([
    ['sg-fast', 'sg-far'],
    ['sg-fast', 'sg-near'],
    ['sg-fast', 'sg-slow'],
    ['sg-fast', 'sg-farslow'],
    ['sg-slow', 'sg-near'],
    ['sg-slow', 'sg-far'],
    ['sg-slow', 'sg-farslow'],
    ['sg-fast', 'sg-trusted'],
    ['sg-trusted', 'sg-fast'],
    [NETNS, 'sg-slow'],
    [NETNS, 'sg-farslow'],
    ['sg-farslow', NETNS],
  ])('%s to %s', async (from, to) => {
    for (const family of [0, 1]) {
      const [own, other] = [place(from).ips[family] ?? '', place(to).ips[family] ?? ''];
      // What waits for the other's MAC is queued, but for so many bytes.
      const ping = ['ping', '-c', '1', '-W', '1', '-I', own, other];
      await until(
        'it is reached',
        async () => (await on(place(from).host, 'nsenter', `--net=${place(from).sandbox}`, ...ping)).code === 0,
      );
      const arrived = await segmentsThrough(place(from), own, place(to), other);
      expect(`${arrived} from ${own} to ${other}`).toBe(`${DATAGRAMS} from ${own} to ${other}`);
    }
  });

  it.runIf(express)('what an earlier agent has made is mended', async () => {
    const links = ['weft-tk', 'weft-gw', (await boxOf('h1', 'sg-slow', NET)).link.replace('wft', 'wfk')];
    for (const link of links) await onOk('h1', 'ethtool', '-K', link, 'tx', 'on', 'tx-udp-segmentation', 'on');
    await configure('h1', {});
    for (const link of links)
      await until(link, async () => /tx-udp-segmentation: off/.test(await onOk('h1', 'ethtool', '-k', link)));
    const [from, to] = [place('sg-slow'), place('sg-near')];
    expect(await segmentsThrough(from, from.ips[0] ?? '', to, to.ips[0] ?? '')).toBe(DATAGRAMS);
  });

  it('nothing is amiss', async () => {
    expect((await weft('status', '--json')).code).toBe(0);
  });
});
