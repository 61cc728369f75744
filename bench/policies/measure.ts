/** Policies at size, on a real Open vSwitch: what compiling and installing costs, and what becomes of packets meanwhile. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { FlowSide } from '../../agent/flowside.ts';
import { OpenFlowClient } from '../../agent/openflow/client.ts';
import { FlowDriver } from '../../agent/openflow/driver.ts';
import { Policy } from '../../gen/weft/v1/types.ts';
import { compiler } from '../../test/harness/mesh-models.ts';
import { startOvs, type TestOvs } from '../../test/harness/ovs.ts';
import type { Mesh, MeshEndpoint } from '../../test/harness/policy-mesh.ts';
import { tenth } from '../figures.ts';
import { rssOf } from '../memory.ts';
import { endpointAt, large, relabelled, type Size } from './mesh.ts';

const run = promisify(execFile);
const TRAFFIC = fileURLToPath(new URL('./traffic.pl', import.meta.url));
const BRIDGE = 'br-weft';
const PORT = 9000;

/** One pass of the agent's: view to model, model to flows, flows to bundle, bundle to switch. Milliseconds. */
export interface Pass {
  readonly compileMs: number;
  readonly renderMs: number;
  readonly applyMs: number;
  /** Flows added, changed and removed. */
  readonly touched: number;
}

export interface Loss {
  readonly updates: number;
  /** Flows that an update changed, on average. */
  readonly touched: number;
  readonly allowed: { readonly sent: number; readonly lost: number };
  readonly denied: { readonly sent: number; readonly passed: number };
}

export interface Measured {
  readonly size: Size;
  readonly flows: number;
  readonly first: Pass;
  /** Nothing has changed. */
  readonly idle: Pass;
  readonly label: { readonly here: Pass; readonly elsewhere: Pass };
  readonly policy: Pass;
  /** From the change in the agent to the last packet that passed, of a stream that a policy stops. */
  readonly enforcedMs: readonly number[];
  readonly load: Loss;
  /** MiB: view, model, flows and what is remembered of them; the whole process; Open vSwitch. */
  readonly memory: { readonly heap: number; readonly agent: number; readonly vswitchd: number };
}

class Bridge {
  readonly driver: FlowDriver;
  readonly #side: FlowSide;

  constructor(client: OpenFlowClient) {
    this.driver = new FlowDriver(client);
    this.#side = new FlowSide(this.driver);
  }

  get flows(): number {
    return this.#side.count;
  }

