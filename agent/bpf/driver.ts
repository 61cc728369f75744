/** The kernel side as a driver: what is in the maps and on links, and steps applied. It decides nothing. */
import { WeftError } from '../../lib/errors.ts';
import type { AttachedProgram, BpfStep, MapStep } from '../plan/maps.ts';
import { type EncodedMaps, LAYOUT, MAP_NAMES, type MapName } from './encode.ts';
import type { Answer, BpfHelper } from './helper.ts';
import {
  type BpfCounters,
  type BpfPlaceOnLink,
  type BpfProgram,
  type BpfReason,
  type BpfTraffic,
  hookOf,
  placeId,
  REASONS,
} from './model.ts';

/** Changes of one request. */
const BATCH = 5_000;
/** Links of one request. */
const LINKS = 500;

export interface BpfDriverOptions {
  readonly helper: BpfHelper;
  /** Path of the object of programs. */
  readonly object: string;
  /** Maps of it that are rendered; default: all that there are. */
  readonly maps?: readonly MapName[];
  /** Where maps and programs are pinned: a folder of a BPF file system, which is mounted at its parent if there is none. */
  readonly pins: string;
}

export class BpfDriver {
  readonly #o: BpfDriverOptions;
  #maps: Map<MapName, Map<string, string>> | null = null;
  #programs = new Map<number, BpfProgram>();
  #loading: Promise<void> | null = null;

  constructor(options: BpfDriverOptions) {
    this.#o = options;
  }

  get maps(): readonly MapName[] {
    return this.#o.maps ?? MAP_NAMES;
  }

  /**
   * Loads the programs, taking over pinned maps with what is in them, and reads the maps.
   * @throws UNAVAILABLE when the kernel or the helper refuses (the message has the kernel's reason), INTERNAL when the object is not
   * of this version.
   */
  async start(): Promise<void> {
    await this.observeFresh();
  }

  /** Programs and maps stay. */
  close(): Promise<void> {
    return this.#o.helper.close();
  }

  /** The maps as this process knows them; null = not read yet, or to be read anew after a failure. */
  observe(): EncodedMaps | null {
    return this.#maps;
  }

