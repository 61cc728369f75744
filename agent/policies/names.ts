/**
 * Names in policies: what the resolver answers to an endpoint of a network is what the name means there, on this host. The flows are there
 * before the answer is. What is learned is kept on disk, so that a restart of the agent cuts no connection.
 */
import { readFile, rename, writeFile } from 'node:fs/promises';
import { containsIp, formatIp, parseCidr, tryParseIp } from '../../lib/addr.ts';
import { type Clock, delay } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Network, Policy, View } from '../../lib/model.ts';
import { SPECIAL_RANGES, TRANSIT_RANGE6 } from '../../lib/special-ranges.ts';
import type { Asker } from '../dns/answer.ts';
import { type Answered, type Ended, type NamesOnDisk, NameTable } from './name-table.ts';

/** An answer waits for its flows at most for so long, ms. */
const FLOWS_MS = 1_000;
/** What has only become younger is written so often, ms. */
const RENEWED_MS = 10_000;
/** Between looks whether something has ended, ms: each reads all connections of the host. */
const LOOK = { least: 15_000, most: 60_000 } as const;

export interface LearnedNamesOptions {
  readonly file: string;
  readonly view: () => View;
  /** Networks that this host has, whether its view tells of them or not. */
  readonly networks: () => Iterable<Network>;
  /** Addresses of hosts, this one's and others', canonical: no name leads there. */
  readonly hosts: () => ReadonlySet<string>;
  /** All that is wanted has been installed. */
  readonly settled: () => Promise<unknown>;
  /** Of these, those to which there are connections. */
  readonly connected: (ended: readonly Ended[]) => Promise<readonly Ended[]>;
  readonly clock: Clock;
  readonly log: Log;
}

export class LearnedNames {
  readonly #o: LearnedNamesOptions;
  readonly #table = new NameTable();
  readonly #closed = new AbortController();
  #installing: Promise<unknown> | null = null;
  #writing: Promise<void> = Promise.resolve();
  #unwritten = false;
  /** Monotonic ms. */
  #saved = 0;
  readonly #wanted = new WeakMap<ReadonlyMap<string, Policy>, Set<string>>();

  constructor(options: LearnedNamesOptions) {
    this.#o = options;
  }

  /** Before anything is rendered. */
  async load(): Promise<void> {
    const { file, clock, log } = this.#o;
    try {
      this.#table.fromDisk(JSON.parse(await readFile(file, 'utf8')) as NamesOnDisk, clock.now());
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') log.warn({ err: error }, 'names of policies not read');
    }
    this.#watch();
  }

  async close(): Promise<void> {
    this.#closed.abort();
    await this.#writing;
  }

  /** What a name stands for in a network now. @param name as policies have it: canonical, with "*." in front for all names below it */
  addresses(networkId: string, name: string): readonly string[] {
    return this.#table.addresses(networkId, name);
  }