  async become(m: Mesh): Promise<Pass> {
    const compile = compiler(m, 'h1');
    if (!this.#side.known) await this.#side.observe(true);
    const start = performance.now();
    const { maxMeters: _, ...model } = compile();
    const compiled = performance.now();
    const { flows, meters } = this.#side.plan(model);
    const planned = performance.now();
    await this.#side.apply(flows, meters);
    const applyMs = tenth(performance.now() - planned);
    return { compileMs: tenth(compiled - start), renderMs: tenth(planned - compiled), applyMs, touched: flows.length };
  }
}

/** @param load how many updates while packets are on their way, and packets a second of each stream */
export async function measurePolicies(
  size: Size,
  load: { readonly updates: number; readonly rate: number },
): Promise<Measured> {
  await using stack = new AsyncDisposableStack();
  const ovs = stack.use(await startOvs());
  await ovs.vsctl('add-br', BRIDGE, '--', 'set', 'bridge', BRIDGE, 'datapath_type=netdev', 'fail_mode=secure');
  const client = new OpenFlowClient({ path: ovs.mgmtSock(BRIDGE) });
  client.start();
  stack.defer(() => client.close());
  await client.ready();
  const before = heap();
  const bridge = new Bridge(client);
  const links = [endpoint(0, 'to'), endpoint(1, 'good'), endpoint(2, 'bad'), endpoint(3, 'other')] as const;
  for (const [i, e] of links.entries()) stack.use(await link(ovs, e, i));
  const mesh = (turn: number): Mesh => large(size, { endpoints: links, policies: gates(turn) });

  const first = await bridge.become(mesh(0));
  const flows = bridge.flows;
  const idle = await bridge.become(mesh(0));
  const memory = {
    heap: tenth(heap() - before),
    agent: await rssOf(process.pid),
    vswitchd: await rssOf(ovs.pid('ovs-vswitchd')),
  };
  const here = await bridge.become(relabelled(mesh(0), 0, { app: 'a1' }));
  await bridge.become(mesh(0));
  const elsewhere = await bridge.become(relabelled(mesh(0), size.local, { app: 'a1' }));
  await bridge.become(mesh(0));
  const less = mesh(0);
  const policy = await bridge.become({ ...less, policies: less.policies.slice(1) });
  await bridge.become(less);

  const enforcedMs: number[] = [];
  for (let i = 0; i < 5; i++) enforcedMs.push(await enforced(bridge, mesh, links, load.rate));
  return {
    size,
    flows,
    first,
    idle,
    label: { here, elsewhere },
    policy,
    enforcedMs,
    load: await underLoad(bridge, mesh, links, load),
    memory,
  };
}

const endpoint = (i: number, role: string): MeshEndpoint => endpointAt('h1', 3000 + i, 2 + i, { role });

/**
 * Policies of the streams. With each turn those that decide are others, of other names and places; what they say of "good" and "bad"
 * is the same. "other" may call in even turns.
 */
function gates(turn: number): Policy[] {
  const from = (role: string) => [{ who: { $case: 'endpoints' as const, value: { networkId: '', labels: { role } } } }];
  const ports = [{ protocol: 'udp', first: PORT, last: PORT + (turn % 7) }];
  const base = { networkId: 'n1', tier: 'application', selector: { role: 'to' } };
  return [
    Policy.fromPartial({
      ...base,
      name: `let-${turn}`,
      order: 10 + (turn % 50),
      ingress: [
        { action: 'allow', peers: [...from('good'), ...(turn % 2 === 0 ? from('other') : [])], ports },
        { action: 'drop', peers: from('bad') },
      ],
    }),
    Policy.fromPartial({ ...base, name: `end-${turn}`, order: 400 - (turn % 50), ingress: [{ action: 'drop' }] }),
  ];
}

/** A namespace with a link to the bridge. */
async function link(ovs: TestOvs, e: MeshEndpoint, i: number): Promise<AsyncDisposable> {
  const netns = netnsOf(i);
  const ip = (...words: string[]): Promise<unknown> => run('ip', words);
  await ip('netns', 'add', netns);
  await ip('-n', ovs.netns, 'link', 'add', `v${i}`, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', netns);
  await ip('-n', ovs.netns, 'link', 'set', `v${i}`, 'up');
  await ip('-n', netns, 'link', 'set', 'eth0', 'address', e.mac);
  await ip('-n', netns, 'addr', 'add', `${e.ips[0]}/16`, 'dev', 'eth0');
  await ip('-n', netns, 'link', 'set', 'eth0', 'up');
  // Open vSwitch takes frames as they are: their checksums must be there.
  await run('ip', ['netns', 'exec', netns, 'ethtool', '-K', 'eth0', 'tx', 'off']);
  await ovs.vsctl('add-port', BRIDGE, `v${i}`, '--', 'set', 'interface', `v${i}`, `ofport_request=${e.ofport}`);
  return { [Symbol.asyncDispose]: async () => void (await ip('netns', 'del', netns)) };
}

const netnsOf = (i: number): string => `wpol-${process.pid}-${i}`;

/** A program of traffic.pl, which ends with its input. */
class Traffic {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  readonly #ended: Promise<unknown>;
  readonly ready: Promise<void>;

  constructor(netns: string, ...words: string[]) {
    this.#child = spawn('ip', ['netns', 'exec', netns, 'perl', TRAFFIC, ...words], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.ready = promise;
    createInterface({ input: this.#child.stdout! }).on('line', (line) =>
      line === 'ready' ? resolve() : this.#lines.push(line),
    );
    this.#ended = once(this.#child, 'close').then(() => reject(new Error('traffic.pl ended')));
    promise.catch(() => undefined);
  }

  /** @returns what it says at its end */
  async end(): Promise<string[]> {
    this.#child.stdin!.end();
    await this.#ended;
    return this.#lines;
  }
}

interface Arrived {
  readonly count: number;
  readonly lost: number;
  /** CLOCK_MONOTONIC, ns. */
  readonly last: bigint;
}

/** Streams of the roles at these places, while something happens. @returns of each: what was sent, and what arrived; null: nothing */
async function streams(
  links: readonly MeshEndpoint[],
  which: readonly number[],
  rate: number,
  meanwhile: () => Promise<void>,
): Promise<Map<number, { sent: number; arrived: Arrived | null }>> {
  const receiver = new Traffic(netnsOf(0), 'receive', String(PORT));
  await receiver.ready;
  const senders = which.map((i) => new Traffic(netnsOf(i), 'send', links[0]!.ips[0]!, String(PORT), String(rate)));
  await Promise.all(senders.map((s) => s.ready));
  await meanwhile();
  const sent = await Promise.all(senders.map(async (s) => Number((await s.end())[0])));
  // What is on its way arrives.
  await new Promise((resolve) => setTimeout(resolve, 300));
  const lines = (await receiver.end()).map((line) => line.split(' '));
  return new Map(
    which.map((i, at) => {
      const found = lines.find(([source]) => source === links[i]!.ips[0]);
      const [, count, lost, last] = found ?? [];
      const arrived = found === undefined ? null : { count: Number(count), lost: Number(lost), last: BigInt(last!) };
      return [i, { sent: sent[at]!, arrived }];
    }),
  );
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** From a change that stops a stream to its last packet, ms. */
async function enforced(
  bridge: Bridge,
  mesh: (turn: number) => Mesh,
  links: readonly MeshEndpoint[],
  rate: number,
): Promise<number> {
  await bridge.become(mesh(0));
  const next = mesh(1);
  let began = 0n;
  const seen = await streams(links, [3], rate, async () => {
    await pause(500);
    began = process.hrtime.bigint();
    await bridge.become(next);
    await pause(500);
  });
  const last = seen.get(3)?.arrived?.last;
  if (last === undefined) throw new Error('the stream did not arrive at all');
  return tenth(Number(last - began) / 1e6);
}

async function underLoad(
  bridge: Bridge,
  mesh: (turn: number) => Mesh,
  links: readonly MeshEndpoint[],
  { updates, rate }: { readonly updates: number; readonly rate: number },
): Promise<Loss> {
  await bridge.become(mesh(0));
  let touched = 0;
  const seen = await streams(links, [1, 2], rate, async () => {
    await pause(500);
    for (let turn = 1; turn <= updates; turn++) touched += (await bridge.become(shuffled(mesh(turn), turn))).touched;
    await pause(500);
  });
  const [good, bad] = [seen.get(1)!, seen.get(2)!];
  return {
    updates,
    touched: Math.round(touched / updates),
    allowed: { sent: good.sent, lost: good.sent - (good.arrived?.count ?? 0) },
    denied: { sent: bad.sent, passed: bad.arrived?.count ?? 0 },
  };
}

/** Every other policy of the applications says something else in every other turn. */
const shuffled = (m: Mesh, turn: number): Mesh => ({
  ...m,
  policies: m.policies.map((p, i) =>
    turn % 2 === 1 && i % 2 === 0 && p.name.startsWith('p') ? { ...p, order: p.order + 7 } : p,
  ),
});

/** Of this process, after a collection, MiB. */
function heap(): number {
  setFlagsFromString('--expose-gc');
  (runInNewContext('gc') as () => void)();
  return process.memoryUsage().heapUsed / 2 ** 20;
}