  async observeFresh(): Promise<EncodedMaps> {
    await this.#ready();
    const maps = new Map<MapName, Map<string, string>>();
    for (const name of this.maps) maps.set(name, table((await this.#o.helper.ask(`dump ${name}`)).data));
    this.#maps = maps;
    return maps;
  }

  /** Numbers of links by name; what is not there is left out. */
  async ifindexes(names: readonly string[]): Promise<Map<string, number>> {
    const out = new Map<string, number>();
    for (let at = 0; at < names.length; at += LINKS) {
      const some = names.slice(at, at + LINKS);
      const { words } = await this.#o.helper.ask(`links ${some.join(' ')}`);
      for (const [i, name] of some.entries()) if (Number(words[i]) > 0) out.set(name, Number(words[i]));
    }
    return out;
  }

  /** Frames leave that link complete: with their checksums, cut to its MTU. */
  async complete(name: string): Promise<void> {
    await this.#o.helper.ask(`complete ${name}`);
  }

  /** What is at these places, by placeId(); those of a link that is not there are left out. */
  async attached(places: Iterable<BpfPlaceOnLink>): Promise<Map<string, AttachedProgram>> {
    await this.#ready();
    const out = new Map<string, AttachedProgram>();
    for (const [hook, all] of Map.groupBy(places, (p) => p.hook)) {
      for (let at = 0; at < all.length; at += LINKS) {
        const some = all.slice(at, at + LINKS);
        const { words } = await this.#o.helper.ask(`attached ${hook} ${some.map((p) => p.ifindex).join(' ')}`);
        for (const [i, place] of some.entries()) {
          const id = words[i] ?? '-';
          if (id === '-') continue;
          out.set(placeId(place), id === '0' ? null : (this.#programs.get(Number(id)) ?? 'other'));
        }
      }
    }
    return out;
  }

  /** What an entry is now, of any map; null: it is not there. What this process knows of the maps stays as it is. */
  async lookup(map: string, key: string): Promise<string | null> {
    await this.#ready();
    const { words } = await this.#o.helper.ask(`lookup ${map} ${key}`);
    return words[0] === undefined || words[0] === '-' ? null : words[0];
  }

  /** New entries first, then programs, then what goes. @throws the first failure; the other steps have been tried all the same. */
  async apply(steps: readonly BpfStep[]): Promise<void> {
    const errors: unknown[] = [];
    const attempt = async (work: Promise<unknown>): Promise<void> => {
      await work.catch((error: unknown) => errors.push(error));
    };
    await this.#ready();
    const changes = steps.filter((s) => s.kind === 'setMap' || s.kind === 'delMap');
    await attempt(this.#change(changes.filter((s) => s.kind === 'setMap')));
    for (const s of steps) {
      if (s.kind === 'attach')
        await attempt(this.#o.helper.ask(`attach ${s.ifindex} ${hookOf(s.program)} ${s.program}`));
      if (s.kind === 'detach') await attempt(this.#o.helper.ask(`detach ${s.ifindex} ${s.hook}`));
    }
    await attempt(this.#change(changes.filter((s) => s.kind === 'delMap')));
    if (changes.some((s) => s.map === 'vteps')) await attempt(this.#forgetLearned());
    if (errors.length > 0) {
      this.#maps = null;
      throw WeftError.from(errors[0]);
    }
  }

  async counters(): Promise<BpfCounters> {
    await this.#ready();
    const { helper } = this.#o;
    const [reasons, chosen, traffic] = await Promise.all([
      helper.ask('sum reasons'),
      helper.ask('sum chosen'),
      this.#forwards ? helper.ask('sum traffic') : Promise.resolve<Answer>({ data: [], words: [] }),
    ]);
    const byReason = new Map(numbers(reasons).map(({ key, values }) => [REASONS[key], values[0] ?? 0n]));
    return {
      reasons: Object.fromEntries(REASONS.map((name) => [name, byReason.get(name) ?? 0n])) as Record<BpfReason, bigint>,
      traffic: new Map(numbers(traffic).map(({ key, values }) => [key, trafficOf(values)])),
      connections: new Map([...table(chosen.data)].map(([key, n]) => [key, BigInt(n)])),
    };
  }

  /** Runs a program on a frame without sending it (BPF_PROG_TEST_RUN). @returns TC_ACT_… and the frame as it then is, hex. */
  async run(program: BpfProgram, frame: string, ifindex?: number): Promise<{ action: number; frame: string }> {
    await this.#ready();
    const { words } = await this.#o.helper.ask(`run ${program} ${frame}${ifindex === undefined ? '' : ` ${ifindex}`}`);
    return { action: Number(words[0]), frame: words[1] ?? '' };
  }

  /** The programs carry frames themselves. */
  get #forwards(): boolean {
    return this.maps.includes('fdb');
  }

  /** The helper may have died: what it had open is opened again. */
  async #ready(): Promise<void> {
    if (this.#loading === null && this.#o.helper.running && this.#programs.size > 0) return;
    this.#loading ??= this.#load().finally(() => {
      this.#loading = null;
    });
    await this.#loading;
  }

  async #load(): Promise<void> {
    const { helper, object, pins } = this.#o;
    this.#maps = null;
    this.#programs.clear();
    const { words } = await helper.ask(`load ${object} ${pins}`);
    const sizes = new Map((await helper.ask('maps')).data.map((line) => [line.split(' ')[0], line]));
    for (const name of this.maps) {
      const [, key, value] = sizes.get(name)?.split(' ') ?? [];
      if (Number(key) !== LAYOUT[name].key || Number(value) !== LAYOUT[name].value)
        throw new WeftError('INTERNAL', `${object} is not of this version: its map ${name} has another layout.`, {
          hint: 'build again, or install agent and datapath of one version',
        });
    }
    for (const word of words) {
      const [name, id] = word.split('=');
      this.#programs.set(Number(id), name as BpfProgram);
    }
  }

  async #change(steps: readonly MapStep[]): Promise<void> {
    for (let at = 0; at < steps.length; at += BATCH) {
      const some = steps.slice(at, at + BATCH);
      const lines = some.flatMap((step) => changeLines(step, this.#forwards));
      await this.#o.helper.ask([`batch ${lines.length}`, ...lines].join('\n'));
      for (const s of some) {
        if (s.kind === 'setMap') this.#maps?.get(s.map)?.set(s.key, s.value);
        else this.#maps?.get(s.map)?.delete(s.key);
      }
    }
  }

  /** MACs that were learned from a peer that is no more. */
  async #forgetLearned(): Promise<void> {
    const { helper } = this.#o;
    const [learned, peers] = await Promise.all([helper.ask('dump learned'), helper.ask('dump vteps')]);
    const alive = new Set([...table(peers.data).keys()].map((key) => key.slice(0, 48)));
    const stale = [...table(learned.data)].filter(([, place]) => !alive.has(place.slice(0, 48)));
    if (stale.length === 0) return;
    await helper.ask([`batch ${stale.length}`, ...stale.map(([key]) => `d learned ${key}`)].join('\n'));
  }
}

/** Counters of an endpoint, and of a service, go with it. */
function changeLines(step: MapStep, forwards: boolean): string[] {
  if (step.kind === 'setMap') return [`u ${step.map} ${step.key} ${step.value}`];
  const line = `d ${step.map} ${step.key}`;
  if (step.map === 'ports' && forwards) return [line, `d traffic ${step.key}`];
  return step.map === 'services' ? [line, `d chosen ${step.key}`] : [line];
}

const table = (lines: readonly string[]): Map<string, string> =>
  new Map(lines.map((line) => line.split(' ') as [string, string]));

/** Keys of 32 bits, in the host's order, with the numbers after them. */
const numbers = (answer: Answer): { key: number; values: bigint[] }[] =>
  answer.data.map((line) => {
    const [key = '', ...values] = line.split(' ');
    const big = /^(..)(..)(..)(..)$/.exec(key)?.slice(1).reverse().join('') ?? '0';
    return { key: Number.parseInt(big, 16), values: values.map(BigInt) };
  });

const trafficOf = ([txPackets = 0n, txBytes = 0n, rxPackets = 0n, rxBytes = 0n]: readonly bigint[]): BpfTraffic => ({
  txPackets,
  txBytes,
  rxPackets,
  rxBytes,
});
