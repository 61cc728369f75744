/**
 * Which container an endpoint belongs to: no plugin call says it. Asked of Docker once the endpoint is joined, by calls that do not
 * wait for a container's start; what only the blocking inspect tells (aliases) follows later, outside any plugin call.
 */
import { execFile } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { Log } from '../../lib/log.ts';
import type { Journal, JournalWrite, LocalEndpoint } from '../contract.ts';
import type { DockerApi, DockerEndpoint } from './api.ts';

const run = promisify(execFile);
/** A container's start, seen from inspect. */
const INSPECT_MS = 60_000;
const LINK_MS = 5_000;

export class Identity {
  readonly #journal: Journal;
  readonly #api: DockerApi;
  readonly #log: Log;
  /** Docker networks being asked; true = ask once more after. */
  readonly #asking = new Map<string, boolean>();
  readonly #inspecting = new Set<string>();

  constructor(options: { journal: Journal; api: DockerApi; log: Log }) {
    this.#journal = options.journal;
    this.#api = options.api;
    this.#log = options.log;
  }

  /** An endpoint of this Docker network has been joined. Does not wait. */
  look(dockerNetworkId: string): void {
    if (this.#asking.has(dockerNetworkId)) {
      this.#asking.set(dockerNetworkId, true);
      return;
    }
    this.#asking.set(dockerNetworkId, false);
    this.#ask(dockerNetworkId)
      .catch((error: unknown) => this.#log.debug({ dockerNetworkId, err: error }, 'identities: Docker not asked'))
      .finally(() => {
        const again = this.#asking.get(dockerNetworkId) === true;
        this.#asking.delete(dockerNetworkId);
        if (again) this.look(dockerNetworkId);
      });
  }

  /** Every endpoint that is joined and not known yet: after a missed event. */
  sweep(): void {
    const networks = new Set<string>();
    for (const e of this.#journal.endpoints.values())
      if (e.sandbox !== null && e.container === null && e.dockerNetworkId !== null) networks.add(e.dockerNetworkId);
    for (const id of networks) this.look(id);
  }

  /** docker rename. */
  async renamed(containerId: string, name: string): Promise<void> {
    const writes: JournalWrite[] = [];
    for (const e of this.#journal.endpoints.values()) {
      if (e.container?.id !== containerId || e.container.name === name) continue;
      const aliases = [name, ...e.aliases.filter((alias) => alias !== name && alias !== e.container?.name)];
      writes.push(put({ ...e, container: { id: containerId, name }, aliases }));
    }
    if (writes.length > 0) await this.#journal.write(writes);
  }

  async #ask(dockerNetworkId: string): Promise<void> {
    const found = await this.#api.network(dockerNetworkId);
    const unknown = (found?.endpoints ?? []).filter(
      (e) => e.containerId !== null && this.#journal.endpoints.get(e.id)?.container === null,
    );
    if (unknown.length === 0) return;
    const ids = unknown.map((e) => e.containerId!);
    const containers = new Map((await this.#api.containers(ids)).map((c) => [c.id, c]));
    const writes: JournalWrite[] = [];
    for (const seen of unknown) {
      const endpoint = this.#journal.endpoints.get(seen.id);
      const container = containers.get(seen.containerId!);
      if (endpoint === undefined || container === undefined) continue;
      const { id, name, labels } = container;
      writes.push(put({ ...endpoint, container: { id, name }, labels, aliases: [name] }));
    }
    if (writes.length > 0) await this.#journal.write(writes);
    for (const seen of unknown) this.#inspectLater(seen);
  }

  #inspectLater(seen: DockerEndpoint): void {
    if (this.#inspecting.has(seen.id)) return;
    this.#inspecting.add(seen.id);
    this.#inspect(seen)
      .catch((error: unknown) => this.#log.debug({ endpoint: seen.id, err: error }, 'aliases not known'))
      .finally(() => this.#inspecting.delete(seen.id));
  }

  async #inspect(seen: DockerEndpoint): Promise<void> {
    const info = await this.#api.inspectContainer(seen.containerId!, INSPECT_MS);
    const before = this.#journal.endpoints.get(seen.id);
    if (info === null || before === undefined) return;
    const sandbox = before.sandbox ?? info.sandbox;
    const only = await onlyLink(sandbox, info.pid).catch(() => null);
    const interfaceName = only ?? (sandbox === '' ? null : await linkOfMac(sandbox, before.mac).catch(() => null));
    const endpoint = this.#journal.endpoints.get(seen.id);
    if (endpoint === undefined) return;
    const own = endpoint.container === null ? [] : [endpoint.container.name];
    const aliases = [...new Set([...own, ...(info.aliases.get(seen.id) ?? [])])];
    await this.#journal.write([put({ ...endpoint, aliases, interfaceName })]);
  }
}

const put = (value: LocalEndpoint): JournalWrite => ({ table: 'endpoint', key: value.id, value });

/**
 * Name of the one link but lo in a container's namespace, without starting a program (proc(5), /proc/PID/net/dev); null when there are
 * several, or the process is not in that namespace.
 */
async function onlyLink(sandbox: string, pid: number): Promise<string | null> {
  const [wanted, actual] = await Promise.all([stat(sandbox), stat(`/proc/${pid}/ns/net`)]);
  if (wanted.ino !== actual.ino) return null;
  const lines = (await readFile(`/proc/${pid}/net/dev`, 'utf8')).split('\n').slice(2);
  const names = lines.flatMap((line) => /^\s*([^:\s]+):/.exec(line)?.[1] ?? []).filter((name) => name !== 'lo');
  return names.length === 1 ? (names[0] ?? null) : null;
}

/** Name of the link with that MAC in a network namespace, e.g. eth0; null when there is none. */
async function linkOfMac(sandbox: string, mac: string): Promise<string | null> {
  const { stdout } = await run('nsenter', [`--net=${sandbox}`, 'ip', '-j', 'link'], { timeout: LINK_MS });
  const links = JSON.parse(stdout) as { ifname: string; address?: string }[];
  return links.find((link) => link.address === mac)?.ifname ?? null;
}
