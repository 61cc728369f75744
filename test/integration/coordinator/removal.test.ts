/** Networks are removed as soon as the last container has left, wherever the news of it still is. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { ControlService } from '../../../gen/weft/v1/control.ts';
import { SessionService } from '../../../gen/weft/v1/session.ts';
import { WeftError } from '../../../lib/errors.ts';
import { aHost, anEndpoint, Mesh, type Node, until } from './support.ts';

describe('removing a network over two coordinators', () => {
  let mesh: Mesh;
  let one: Node;
  let two: Node;

  beforeAll(async () => {
    mesh = await Mesh.start();
    one = await mesh.coordinator('coord1');
    two = await mesh.coordinator('coord2');
    await until('they know each other', () => one.opened.state.coordinators.size === 2);
  });
  afterAll(async () => {
    await mesh?.[Symbol.asyncDispose]();
  });

  const remove = (node: Node, network: string) =>
    mesh.call(node, ControlService.deleteNetwork, { project: '', network });

  /** Hosts 2n-1 on coord1 and 2n on coord2, each with one endpoint of the network, which leaves only when the host is asked to flush. */
  async function leaving(network: string, n: number, onFlush?: () => unknown) {
    const { id } = await mesh.network(one, network, `10.${30 + n}.0.0/24`);
    const asked: string[] = [];
    const join = async (node: Node, number: number) => {
      const host = aHost(number);
      const endpoint = anEndpoint(id, host.id, number, `10.${30 + n}.0.${number}`);
      const agent = await mesh.agent(node, host, {
        hello: { interest: [id] },
        onQuery: async (body) => {
          if (body.$case !== 'flush') return undefined;
          asked.push(host.name);
          if (onFlush !== undefined) return (await onFlush()) as undefined;
          await agent.register([], [endpoint.id]);
          return {};
        },
      });
      await agent.register([endpoint]);
      return { agent, endpoint };
    };
    const hosts = [await join(one, 2 * n - 1), await join(two, 2 * n)];
    await until('both coordinators know', () =>
      [one, two].every((node) => node.opened.state.endpoints.get(id)?.size === 2),
    );
    return { id, asked, hosts };
  }

  test('by a user: what has left, and is not registered yet, does not keep it', async () => {
    const { id, asked, hosts } = await leaving('left', 1);
    await remove(two, 'left');
    expect(asked.toSorted()).toEqual(['h1', 'h2']);
    expect(two.opened.state.networks.has(id)).toBe(false);
    for (const { agent } of hosts) await agent.close();
  });

  test('by Docker, which calls through the session of a host', async () => {
    const { id, asked, hosts } = await leaving('docker', 2);
    await hosts[0]!.agent.call(SessionService.removeNetwork, { networkId: id });
    expect(asked.toSorted()).toEqual(['h3', 'h4']);
    for (const { agent } of hosts) await agent.close();
  });

  test('what is really there is named after one question; hosts that cannot answer do not keep the refusal', async () => {
    const { id, asked, hosts } = await leaving('used', 3, () => ({}));
    const began = performance.now();
    await expect(remove(one, 'used')).rejects.toMatchObject({
      code: 'FAILED_PRECONDITION',
      message: expect.stringMatching(/c5 on h5.*c6 on h6|c6 on h6.*c5 on h5/),
    });
    expect(performance.now() - began).toBeLessThan(2000);
    expect(asked.toSorted()).toEqual(['h5', 'h6']);
    const [h5, h6] = hosts.map((host) => host.agent);
    await h6!.close();
    await until('h6 is down', () => !one.opened.state.presences.has(aHost(6).id));
    await expect(remove(one, 'used')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(asked).toHaveLength(3);
    await h5!.close();
    expect(one.opened.state.networks.has(id)).toBe(true);
  });

  test('a host between two sessions is waited for, where its endpoints are the last', async () => {
    const { id, hosts } = await leaving('between', 6);
    const [h11, h12] = hosts;
    await h12!.agent.register([], [h12!.endpoint.id]);
    await h11!.agent.close();
    await until('h11 is down', () => !two.opened.state.presences.has(aHost(11).id));
    const waits = vi.spyOn(two.coordinator.parts.fanout, 'returned');
    const removed = remove(two, 'between');
    removed.catch(() => undefined); // awaited below
    await until('it waits for the host', () => waits.mock.calls.length > 0);
    waits.mockRestore();
    // It still says that it has the endpoint: only the question brings the news.
    const back = await mesh.agent(two, aHost(11), {
      hello: { interest: [id], endpoints: [h11!.endpoint] },
      onQuery: async (body) => {
        if (body.$case !== 'flush') return undefined;
        await back.register([], [h11!.endpoint.id]);
        return {};
      },
    });
    await removed;
    expect(two.opened.state.networks.has(id)).toBe(false);
    await back.close();
    await h12!.agent.close();
  });

  test('an agent that does not answer, or does not know the question, costs a bounded time', async () => {
    const silent = await leaving('silent', 4, () => undefined);
    const began = performance.now();
    await expect(remove(two, 'silent')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    expect(performance.now() - began).toBeLessThan(6000);
    const older = await leaving('older', 5, () => {
      throw new WeftError('UNIMPLEMENTED', 'this agent does not know the question');
    });
    await expect(remove(two, 'older')).rejects.toMatchObject({ code: 'FAILED_PRECONDITION' });
    for (const { agent } of [...silent.hosts, ...older.hosts]) await agent.close();
  });

  test('what one coordinator has registered, another that has not heard of it yet asks nobody about', async () => {
    const asked: string[] = [];
    const h13 = await mesh.agent(one, aHost(13), {
      onQuery: (body) => {
        asked.push(body.$case);
        return {};
      },
    });
    for (let i = 0; i < 10; i++) {
      const network = await mesh.network(one, 'behind');
      const endpoint = anEndpoint(network.id, h13.host.id, 13, '10.40.0.13');
      await h13.register([endpoint]);
      await until('coord2 knows', () => two.opened.state.endpoints.get(network.id)?.size === 1);
      await h13.register([], [endpoint.id]);
      await remove(two, 'behind');
    }
    expect(asked).toEqual([]);
    await h13.close();
  });
});
