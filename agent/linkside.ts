/**
 * The host's links: what is known of them, what a pass does to them, and which could not be made or set. A step that fails is that
 * link's own matter: the pass goes on, and the link is tried again later.
 */
import { WeftError } from '../lib/errors.ts';
import type { Log } from '../lib/log.ts';
import type { Clock } from './clock.ts';
import type { Failed, LinkDriver } from './link/driver.ts';
import { LinkFailures } from './link/failures.ts';
import { isSingle } from './link/names.ts';
import { LinkPicture } from './link/picture.ts';
import type { Link, LinkChange, LinkStep } from './link/steps.ts';
import { type DesiredLink, planLinks } from './plan/links.ts';
import type { Planned } from './plan/planned.ts';

const SETTLE_MS = 100;

type PlannedLink = Planned<LinkStep>;

interface LinkSideOptions {
  readonly driver: Pick<LinkDriver, 'observe' | 'apply' | 'finish' | 'watch' | 'close'>;
  readonly clock: Pick<Clock, 'monotonic'>;
  readonly log: Log;
}

export class LinkSide {
  readonly #driver: LinkSideOptions['driver'];
  readonly #clock: LinkSideOptions['clock'];
  readonly #log: Log;
  readonly #picture = new LinkPicture();
  readonly #failures = new LinkFailures();
  /** Told of links since the last look at them, the last of each. */
  readonly #told = new Map<string, LinkChange>();
  #timer: NodeJS.Timeout | null = null;
  #changed: () => void = () => undefined;
  /** Steps of this pass, by the link's name: tried, and those that wait for their next try. */
  #tried: readonly PlannedLink[] = [];
  #waiting: ReadonlySet<string> = new Set();
  /** What has gone wrong in this pass, by the link's name. */
  readonly #wrong = new Map<string, string>();
  #finishing: Promise<void> = Promise.resolve();

  constructor(o: LinkSideOptions) {
    this.#driver = o.driver;
    this.#clock = o.clock;
    this.#log = o.log;
  }

  /** By name; null = to be read. */
  get links(): ReadonlyMap<string, Link> | null {
    return this.#picture.links;
  }

  /** Links that could not be made or set, and why. */
  get failures(): ReadonlyMap<string, string> {
    return this.#failures.messages;
  }

  /** Milliseconds until one of those is to be tried again; null: there are none. */
  get retryInMs(): number | null {
    return this.#failures.dueIn(this.#clock.monotonic());
  }

  forget(): void {
    this.#picture.forget();
  }

  /** @param changed called when links are not as this side left them */
  watch(changed: () => void): void {
    this.#changed = changed;
    this.#driver.watch((change) => this.#noticed(change));
  }

  close(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#driver.close();
  }

  /** @param fresh what is known does not count */
  async plan(desired: readonly DesiredLink[], fresh: boolean): Promise<PlannedLink[]> {
    return planLinks(desired, (fresh ? null : this.links) ?? (await this.#read()));
  }

  /**
   * Makes and sets links, as far as they are due, and begins to finish the new ones.
   * @returns those that were made or set
   * @throws UNAVAILABLE when ip cannot be run
   */
  async make(planned: readonly PlannedLink[]): Promise<PlannedLink[]> {
    await this.#finishing;
    this.#wrong.clear();
    const now = this.#clock.monotonic();
    const due = planned.filter((p) => this.#failures.isDue(p, now));
    this.#tried = due;
    this.#waiting = new Set(planned.filter((p) => !due.includes(p)).map((p) => p.id));
    const failed = await this.#driver.apply(due.map((p) => p.step));
    this.#blame(due, failed);
    const done = due.filter((p) => !failed.has(p.step));
    for (const p of done) this.#picture.note(p.step);
    // Goes on beside Open vSwitch: neither needs the other.
    this.#finishing = this.#finishNew(done);
    // That may take several tries, and nothing is to be put on a link that goes again.
    if (done.some((p) => p.step.kind === 'restoreVeth')) await this.#finishing;
    return done.filter((p) => !this.#wrong.has(p.id));
  }

  async #finishNew(made: readonly PlannedLink[]): Promise<void> {
    const failed = await this.#driver.finish(made.map((p) => p.step));
    this.#blame(made, failed);
    for (const p of made)
      if (failed.has(p.step) && !isSingle(p.id)) this.#picture.note({ kind: 'delLink', name: p.id });
  }

  /**
   * The pass is at its end. Where something failed, or somebody else has been at work, the links are read again: a step whose aim is
   * reached has not failed, and one that has changed nothing has.
   */
  async finish(desired: readonly DesiredLink[], suspects: readonly PlannedLink[]): Promise<void> {
    await this.#finishing;
    if (this.#wrong.size > 0 || suspects.length > 0) await this.#check(desired, suspects);
    const now = this.#clock.monotonic();
    const before = this.failures;
    this.#failures.keep((id) => this.#waiting.has(id) || this.#wrong.has(id));
    for (const p of this.#tried) {
      const message = this.#wrong.get(p.id);
      if (message === undefined) continue;
      if (before.get(p.id) !== message) this.#log.warn({ link: p.id, message }, 'link is not as it should be');
      this.#failures.note(p, message, now);
    }
    this.#wrong.clear();
  }

  async #check(desired: readonly DesiredLink[], suspects: readonly PlannedLink[]): Promise<void> {
    const still = new Map(planLinks(desired, await this.#read()).map((p) => [p.id, p]));
    for (const id of this.#wrong.keys()) if (!still.has(id)) this.#wrong.delete(id);
    for (const { id } of suspects) {
      const p = still.get(id);
      if (p === undefined || p.change === 'extra' || this.#wrong.has(id) || this.#waiting.has(id)) continue;
      this.#wrong.set(id, `${p.object} is ${p.have === '' ? 'not there' : p.have} all the same, not ${p.want}`);
    }
    // What has come about meanwhile is known now, and no notice tells of it again.
    const known = (id: string): boolean => this.#wrong.has(id) || this.#waiting.has(id);
    if ([...still.keys()].some((id) => !known(id))) this.#changed();
  }

  /** The kernel takes 20 ms to delete a veth pair, and nobody needs to wait for it. */
  delete(steps: readonly LinkStep[]): void {
    this.#picture.deleting(steps);
    void this.#deleted(steps)
      .catch((error: unknown) => {
        this.#log.warn({ err: error }, 'links not deleted');
        this.#picture.forget();
      })
      .finally(() => this.#picture.deleted(steps));
  }

  /** @throws when one is still there; those that were gone already are as they should be */
  async #deleted(steps: readonly LinkStep[]): Promise<void> {
    const failed = await this.#driver.apply(steps);
    if (failed.size === 0) return;
    const there = await this.#driver.observe();
    for (const [step, message] of failed)
      if (step.kind === 'delLink' && there.has(step.name)) throw new WeftError('UNAVAILABLE', message);
  }

  #read(): Promise<ReadonlyMap<string, Link>> {
    return this.#picture.read(() => this.#driver.observe());
  }

  #blame(planned: readonly PlannedLink[], failed: Failed): void {
    for (const p of planned) {
      const message = failed.get(p.step);
      if (message !== undefined) this.#wrong.set(p.id, message);
    }
  }

  /** One of our own steps makes several of these: looked at once, a little later. Null: some may have been missed. */
  #noticed(change: LinkChange | null): void {
    if (change === null) this.#picture.forget();
    else this.#told.set(change.name, change);
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      const fits = this.#picture.fits(this.#told.values());
      this.#told.clear();
      if (fits) return;
      this.#picture.forget();
      this.#changed();
    }, SETTLE_MS);
  }
}
