import { describe, expect, it } from 'vitest';
import type { Journal, LocalEndpoint } from '../../../agent/contract.ts';
import type { Standing } from '../../../agent/express.ts';
import { type Register, Registrar, recordOf } from '../../../agent/session/registrar.ts';
import { CODES, WeftError } from '../../../lib/errors.ts';
import { silentLog } from '../../../lib/log.ts';

const PLAIN: Standing = { trusted: false, express: true };

const NONE = { epoch: 1n, number: 0n };
const endpoint = (id: string): LocalEndpoint =>
  ({
    id,
    networkId: 'n',
    ip: '10.0.0.2',
    mac: '02:58:0a:00:00:02',
    container: null,
    labels: {},
    aliases: [],
  }) as unknown as LocalEndpoint;

/** What a hello carried of them, when it knew their ports or not yet. */
const hello = (endpoints: ReadonlyMap<string, LocalEndpoint>, only?: string, ofport = 1) =>
  new Map(
    [...endpoints]
      .filter(([id]) => only === undefined || id === only)
      .map(([id, e]) => [id, { endpoint: e, told: recordOf(e, 'h', ofport, PLAIN) }]),
  );

function setup(...ids: string[]) {
  const endpoints = new Map(ids.map((id) => [id, endpoint(id)]));
  const journal = { endpoints } as unknown as Journal;
  const calls: { upserts: string[]; removed: string[] }[] = [];
  const registrar = new Registrar(journal, (e) => recordOf(e, 'h', 1, PLAIN), silentLog());
  const register =
    (refused: string[] = []): Register =>
    async (r) => {
      calls.push({ upserts: r.upserts.map((e) => e.id), removed: r.removed });
      return {
        revision: { epoch: 1n, number: BigInt(calls.length) },
        refused: refused.map((endpointId) => ({
          endpointId,
          code: CODES.ALREADY_EXISTS,
          message: 'taken\nhint: another',
        })),
      };
    };
  return { endpoints, registrar, calls, register };
}