  /**
   * @param name that was asked for: lower case, without a dot at the end
   * @param answered asked only where a policy is about the name
   * @param own a name of the mesh; any other leads to no address of the mesh or of a host, whatever its owner says
   * @returns resolves when the flows are there, or it has taken too long; null: there is nothing to wait for
   */
  learn(asker: Asker, name: string, answered: () => readonly Answered[], own: boolean): Promise<void> | null {
    const meant = asker.networks.flatMap((id) => this.#patterns(id, name).map((pattern) => [id, pattern] as const));
    if (meant.length === 0) return null;
    const good = canonical(answered());
    const usable = own ? good : good.filter((one) => !this.#isOurs(one.ip));
    if (usable.length < good.length)
      this.#o.log.warn({ name, refused: good.length - usable.length }, 'an outside name leads into the mesh');
    if (usable.length === 0) return null;
    const { clock } = this.#o;
    let fresh = false;
    for (const [id, pattern] of meant) fresh = this.#table.learn(id, pattern, usable, clock.now()) || fresh;
    if (fresh || clock.monotonic() - this.#saved > RENEWED_MS) this.#save();
    if (fresh) {
      const installing = this.#o.settled().finally(() => {
        if (this.#installing === installing) this.#installing = null;
      });
      this.#installing = installing;
    }
    // Somebody else may have asked just before.
    if (this.#installing === null) return null;
    const waited = new AbortController();
    return Promise.race([this.#installing, delay(clock, FLOWS_MS, waited.signal)])
      .catch(() => undefined)
      .then(() => waited.abort());
  }

  /** Names in policies of the network that this one is. */
  #patterns(networkId: string, name: string): string[] {
    const policies = this.#o.view().interests.get(networkId)?.policies;
    if (policies === undefined || policies.size === 0) return [];
    const wanted = this.#wanted.get(policies) ?? namesOf(policies);
    this.#wanted.set(policies, wanted);
    if (wanted.size === 0) return [];
    return [name, ...above(name).map((parent) => `*.${parent}`)].filter((pattern) => wanted.has(pattern));
  }

  #isOurs(ip: string): boolean {
    const address = tryParseIp(ip)!;
    if (SPECIAL.some((range) => containsIp(range, address)) || this.#o.hosts().has(ip)) return true;
    const networks = [...this.#o.view().networks.values(), ...this.#o.networks()];
    return networks.some(({ subnets }) => subnets.some((subnet) => containsIp(parseCidr(subnet), address)));
  }

  #watch(): void {
    const { clock } = this.#o;
    const { next } = this.#table;
    const wait = next === null ? LOOK.most : Math.min(LOOK.most, Math.max(LOOK.least, next - clock.now()));
    clock.setTimer(wait, () => void this.#look().finally(() => this.#watch()), this.#closed.signal);
  }

  /** What has ended goes, unless somebody is connected to it. */
  async #look(): Promise<void> {
    const { clock, connected, settled, log } = this.#o;
    const due = this.#table.due(clock.now());
    if (due.length === 0) return;
    // Who cannot be asked does not cut connections.
    const used = await connected(due).catch((error: unknown) => {
      log.warn({ err: error }, 'connections to names of policies not known');
      return due;
    });
    for (const one of used) this.#table.renew(one, clock.now());
    const over = this.#table.due(clock.now()).filter((one) => !isOneOf(used, one));
    for (const one of over) this.#table.end(one);
    this.#save();
    if (over.length > 0) void settled().catch(() => undefined); // whoever waits for a change waits for this too
  }

  /** One write at a time; of those that come meanwhile only the last. */
  #save(): void {
    if (this.#unwritten) return;
    this.#unwritten = true;
    const { file, log, clock } = this.#o;
    this.#saved = clock.monotonic();
    this.#writing = this.#writing
      .then(async () => {
        this.#unwritten = false;
        await writeFile(`${file}.new`, JSON.stringify(this.#table.toDisk()), { mode: 0o600 });
        await rename(`${file}.new`, file);
      })
      .catch((error: unknown) => log.warn({ err: error }, 'names of policies not saved'));
  }
}

const isOneOf = (all: readonly Ended[], { networkId, name, ip }: Ended): boolean =>
  all.some((one) => one.ip === ip && one.name === name && one.networkId === networkId);

const canonical = (answered: readonly Answered[]): Answered[] =>
  answered.flatMap(({ ip, ttl }) => {
    const address = tryParseIp(ip);
    return address === null ? [] : [{ ip: formatIp(address), ttl }];
  });

/** What is no address of another machine's. */
const SPECIAL = [...SPECIAL_RANGES, TRANSIT_RANGE6];

/** example.org and org, of www.example.org. */
function above(name: string): string[] {
  const labels = name.split('.');
  return labels.slice(1).map((_, i) => labels.slice(i + 1).join('.'));
}

/** That policies have as peers. */
export function namesOf(policies: ReadonlyMap<string, Policy>): Set<string> {
  const names = new Set<string>();
  for (const { egress } of policies.values())
    for (const { peers } of egress) for (const { who } of peers) if (who?.$case === 'name') names.add(who.value);
  return names;
}
