/** Which endpoints of this host answer, and what is believed of those that have not been asked. */
import { describe, expect, it } from 'vitest';
import type { LocalEndpoint } from '../../../../agent/contract.ts';
import type { Target } from '../../../../agent/services/check.ts';
import { Health } from '../../../../agent/services/health.ts';
import { unreached } from '../../../../agent/services/index.ts';
import { FakeClock } from '../../../../lib/clock.ts';
import { silentLog } from '../../../../lib/log.ts';
import type { View } from '../../../../lib/model.ts';
import { mine, N, OWN, row, service, tcpCheck, theirs, viewOf, type World } from './support.ts';

function setup(world: World, endpoints: LocalEndpoint[], options: { ipv6?: boolean } = {}) {
  const clock = new FakeClock();
  const asked: Target[] = [];
  const state = {
    view: viewOf(world) as View,
    endpoints: new Map(endpoints.map((e) => [e.id, e])),
    /** Transit addresses that answer. */
    up: new Set<string>(),
    sees: true,
    changes: 0,
  };
  const health = new Health({
    journal: {
      get endpoints() {
        return state.endpoints;
      },
      networks: new Map([[N, row]]),
    },
    view: () => state.view,
    ipv6: options.ipv6 ?? true,
    ask: (target) => {
      asked.push(target);
      return Promise.resolve(state.up.has(target.host));
    },
    sees: () => state.sees,
    onChange: () => {
      state.changes++;
    },
    clock,
    log: silentLog(),
  });
  return { clock, asked, state, health };
}

const CHECKED = service('s', { health: tcpCheck() });
const A = mine('a', '10.1.0.2', { transit: '169.254.70.1' });

