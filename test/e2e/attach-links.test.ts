/** What is attached may have any name that Linux gives; a device or namespace that takes no link cuts off its own endpoint only, by name. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { driftEvents } from '../harness/drift.ts';
import { auditClean, clean, docker, on, onOk, sleeper, until, weft, weftJson, weftOk } from '../harness/lab.ts';

const HOSTS = ['h1', 'h2', 'h3'] as const;
const NET = 'odd';
const WEFT = new URL('../../bin/weft', import.meta.url).pathname;

interface Endpoint {
  readonly id: string;
  readonly name: string;
  readonly ips: readonly [string];
}
interface Link {
  readonly ifname: string;
  readonly mtu: number;
  readonly flags: readonly string[];
}

const ip = (...args: string[]): Promise<string> => onOk('h1', 'ip', ...args);
const attach = async (...args: string[]): Promise<Endpoint> =>
  JSON.parse(await onOk('h1', WEFT, 'attach', NET, ...args, '--json')) as Endpoint;
const detach = (name: string): Promise<string> => onOk('h1', WEFT, 'detach', name);
const linksOf = async (...where: string[]): Promise<Link[]> => JSON.parse(await ip(...where, '-j', 'link')) as Link[];
const conflicts = async (): Promise<string[]> =>
  (await weftJson<{ conflicts: { message: string }[] }>('status')).conflicts.map((c) => c.message);
const noConflicts = (): Promise<unknown> => until('no conflict', async () => (await conflicts()).length === 0);
/** Drift events of one object, oldest first. */
const toldOf = async (since: number, object: string) => (await driftEvents(since)).filter((e) => e.object === object);

let mtu = 0;
let other = '';
beforeAll(async () => {
  await weftOk('network', 'create', NET);
  await weftOk('wait');
  await sleeper('h2', 'odd-c2', NET);
  const field = `{{(index .NetworkSettings.Networks "${NET}").IPAddress}}`;
  other = await docker('h2', 'inspect', '-f', field, 'odd-c2');
  mtu = (await weftJson<{ mtu: number }>('network', 'inspect', NET)).mtu;
});
afterAll(async () => {
  for (const e of await weftJson<{ name: string; kind: string }[]>('endpoint', 'ls', '--network', NET))
    if (e.kind !== 'container') await on('h1', WEFT, 'detach', e.name);
  for (const name of ['foo#bar', 'foo', 'odd name', 'odd-dead']) await on('h1', 'ip', 'netns', 'del', name);
  for (const name of ['odd-mv', 'odd-low']) await on('h1', 'ip', 'link', 'del', 'dev', name);
  await clean(HOSTS);
  await auditClean();
});

describe('names', () => {
  const TAPS = ['help', 'dev', 'mtu', 'up', 'type', 'vf', 'link', 'name', 'tap7#x', `it's`, 'q"\\', 'a@b', '-h'];

  it('of taps may be words of ip, and hold what a batch cannot', async () => {
    for (const name of ['tap7', ...TAPS]) await ip('tuntap', 'add', 'dev', name, 'mode', 'tap');
    try {
      await Promise.all(TAPS.map((name, i) => attach(`--interface=${name}`, '--name', `odd-${i}`)));
      const links = new Map((await linksOf()).map((link) => [link.ifname, link]));
      for (const name of TAPS) {
        const link = links.get(name);
        expect([name, link?.mtu, link?.flags.includes('UP')]).toEqual([name, mtu, true]);
      }
      expect(links.get('tap7')?.flags).not.toContain('UP');
      // Changed by hand, they come back.
      const since = Date.now();
      for (const name of TAPS) await ip('link', 'set', 'dev', name, 'mtu', '1300');
      await until('their MTUs are back', async () => {
        const now = new Map((await linksOf()).map((link) => [link.ifname, link.mtu]));
        return TAPS.every((name) => now.get(name) === mtu);
      });
      await until('that is told', async () => {
        const healed = (await driftEvents(since)).filter((e) => e.healedAt !== null).map((e) => e.object);
        return TAPS.every((name) => healed.includes(name));
      });
      await auditClean();
    } finally {
      await Promise.all(TAPS.map((_, i) => on('h1', WEFT, 'detach', `odd-${i}`)));
      for (const name of ['tap7', ...TAPS]) await on('h1', 'ip', 'link', 'del', 'dev', name);
    }
    await noConflicts();
  });

  it.each(['foo#bar', 'odd name'])('of a namespace: %s; and of the link in it', async (netns) => {
    await ip('netns', 'add', netns);
    await ip('netns', 'add', 'foo');
    await attach('--netns', netns, '--ifname', 'x#y', '--name', 'odd-ns');
    const here = async (): Promise<string[]> => (await linksOf('-n', netns)).map((link) => link.ifname);
    expect(await here()).toEqual(['lo', 'x#y']);
    expect((await linksOf('-n', 'foo')).map((link) => link.ifname)).toEqual(['lo']);
    expect((await on('h1', 'ip', 'netns', 'exec', netns, 'ping', '-c', '1', '-W', '2', other)).code).toBe(0);
    // Made again inside.
    await ip('-n', netns, 'link', 'del', 'dev', 'x#y');
    await until('its link is back', async () => (await here()).includes('x#y'));
    await until(
      'it reaches',
      async () => (await on('h1', 'ip', 'netns', 'exec', netns, 'ping', '-c', '1', '-W', '1', other)).code === 0,
    );
    await detach('odd-ns');
    await ip('netns', 'del', netns);
    await ip('netns', 'del', 'foo');
    await auditClean();
  });

  it('that Linux does not give are refused', async () => {
    for (const name of ['a/b', 'a:b', 'a b', 'sixteen-letters-', 'ääääääää']) {
      const r = await on('h1', WEFT, 'attach', NET, `--interface=${name}`);
      expect([name, r.code, r.stderr]).toEqual([name, 1, expect.stringContaining('is not a name of an interface')]);
    }
  });
});

