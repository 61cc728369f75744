/** Links that cannot be made or set: whose matter that is, when they are tried again, what is believed of ip. */
import { describe, expect, it } from 'vitest';
import type { LocalEndpoint } from '../../../agent/contract.ts';
import { LinkFailures } from '../../../agent/link/failures.ts';
import type { Link, LinkStep } from '../../../agent/link/steps.ts';
import { LinkSide } from '../../../agent/linkside.ts';
import { blameOf } from '../../../agent/plan/blame.ts';
import type { DesiredLink } from '../../../agent/plan/links.ts';
import { silentLog } from '../../../lib/log.ts';

const ID = 'abcdef0123456789'.repeat(4);
const NAME = `wft${ID.slice(0, 12)}`;
const TAPS = ['good', 'bad'] as const;
const device = (name: string): DesiredLink => ({ kind: 'device', name, mtu: 1450 });
const VETH = {
  kind: 'endpoint',
  name: NAME,
  container: `wfc${ID.slice(0, 12)}`,
  mtu: 1450,
  mac: '02:58:0a:00:00:01',
  joined: null,
} as const;

/** A host that has links, and refuses what the test says. */
function host(...names: readonly string[]) {
  const links = new Map<string, Link>(names.map((name, i) => [name, { name, mtu: 1500, up: false, ifindex: i + 1 }]));
  const refuses = new Set<string>();
  const unfinished = new Set<string>();
  const ignores = new Set<string>();
  const tried: string[] = [];
  let now = 0;
  const of = (step: LinkStep): string => ('name' in step ? step.name : step.host);
  const driver = {
    observe: async () => new Map(links),
    apply: async (steps: readonly LinkStep[]) => {
      const failed = new Map<LinkStep, string>();
      for (const step of steps) {
        const name = of(step);
        tried.push(name);
        if (refuses.has(name)) failed.set(step, `${name}: Invalid argument`);
        else if (step.kind === 'delLink') {
          if (!links.delete(name)) failed.set(step, 'Cannot find device');
        } else if (!ignores.has(name)) links.set(name, { name, mtu: step.mtu, up: true, ifindex: 9 });
      }
      return failed;
    },
    finish: async (steps: readonly LinkStep[]) => {
      const failed = steps.filter((step) => unfinished.has(of(step)));
      for (const step of failed) links.delete(of(step));
      return new Map(failed.map((step) => [step, `${of(step)}: File exists`]));
    },
    watch: () => undefined,
    close: () => undefined,
  };
  const side = new LinkSide({ driver, clock: { monotonic: () => now }, log: silentLog() });
  /** A pass; drift: what is planned is somebody else's doing. */
  const pass = async (desired: readonly DesiredLink[], drift = false): Promise<string[]> => {
    const planned = await side.plan(desired, false);
    const made = await side.make(planned);
    await side.finish(desired, drift ? planned : []);
    return made.map((p) => p.id);
  };
  return { links, refuses, unfinished, ignores, tried, side, pass, later: (ms: number) => (now += ms) };
}

describe('a link that cannot be set', () => {
  it('holds up no other, is named, and tried again ever more seldom', async () => {
    const { refuses, tried, side, pass, later } = host(...TAPS);
    refuses.add('bad');
    expect(await pass(TAPS.map(device))).toEqual(['good']);
    expect([...side.failures]).toEqual([['bad', 'bad: Invalid argument']]);
    expect(side.retryInMs).toBe(500);
    tried.length = 0;
    await pass(TAPS.map(device));
    expect(tried).toEqual([]);
    expect(side.failures.size).toBe(1);
    later(500);
    await pass(TAPS.map(device));
    expect(tried).toEqual(['bad']);
    expect(side.retryInMs).toBe(1000);
    refuses.clear();
    later(1000);
    expect(await pass(TAPS.map(device))).toEqual(['bad']);
    expect([side.failures.size, side.retryInMs]).toEqual([0, null]);
  });

  it('is forgotten when nobody wants it, or it is gone', async () => {
    const { links, refuses, side, pass } = host(...TAPS);
    refuses.add('bad');
    await pass(TAPS.map(device));
    links.delete('bad');
    side.forget();
    await pass(TAPS.map(device));
    expect(side.failures.size).toBe(0);
  });

  it('has not failed when it is as it should be', async () => {
    const { links, refuses, side, pass } = host('bad');
    refuses.add('bad');
    const planned = await side.plan([device('bad')], false);
    links.set('bad', { name: 'bad', mtu: 1450, up: true, ifindex: 1 });
    expect(await side.make(planned)).toEqual([]);
    await side.finish([device('bad')], []);
    expect(side.failures.size).toBe(0);
    expect(await pass([device('bad')])).toEqual([]);
  });

  it('has failed when ip says that it is set, and it is not', async () => {
    const { ignores, side, pass } = host('bad');
    ignores.add('bad');
    await pass([device('bad')], true);
    expect([...side.failures.values()]).toEqual(['bad is mtu 1500 down all the same, not mtu 1450 up']);
  });

  it('that cannot be finished is made anew', async () => {
    const { unfinished, links, side, pass, later } = host();
    unfinished.add(NAME);
    expect(await pass([VETH])).toEqual([NAME]);
    expect([...side.failures.keys()]).toEqual([NAME]);
    expect(side.links?.has(NAME)).toBe(false);
    unfinished.clear();
    later(500);
    expect(await pass([VETH])).toEqual([NAME]);
    expect([side.failures.size, links.has(NAME)]).toEqual([0, true]);
  });

  it('that cannot be put back into its sandbox is no link to go on with', async () => {
    const { unfinished, side, pass } = host();
    unfinished.add(NAME);
    const joined = { sandbox: '/run/netns/x', interfaceName: 'weft0', addresses: [] };
    expect(await pass([{ ...VETH, joined }], true)).toEqual([]);
    expect([...side.failures.values()]).toEqual([`${NAME}: File exists`]);
  });
});

it('another step for the same link is tried at once', () => {
  const failures = new LinkFailures();
  const set = (mtu: number) => ({ id: 'tap', step: { kind: 'setLink', name: 'tap', peer: null, mtu } as const });
  failures.note(set(1450), 'no', 0);
  expect([failures.isDue(set(1450), 499), failures.isDue(set(1400), 0), failures.isDue(set(1450), 500)]).toEqual([
    false,
    true,
    true,
  ]);
  for (let now = 0, n = 0; n < 9; n++, now += 10_000) failures.note(set(1450), 'no', now);
  expect(failures.dueIn(80_000)).toBe(5_000);
});

describe('who is to blame', () => {
  const endpoint = (over: Partial<LocalEndpoint>) =>
    ({ id: ID, ip: '10.0.0.2', ip6: '', container: null, ...over }) as LocalEndpoint;
  const tap = endpoint({ attached: { kind: 'tap', name: 'vm', link: 'tap0', mtu: 1500, up: false } });

  it('an endpoint, by name, is cut off alone; the host by its own links', () => {
    expect(blameOf(new Map([['tap0', 'why']]), [tap])).toEqual({
      endpoints: new Map([[ID, 'endpoint vm (10.0.0.2) is cut off: why']]),
      host: '',
    });
    const web = endpoint({ container: { id: 'c', name: 'web' } });
    expect([...blameOf(new Map([[NAME, 'why']]), [web]).endpoints.values()]).toEqual([
      'endpoint web (10.0.0.2) is cut off: why',
    ]);
    expect(blameOf(new Map([['weft-gw', 'why']]), [tap]).host).toBe('why');
    // Its endpoint has left.
    expect(blameOf(new Map([[NAME, 'why']]), []).host).toBe('');
  });
});
