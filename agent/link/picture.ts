/**
 * What the agent knows of its links without asking: what it read last, brought up to date by its own steps and by the kernel's
 * notices. A notice that does not fit says that somebody else was at work: then the links are read again. Pure but for its memory.
 */
import { endsOf, isContainerLink, primaryOf } from './names.ts';
import type { Link, LinkChange, LinkStep } from './steps.ts';

export class LinkPicture {
  #links: Map<string, Link> | null = null;
  /** Primary sides being deleted right now: neither they nor what is told of them is drift. */
  readonly #deleting = new Set<string>();

  /** By name; null = to be read. */
  get links(): ReadonlyMap<string, Link> | null {
    return this.#links;
  }

  forget(): void {
    this.#links = null;
  }

  /** Reads anew; what is being deleted meanwhile is left out. */
  async read(observe: () => Promise<Map<string, Link>>): Promise<ReadonlyMap<string, Link>> {
    const deleting = new Set(this.#deleting);
    const links = await observe();
    for (const name of deleting.union(this.#deleting)) for (const end of endsOf(name)) links.delete(end);
    this.#links = links;
    return links;
  }

  /** A step has been applied. */
  note(step: LinkStep): void {
    const links = this.#links;
    if (links === null) return;
    const made = (name: string, mtu: number): void => {
      const { ifindex = null, ...known } = links.get(name) ?? {};
      links.set(name, { ...known, name, mtu, up: true, ifindex });
    };
    if (step.kind === 'delLink') for (const end of endsOf(step.name)) links.delete(end);
    else if (step.kind === 'addVeth' || step.kind === 'restoreVeth') {
      links.delete(step.host);
      made(step.host, step.mtu);
    } else if (step.kind === 'addTunnel' || step.kind === 'addIfb') {
      links.delete(step.name);
      made(step.name, step.mtu);
    } else {
      if (step.kind === 'addPair') for (const end of endsOf(step.name)) links.delete(end);
      for (const end of [step.name, step.peer]) if (end !== null) made(end, step.mtu);
      if (step.host !== undefined) links.set(step.name, { ...links.get(step.name)!, addresses: step.host.addresses });
    }
  }

  deleting(steps: readonly LinkStep[]): void {
    for (const step of steps) {
      this.note(step);
      if (step.kind === 'delLink') this.#deleting.add(primaryOf(step.name));
    }
  }

  deleted(steps: readonly LinkStep[]): void {
    for (const step of steps) if (step.kind === 'delLink') this.#deleting.delete(primaryOf(step.name));
  }

  /** @param changes the last one told of each link. @returns false: they do not fit, and the links must be read again */
  fits(changes: Iterable<LinkChange>): boolean {
    const links = this.#links;
    if (links === null) return false;
    let fits = true;
    for (const { name, link } of changes) if (!this.#fits(links, name, link)) fits = false;
    return fits;
  }

  #fits(links: Map<string, Link>, name: string, link: Link | null): boolean {
    const primary = primaryOf(name);
    if (this.#deleting.has(primary)) return true;
    const known = links.get(name);
    if (isContainerLink(name)) {
      // Comes and goes with its container, as Docker moves it; alone it is an orphan.
      if (link === null) links.delete(name);
      else links.set(name, link);
      return link === null || links.has(primary);
    }
    if (link === null || known === undefined) return link === null && known === undefined;
    if (link.mtu !== known.mtu || link.up !== known.up) return false;
    if (known.ifindex !== null && known.ifindex !== link.ifindex) return false;
    // Addresses are not told with it.
    links.set(name, { ...known, ...link });
    return true;
  }
}