describe('a device that does not take its MTU', () => {
  it('cuts off its own endpoint, by name; all else goes on, and it comes back', async () => {
    await ip('link', 'add', 'odd-low', 'type', 'veth', 'peer', 'name', 'odd-peer');
    await ip('link', 'add', 'link', 'odd-low', 'name', 'odd-mv', 'type', 'macvtap', 'mode', 'bridge');
    const { ips } = await attach('--interface', 'odd-mv');
    const began = Date.now();
    await ip('link', 'set', 'dev', 'odd-low', 'mtu', '1300');
    const [conflict = ''] = await until('it is named', async () => {
      const all = await conflicts();
      return all.length > 0 ? all : null;
    });
    expect(conflict).toContain(`endpoint odd-mv (${ips[0]}) is cut off: `);
    expect(conflict).toContain('odd-mv');
    const told = await until('its drift is told', async () => {
      const all = await toldOf(began, 'odd-mv');
      return all.length > 0 ? all : null;
    });
    expect(told.map((e) => e.healedAt)).toEqual([null]);
    // Others do not notice.
    await sleeper('h1', 'odd-c1', NET);
    expect((await on('h1', 'docker', 'exec', 'odd-c1', 'ping', '-c', '1', '-W', '2', other)).code).toBe(0);
    await weftOk('wait', '--timeout', '10');
    expect(JSON.stringify(await weftJson('host', 'ls'))).not.toContain('lagging');
    expect((await weft('audit', '--no-heal')).stdout).toContain('odd-mv');
    // Another that is like it is refused, by name; with nothing left of it.
    await ip('link', 'add', 'link', 'odd-low', 'name', 'odd-mv2', 'type', 'macvtap', 'mode', 'bridge');
    const refused = await on('h1', WEFT, 'attach', NET, '--interface', 'odd-mv2');
    expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('odd-mv2')]);
    await ip('link', 'del', 'dev', 'odd-mv2');
    expect((await toldOf(began, 'odd-mv')).map((e) => e.healedAt)).toEqual([null]);

    await ip('link', 'set', 'dev', 'odd-low', 'mtu', '1500');
    await until('healed', async () => (await toldOf(began, 'odd-mv')).some((e) => e.healedAt !== null));
    await noConflicts();
    await auditClean();
    await detach('odd-mv');
  });
});

describe('a namespace where another interface has the name', () => {
  it('is named while its endpoint is dead, and has its link again when the name is free', async () => {
    await ip('netns', 'add', 'odd-dead');
    const { id } = await attach('--netns', 'odd-dead');
    const pair = [`wft${id.slice(0, 12)}`, `wfc${id.slice(0, 12)}`];
    const inside = (...args: string[]): Promise<string> => ip('-n', 'odd-dead', ...args);
    await inside('link', 'set', 'dev', 'weft0', 'down');
    await inside('link', 'set', 'dev', 'weft0', 'name', 'moved');
    await inside('link', 'add', 'weft0', 'type', 'veth', 'peer', 'name', 'squatter');
    const began = Date.now();
    await inside('link', 'del', 'dev', 'moved');
    const [conflict = ''] = await until('it is named', async () => {
      const all = await conflicts();
      return all.length > 0 ? all : null;
    });
    expect(conflict).toContain('endpoint odd-dead (');
    expect(conflict).toContain('name weft0');
    await until('its drift is told', async () => (await toldOf(began, pair[0] ?? '')).length > 0);
    expect((await toldOf(began, pair[0] ?? '')).map((e) => e.healedAt)).toEqual([null]);
    expect((await weft('audit', '--no-heal')).code).toBe(1);
    await weftOk('wait', '--timeout', '10');
    // The other's is left as it was.
    const squatter = (await linksOf('-n', 'odd-dead')).find((link) => link.ifname === 'weft0');
    expect(squatter?.flags).not.toContain('UP');

    await inside('link', 'del', 'dev', 'weft0');
    await until(
      'it reaches again',
      async () => (await on('h1', 'ip', 'netns', 'exec', 'odd-dead', 'ping', '-c', '1', '-W', '1', other)).code === 0,
    );
    await noConflicts();
    await until('clean', async () => (await weft('audit', '--no-heal')).code === 0);
    expect((await linksOf('-n', 'odd-dead')).map((link) => link.ifname).filter((n) => n.startsWith('wf'))).toEqual([]);
    await detach('odd-dead');
    await ip('netns', 'del', 'odd-dead');
  });
});
