/** ICMP errors between containers and what is outside of the mesh: they find the socket that they are about. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { auditClean, clean, on, onOk, sleeper, weftOk } from '../harness/lab.ts';
import { type LabStatus, labStatus } from '../harness/lab-direct.ts';
import { Stranger } from '../harness/stranger.ts';
import { atStranger, inContainer, type Place } from '../harness/whoami.ts';

const PROCESS = fileURLToPath(new URL('../harness/bulk-process.ts', import.meta.url));
const NET = 'er';
const SIX = { h1: 'fd99::1', outside: 'fd99::14' } as const;
const ALL = '300000';

let lab: LabStatus;
let outside: Stranger;
let inside: Place;

/** A process that says lines, ended with its holder. */
class Bulk implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(at: Place, ...args: string[]) {
    const [file, ...words] = [...at, process.execPath, PROCESS, ...args];
    this.#child = spawn(file!, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
  }

  async next(): Promise<string> {
    return (await this.#lines.next()).value ?? '';
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const closed = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGTERM');
    await closed;
  }
}

const says = async (at: Place, ...args: string[]): Promise<string> => {
  await using bulk = new Bulk(at, ...args);
  return await bulk.next();
};
const h1 = (): string => lab.hosts.find((h) => h.name === 'h1')?.underlay.ip ?? '';

beforeAll(async () => {
  lab = await labStatus();
  outside = await Stranger.open(lab);
  await onOk('h1', 'ip', 'addr', 'add', `${SIX.h1}/64`, 'dev', 'eth0', 'nodad');
  await outside.run('ip', 'addr', 'add', `${SIX.outside}/64`, 'dev', 'eth0', 'nodad');
  await weftOk('network', 'create', NET, '--ipv6');
  await sleeper('h1', 'er-a', NET, '-p', '8400:7400', '-p', '8401:7401/udp');
  inside = await inContainer('h1', 'er-a');
  await weftOk('wait');
});

afterAll(async () => {
  for (const route of [`${outside.ip}/32`, `${SIX.outside}/128`]) await on('h1', 'ip', 'route', 'del', route);
  await outside[Symbol.asyncDispose]();
  await on('h1', 'ip', 'addr', 'del', `${SIX.h1}/64`, 'dev', 'eth0');
  await clean(['h1']);
  await weftOk('wait');
  await auditClean();
});

describe('a path that takes less than the network’s MTU', () => {
  beforeAll(async () => {
    await onOk('h1', 'ip', 'route', 'add', `${outside.ip}/32`, 'dev', 'eth0', 'mtu', '1300');
    await onOk('h1', 'ip', 'route', 'add', `${SIX.outside}/128`, 'dev', 'eth0', 'mtu', '1300');
  });

  it('is found by who is called at a published port', async () => {
    await using giver = new Bulk(inside, 'give', '7400');
    expect(await giver.next()).toBe('ready');
    for (const ip of [h1(), SIX.h1]) expect(await says(atStranger(outside), 'take', ip, '8400'), ip).toBe(ALL);
  });

  it('is found by who calls', async () => {
    for (const ip of [outside.ip, SIX.outside]) {
      await using taker = new Bulk(atStranger(outside), 'collect', '7402');
      expect(await taker.next()).toBe('ready');
      expect(await says(inside, 'send', ip, '7402'), ip).toBe('sent');
      expect(await taker.next(), ip).toBe(ALL);
    }
  });
});

describe('a port at which nobody listens', () => {
  it('says so to the container', async () => {
    for (const ip of [outside.ip, SIX.outside])
      expect(await says(inside, 'refused', ip, '7403'), ip).toBe('ECONNREFUSED');
  });

  it('of the container says so to who calls from outside', async () => {
    for (const ip of [h1(), SIX.h1])
      expect(await says(atStranger(outside), 'refused', ip, '8401'), ip).toBe('ECONNREFUSED');
  });
});