describe('health', () => {
  it('is nobody’s before he has answered, and changes with rows of results', async () => {
    const { clock, health, state } = setup({ services: [CHECKED] }, [A]);
    health.start();
    expect(health.unhealthy(A)).toEqual(['s']);
    await clock.advance(5_000);
    expect(health.unhealthy(A)).toEqual(['s']);
    expect(state.changes).toBe(0);
    state.up.add('169.254.70.1');
    await clock.advance(1_000);
    expect(health.unhealthy(A)).toEqual([]);
    state.up.clear();
    await clock.advance(500);
    expect(health.unhealthy(A)).toEqual([]);
    await clock.advance(500);
    expect(health.unhealthy(A)).toEqual(['s']);
    expect(state.changes).toBe(2);
    expect(health.counts).toMatchObject({ healthy: 0, unhealthy: 1, answered: 2 });
  });

  it('is everybody’s without a check, and where nothing can be asked', () => {
    const other = service('t', { health: tcpCheck(), selector: { role: 'db' } });
    const { health } = setup({ services: [service('s'), other] }, [A]);
    health.start();
    expect(health.unhealthy(A)).toEqual([]);
    const six = mine('b', 'fd00::2', { ip: '', ip6: 'fd00::2' });
    const without = setup({ services: [CHECKED] }, [six], { ipv6: false });
    without.health.start();
    expect(without.health.unhealthy(six)).toEqual([]);
    const pending = mine('c', '10.1.0.4', { container: null });
    const early = setup({ services: [CHECKED] }, [pending]);
    early.health.start();
    expect(early.health.unhealthy(pending)).toEqual([]);
  });

  it('is asked for once by services that ask the same, and known to one that comes later', async () => {
    const slow = (id: string, rise: number) => service(id, { health: tcpCheck({ intervalMs: 60_000, rise, fall: 1 }) });
    const { clock, health, state, asked } = setup({ services: [slow('s', 1), slow('t', 2)] }, [A]);
    state.up.add('169.254.70.1');
    health.start();
    await clock.advance(2_000);
    expect(asked).toHaveLength(1);
    expect(health.unhealthy(A)).toEqual(['t']);
    expect(state.changes).toBe(1);
    state.view = viewOf({ services: [slow('s', 1), slow('t', 2), slow('u', 1)] });
    expect(health.look()).toBe(true);
    expect(health.unhealthy(A)).toEqual(['t']);
    await clock.advance(60_000);
    expect(asked).toHaveLength(2);
    expect(health.unhealthy(A)).toEqual([]);
  });

  it('is known of who has just come, before anybody has looked', () => {
    const { health, state } = setup({ services: [CHECKED] }, []);
    health.start();
    state.endpoints.set('a', A);
    expect(health.unhealthy(A)).toEqual(['s']);
  });

  it('after a restart is what was registered, until there are results', async () => {
    const record = theirs('a', '10.1.0.2', { hostId: OWN });
    const sick = theirs('b', '10.1.0.3', { hostId: OWN, unhealthy: ['s'] });
    // It was registered before anybody knew its labels.
    const blank = theirs('c', '10.1.0.4', { hostId: OWN, labels: {} });
    const [b, c] = [mine('b', '10.1.0.3'), mine('c', '10.1.0.4')];
    const { clock, health } = setup({ services: [CHECKED], theirs: [record, sick, blank] }, [A, b, c]);
    health.start();
    expect([A, b, c].map((e) => health.unhealthy(e))).toEqual([[], ['s'], ['s']]);
    await clock.advance(2_000);
    expect(health.unhealthy(A)).toEqual(['s']);
  });

  it('is kept whatever else changes, and forgotten with service or endpoint', async () => {
    const { clock, health, state } = setup({ services: [CHECKED] }, [A]);
    state.up.add('169.254.70.1');
    health.start();
    await clock.advance(2_000);
    expect(health.unhealthy(A)).toEqual([]);
    state.view = viewOf({ services: [{ ...CHECKED, affinityS: 5 }, service('t', { health: tcpCheck() })] });
    expect(health.look()).toBe(true);
    expect(health.unhealthy(A)).toEqual(['t']);
    expect(health.look()).toBe(false);
    const renamed = { ...A, interfaceName: 'eth0' };
    state.endpoints.set('a', renamed);
    health.look();
    expect(health.unhealthy(renamed)).toEqual(['t']);
    state.view = viewOf({ services: [] });
    health.look();
    state.view = viewOf({ services: [CHECKED] });
    health.look();
    expect(health.unhealthy(renamed)).toEqual(['s']);
  });

  it('does not change while nobody can be reached', async () => {
    const { clock, health, state } = setup({ services: [CHECKED] }, [A]);
    state.up.add('169.254.70.1');
    health.start();
    await clock.advance(2_000);
    state.sees = false;
    state.up.clear();
    await clock.advance(10_000);
    expect(health.unhealthy(A)).toEqual([]);
  });

  it('is asked at the transit address, by the family that clients use', async () => {
    const both = { ...A, ip6: 'fd00::2' };
    const http = tcpCheck({ type: 'http', path: '/ready', port: 9000 });
    const world = { services: [CHECKED, service('six', { ips: ['fd00::9'], health: http })] };
    const { clock, health, asked } = setup(world, [both]);
    health.start();
    await clock.advance(500);
    const one = (type: string) => asked.find((t) => t.type === type);
    const [four, six] = ['169.254.70.1', 'fd57:6566:7400::a9fe:4601'];
    expect(one('tcp')).toMatchObject({ host: four, port: 8080, from: '169.254.64.1', timeoutMs: 200 });
    expect(one('http')).toMatchObject({
      host: six,
      port: 9000,
      from: 'fd57:6566:7400::a9fe:4001',
      path: '/ready',
      name: '[fd00::2]',
    });
  });
});

it('a host says which services its containers do not reach', () => {
  const journal = { endpoints: new Map([['a', A]]), networks: new Map([[N, row]]) };
  const view = viewOf({ services: [service('db'), service('api'), service('flat', { ips: [] })] });
  expect(unreached('h1', view, journal, 'No eBPF.')).toEqual(
    ['api', 'db'].map((name) => ({
      host: 'h1',
      network: 'web',
      message: `service ${name} of network web is not reachable from containers of this host: No eBPF.`,
    })),
  );
  expect(unreached('h1', view, { ...journal, endpoints: new Map() }, 'No eBPF.')).toEqual([]);
});