describe('the registrar', () => {
  it('registers what the hello did not carry, once', async () => {
    const { registrar, calls, register, endpoints } = setup('a', 'b');
    registrar.session(register(), hello(endpoints, 'a'), NONE);
    expect(await registrar.registered('b')).toEqual({ epoch: 1n, number: 1n });
    expect(calls).toEqual([{ upserts: ['b'], removed: [] }]);
  });

  it('tells port numbers that the hello did not know yet', async () => {
    const { registrar, calls, register, endpoints } = setup('a');
    registrar.session(register(), hello(endpoints, 'a', 0), NONE);
    await expect.poll(() => calls).toEqual([{ upserts: ['a'], removed: [] }]);
  });

  it('tells who is not healthy any more, though the journal is the same', async () => {
    const { endpoints, calls, register } = setup('a', 'b');
    let sick: string[] = [];
    const record = (e: LocalEndpoint) => recordOf(e, 'h', 1, PLAIN, e.id === 'a' ? sick : []);
    const registrar = new Registrar({ endpoints } as unknown as Journal, record, silentLog());
    registrar.session(register(), hello(endpoints), NONE);
    registrar.kick();
    sick = ['s1'];
    registrar.kick();
    await expect.poll(() => calls).toEqual([{ upserts: ['a'], removed: [] }]);
    registrar.kick();
    expect(calls).toHaveLength(1);
  });

  it('tells what left, and what changed', async () => {
    const { registrar, calls, register, endpoints } = setup('a', 'b');
    registrar.session(register(), hello(endpoints), NONE);
    endpoints.delete('a');
    endpoints.set('b', { ...endpoint('b'), labels: { tier: 'db' } });
    await registrar.registered('b');
    expect(calls).toEqual([{ upserts: ['b'], removed: ['a'] }]);
  });

  it('keeps to itself what is nobody else’s business', async () => {
    const { registrar, calls, register, endpoints } = setup('a');
    registrar.session(register(), hello(endpoints), NONE);
    endpoints.set('a', { ...endpoint('a'), sandbox: '/run/docker/netns/1', interfaceName: 'eth0' });
    expect(await registrar.registered('a')).toEqual(NONE);
    expect(calls).toEqual([]);
  });

  it('fails who waits for a refused endpoint, and nobody else', async () => {
    const { registrar, calls, register } = setup('a', 'b');
    registrar.session(register(['a']), new Map(), NONE);
    await expect(registrar.registered('a')).rejects.toMatchObject({ code: 'ALREADY_EXISTS', hint: 'another' });
    await expect(registrar.registered('b')).resolves.toBeDefined();
    await expect(registrar.registered('a')).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    expect(calls).toHaveLength(1);
  });

  it('fails at once without a session, and when it ends', async () => {
    const { registrar } = setup('a');
    await expect(registrar.registered('a')).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    registrar.session(() => new Promise(() => undefined), new Map(), NONE);
    const waiting = registrar.registered('a');
    registrar.session(null, new Map(), NONE);
    await expect(waiting).rejects.toMatchObject({ code: 'UNAVAILABLE' });
  });

  it('tries again by itself after a failure', async () => {
    const { registrar, calls, register } = setup('a');
    let first = true;
    const flaky: Register = (r) => {
      if (!first) return register()(r);
      first = false;
      return Promise.reject(new WeftError('UNAVAILABLE', 'etcd is away'));
    };
    registrar.session(flaky, new Map(), NONE);
    await expect.poll(() => calls.length, { timeout: 10_000 }).toBe(1);
  });

  describe('flushed', () => {
    /** Resolves true when the promise is still waiting after everything else has had its turn. */
    const waits = (promise: Promise<void>) =>
      Promise.race([promise.then(() => false), new Promise<boolean>((r) => setImmediate(() => r(true)))]);

    it('is done at once when the coordinator has all', async () => {
      const { registrar, calls, register, endpoints } = setup('a');
      registrar.session(register(), hello(endpoints), NONE);
      await registrar.flushed();
      expect(calls).toEqual([]);
    });

    it('waits for what is pending, in however many batches', async () => {
      const ids = Array.from({ length: 250 }, (_, i) => `e${i}`);
      const { registrar, calls, register, endpoints } = setup(...ids);
      registrar.session(register(), hello(endpoints), NONE);
      endpoints.clear();
      await registrar.flushed();
      expect(calls.flatMap((call) => call.removed)).toEqual(ids);
    });

    it('waits for the call under way: an endpoint that has left meanwhile is taken back first', async () => {
      const { registrar, calls, register, endpoints } = setup('a');
      const answer = Promise.withResolvers<void>();
      registrar.session(
        async (r) => {
          await answer.promise;
          return register()(r);
        },
        new Map(),
        NONE,
      );
      endpoints.delete('a');
      const flushed = registrar.flushed();
      expect(await waits(flushed)).toBe(true);
      answer.resolve();
      await flushed;
      expect(calls).toEqual([
        { upserts: ['a'], removed: [] },
        { upserts: [], removed: ['a'] },
      ]);
    });

    it('does not wait for what comes later, nor for what is refused', async () => {
      const { registrar, register, endpoints } = setup('a');
      const second = Promise.withResolvers<never>();
      let calls = 0;
      registrar.session((r) => (calls++ === 0 ? register(['a'])(r) : second.promise), new Map(), NONE);
      const flushed = registrar.flushed();
      endpoints.set('b', endpoint('b'));
      await flushed;
      await expect.poll(() => calls).toBe(2);
      await expect(waits(registrar.flushed())).resolves.toBe(true);
    });

    it('fails without a session, when it ends, and with the call that fails', async () => {
      const { registrar } = setup('a');
      await expect(registrar.flushed()).rejects.toMatchObject({ code: 'UNAVAILABLE' });
      const answer = Promise.withResolvers<never>();
      registrar.session(() => answer.promise, new Map(), NONE);
      const [first, second] = [registrar.flushed(), registrar.flushed()];
      answer.reject(new WeftError('DEADLINE_EXCEEDED', 'etcd is away'));
      await expect(first).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
      await expect(second).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
      const third = registrar.flushed();
      registrar.session(null, new Map(), NONE);
      await expect(third).rejects.toMatchObject({ code: 'UNAVAILABLE' });
    });

    it('takes back what a call may have put whose answer was lost', async () => {
      const { registrar, calls, register, endpoints } = setup('a');
      let first = true;
      registrar.session(
        (r) => {
          if (!first) return register()(r);
          first = false;
          return Promise.reject(new WeftError('DEADLINE_EXCEEDED', 'no answer'));
        },
        new Map(),
        NONE,
      );
      await expect(registrar.registered('a')).rejects.toMatchObject({ code: 'DEADLINE_EXCEEDED' });
      endpoints.delete('a');
      await registrar.flushed();
      expect(calls).toEqual([{ upserts: [], removed: ['a'] }]);
    });
  });
});
