/**
 * Makes the host's side of the way out as it should be: table of nftables, Docker's chain, forwarding. Thin: what is to be done comes
 * from nft.ts and forward.ts.
 */
import { readFileSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { familyOfText } from '../../lib/addr.ts';
import { codeOf, WeftError } from '../../lib/errors.ts';
import { type ExecResult, exec } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import type { Drift, PublishedPort } from '../../lib/model.ts';
import type { Journal } from '../contract.ts';
import { GATEWAY } from '../link/names.ts';
import type { ServicePublication } from '../services/published.ts';
import { egressOf } from './egress.ts';
import { planForward } from './forward.ts';
import { hostIps } from './host-ips.ts';
import {
  egressProblems,
  insideOf,
  NFT_FAMILIES,
  NFT_TABLE,
  type NftModel,
  nftModel,
  type Publication,
  renderNft,
} from './nft.ts';
import { ANY4, ANY6 } from './ports.ts';
import { portKey, type ServicePort, servicePorts } from './service-ports.ts';
import { isFree, readListening } from './sockets.ts';

export interface GatewayHostOptions {
  readonly journal: Journal;
  readonly onDrift: (drift: Drift, detectedAt: number, healedAt: number | null) => void;
  /** VTEPs of the mesh. */
  readonly vteps: () => Iterable<string>;
  /** Ports that lead to services, where they are free. */
  readonly published: () => readonly ServicePublication[];
  /** What hinders containers from being led out; empty = nothing. */
  readonly onProblem: (problem: string) => void;
  /** Epoch milliseconds. */
  readonly now: () => number;
  readonly log: Log;
}

interface Setting {
  readonly path: string;
  readonly value: string;
}

const ROOT = '/proc/sys/net';
const FORWARD6 = `${ROOT}/ipv6/conf/all/forwarding`;

export class GatewayHost {
  readonly #o: GatewayHostOptions;
  #queue: Promise<unknown> = Promise.resolve();
  /** The table as it was written, and as nft then showed it. */
  #written: { readonly text: string; readonly shown: string } | null = null;
  /** Where published ports led when the table was written last. */
  #targets: ReadonlySet<string> = new Set();
  #services: readonly ServicePort[] = [];
  #problems: readonly string[] = [];
  #stop: (() => void) | null = null;
  #scheduled = false;
  /** Docker's chain and the kernel's settings have been seen to be right, with IPv6 led out or not; null: they are to be looked at. */
  #checked: { readonly six: boolean } | null = null;
  /** False: there is no nftables here, in the kernel or as a program. */
  #able = true;
  /** How often somebody has said that they are to be looked at. */
  #looks = 0;

  constructor(options: GatewayHostOptions) {
    this.#o = options;
  }

  start(): void {
    this.#stop = this.#o.journal.onChange(() => this.kick());
    this.kick();
  }

  async close(): Promise<void> {
    this.#stop?.();
    await this.#queue;
  }

  /** Something may have changed beside the journal: Docker has started, the link is there. */
  look(): void {
    this.#checked = null;
    this.#looks++;
    this.kick();
  }

  /** Journal or services have changed. */
  kick(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    void this.settled().catch(() => undefined); // told as a problem
  }

  /** The host is as the journal wants it when it resolves. @throws UNAVAILABLE with what failed */
  settled(): Promise<void> {
    return this.#exclusive(async () => {
      this.#scheduled = false;
      await this.#apply();
    });
  }

  /** Reads the real things anew; with `heal` mends what differs. Never rejects: what cannot be read is a problem, not drift. */
  audit(heal: boolean): Promise<Drift[]> {
    return this.#exclusive(async () => {
      const at = this.#o.now();
      const drift = await this.#drift().catch(() => []);
      if (!heal) return drift;
      if (drift.length > 0) {
        this.#written = null;
        this.#checked = null;
      }
      // Also without drift: nothing tells of addresses of the host, and of processes, that come and go.
      const healed = await this.#apply().then(
        () => true,
        () => false,
      );
      for (const d of drift) this.#o.onDrift(d, at, healed ? this.#o.now() : null);
      return drift;
    });
  }

  async #apply(): Promise<void> {
    try {
      await this.#applyTable();
      const six = this.#leads6();
      // It takes three programs to look, and endpoints come and go.
      if (this.#checked?.six !== six) {
        const looks = this.#looks;
        await this.#applyForward();
        for (const { path, value } of await this.#settings()) await writeFile(path, value);
        if (looks === this.#looks) this.#checked = { six };
      }
      const { endpoints, networks } = this.#o.journal;
      this.#o.onProblem([...egressProblems(endpoints.values(), networks, hostIps()), ...this.#problems].join('; '));
    } catch (error) {
      const { message } = WeftError.from(error);
      this.#checked = null;
      this.#o.log.warn({ err: error }, 'the way out is not set up');
      this.#o.onProblem(`containers are not led out, and ports not published: ${message}`);
      throw error;
    }
  }

  async #applyTable(): Promise<void> {
    const { model, problems } = await this.#model();
    this.#problems = problems;
    const text = renderNft(model);
    if (this.#written?.text === text) return;
    try {
      const r = await exec('nft', ['-f', '-'], { input: text });
      if (r.code !== 0)
        throw new WeftError('UNAVAILABLE', `nft does not take table ${NFT_TABLE}: ${firstLine(r.stderr)}`);
      this.#able = true;
    } catch (error) {
      this.#able = await takesTables();
      throw error;
    }
    this.#written = { text, shown: await this.#shown() };
    const targets = new Set(model.publications.map((p) => p.to));
    await Promise.all([...this.#targets.difference(targets)].map((to) => this.#forget('--dst-nat', to)));
    const fresh = model.publications.filter(({ protocol, to }) => protocol === 'udp' && !this.#targets.has(to));
    for (const one of fresh) await this.#forgetStrays(one);
    this.#targets = targets;
  }

  async #model(): Promise<{ model: NftModel; problems: readonly string[] }> {
    const { endpoints, networks } = this.#o.journal;
    const model = nftModel(endpoints.values(), networks, hostIps(), this.#o.vteps());
    const wanted = this.#o.published();
    if (wanted.length === 0) {
      this.#services = [];
      return { model, problems: [] };
    }
    const listening = await readListening();
    const containers = endpoints.values().flatMap((e) => e.external?.ports ?? []);
    const held = new Set(this.#services.map(portKey));
    const free = (port: Omit<PublishedPort, 'port'>): boolean => isFree(port, listening);
    const { publications, problems } = servicePorts(wanted, { containers: [...containers], free, held });
    this.#services = publications;
    const led = wanted.flatMap((w) => insideOf(w.to, networks.get(w.networkId)?.network.subnets ?? []));
    const inside = [...new Map([...model.inside, ...led].map((i) => [`${i.to} ${i.subnet}`, i])).values()];
    return { model: { ...model, inside, publications: [...model.publications, ...publications] }, problems };
  }

  /** Ports that lead to services now. */
  get servicePorts(): readonly ServicePort[] {
    return this.#services;
  }

  /** Who has sent UDP to the port before it led anywhere would be led nowhere, for as long as he goes on. */
  async #forgetStrays({ protocol, hostIp, hostPort }: Publication): Promise<void> {
    const family = familyOfText(hostIp);
    const all = hostIp === ANY4 || hostIp === ANY6;
    const ips = all ? [...hostIps()].filter((ip) => familyOfText(ip) === family) : [hostIp];
    // What comes back from the very address is not led anywhere.
    const port = ['-p', protocol, '--orig-port-dst', String(hostPort)];
    await Promise.all(ips.map((ip) => this.#forget('-d', ip, ...port, '--reply-src', ip)));
  }

  /** Whoever goes on sending UDP from the same port would be led to where nobody is any more, for as long as he does. */
  async #forget(what: string, ip: string, ...more: readonly string[]): Promise<void> {
    const family = ip.includes(':') ? 'ipv6' : 'ipv4';
    // Ends with 1 where there were none.
    await exec('conntrack', ['-D', '-f', family, what, ip, ...more]).catch((error: unknown) => {
      this.#o.log.warn({ err: error, ip }, 'connections to a published port are kept as they are until they time out');
    });
  }

  /** Our tables as nft shows them; empty: there are none. */
  async #shown(): Promise<string> {
    const lists = NFT_FAMILIES.map((family) => exec('nft', ['list', 'table', family, NFT_TABLE]));
    return (await Promise.all(lists)).map((r) => (r.code === 0 ? r.stdout : '')).join('');
  }

  async #applyForward(): Promise<void> {
    for (const [program, listing] of await listings())
      for (const { args } of planForward(listing)) {
        const r = await exec(program, ['-w', '5', ...args]);
        if (r.code !== 0) throw new WeftError('UNAVAILABLE', `${program} ${args.join(' ')}: ${firstLine(r.stderr)}`);
      }
  }

  /** Kernel settings that are not as they should be. */
  async #settings(): Promise<Setting[]> {
    const wanted: Setting[] = [
      // As Docker does when it starts.
      { path: `${ROOT}/ipv4/ip_forward`, value: '1' },
      // The host's own 127.0.0.1 reaches published ports.
      { path: `${ROOT}/ipv4/conf/${GATEWAY}/route_localnet`, value: '1' },
      ...(this.#leads6() && (await read(FORWARD6)) === '0' ? await forwarding6() : []),
    ];
    const out: Setting[] = [];
    for (const setting of wanted) {
      const have = await read(setting.path);
      if (have !== null && have !== setting.value) out.push(setting);
    }
    return out;
  }

  #leads6(): boolean {
    const { endpoints, networks } = this.#o.journal;
    if (this.#services.some((p) => p.hostIp === ANY6)) return true;
    return endpoints.values().some((e) => {
      const row = networks.get(e.networkId);
      return e.ip6 !== '' && row !== undefined && egressOf(row.network)?.ip6 != null;
    });
  }

  async #drift(): Promise<Drift[]> {
    // What the host cannot have is told as a problem, and nothing else of it is set up then.
    if (!this.#able) return [];
    const out: Drift[] = [];
    if (this.#written !== null) {
      const shown = await this.#shown();
      const object = NFT_TABLE;
      if (shown === '') out.push({ kind: 'nftTable', object, change: 'missing', want: this.#written.shown, have: '' });
      else if (shown !== this.#written.shown)
        out.push({ kind: 'nftTable', object, change: 'differs', want: this.#written.shown, have: shown });
    }
    for (const [program, listing] of await listings())
      for (const { args } of planForward(listing))
        out.push({
          kind: 'rule',
          object: args[1] ?? '',
          change: 'missing',
          want: `${program} ${args.join(' ')}`,
          have: '',
        });
    for (const { path, value } of await this.#settings())
      out.push({ kind: 'setting', object: path, change: 'differs', want: value, have: (await read(path)) ?? '' });
    return out;
  }

  #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#queue.then(work, work);
    this.#queue = next.catch(() => undefined);
    return next;
  }
}

/** An interface that takes its default route from router advertisements goes on doing so (ip-sysctl, accept_ra). */
async function forwarding6(): Promise<Setting[]> {
  const dir = `${ROOT}/ipv6/conf`;
  const out: Setting[] = [];
  for (const name of await readdir(dir).catch(() => []))
    if ((await read(`${dir}/${name}/accept_ra`)) === '1') out.push({ path: `${dir}/${name}/accept_ra`, value: '2' });
  return [...out, { path: FORWARD6, value: '1' }];
}

/** An empty table is checked, not made: a kernel may know nftables, and not each of its families. */
const takesTables = (): Promise<boolean> =>
  exec('nft', ['-c', '-f', '-'], { input: NFT_FAMILIES.map((f) => `table ${f} ${NFT_TABLE} {}\n`).join('') }).then(
    (r) => r.code === 0,
    () => false,
  );

/** What the host's packet filters forward, by program; one that is not installed filters nothing. */
async function listings(): Promise<[program: string, listing: string][]> {
  const out: [string, string][] = [];
  for (const program of ['iptables', 'ip6tables']) {
    const r: ExecResult | null = await exec(program, ['-w', '5', '-S']).catch((error: unknown) => {
      if (codeOf(error) === 'UNAVAILABLE') return null;
      throw error;
    });
    if (r !== null && r.code === 0) out.push([program, r.stdout]);
  }
  return out;
}

const read = (path: string): Promise<string | null> =>
  readFile(path, 'utf8').then(
    (text) => text.trim(),
    () => null,
  );

const firstLine = (text: string): string => text.trim().split('\n')[0] ?? '';

/** New interfaces of this host may have IPv6 addresses. */
export function hasIpv6(): boolean {
  try {
    return readFileSync(`${ROOT}/ipv6/conf/default/disable_ipv6`, 'utf8').trim() === '0';
  } catch {
    return false; // the kernel was started without it
  }
}
