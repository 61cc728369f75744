/** The container `box` of each host in the kernel's lab, with a link in the network of each encapsulation. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { docker, on, type Result, sleeper, until, weft, weftOk } from './lab.ts';

export const HOSTS = ['h1', 'h2'] as const;
const PEER = fileURLToPath(new URL('./multicast-peer.ts', import.meta.url));
const WEFT = fileURLToPath(new URL('../../bin/weft', import.meta.url));

/** One end of a network: the link of a box in it. */
export interface End {
  readonly ip: string;
  readonly ip6: string;
  readonly mac: string;
  /** The link's other end, on the host. */
  readonly port: string;
}

export const networkOf = (encap: string): string => `kt-${encap}`;

export class Boxes {
  readonly #sandboxes = new Map<string, string>();

  /** Makes the networks and the boxes. The first of the encapsulations is eth0's. */
  async start(encaps: readonly string[]): Promise<void> {
    for (const encap of encaps) await weftOk('network', 'create', networkOf(encap), '--encap', encap, '--ipv6');
    const [first = '', ...more] = encaps.map(networkOf);
    await Promise.all(
      HOSTS.map(async (host) => {
        await sleeper(host, 'box', first, '--cap-add', 'NET_ADMIN');
        for (const network of more) await docker(host, 'network', 'connect', network, 'box');
        this.#sandboxes.set(host, await docker(host, 'inspect', '-f', '{{.NetworkSettings.SandboxKey}}', 'box'));
      }),
    );
  }

  #entered(host: string, command: readonly string[]): string[] {
    return ['nsenter', `--net=${this.#sandboxes.get(host)}`, ...command];
  }

  /** Runs a program of the host in the network namespace of its box: a `docker exec` takes five times as long. */
  inside(host: string, ...command: string[]): Promise<Result> {
    return on(host, ...this.#entered(host, command));
  }

  /** Resolves when something in the host's box listens on that TCP port. */
  listening(host: string, port: number): Promise<true> {
    const listens = async (): Promise<boolean> => (await this.inside(host, 'ss', '-Hltn')).stdout.includes(`:${port} `);
    return until(`port ${port} on ${host}`, listens) as Promise<true>;
  }

  /** Device in the host's box that has this MAC. */
  async deviceOf(host: string, mac: string): Promise<string> {
    const shown = (await this.inside(host, 'ip', '-j', 'link')).stdout;
    const link = (JSON.parse(shown) as { ifname: string; address: string }[]).find((one) => one.address === mac);
    if (link === undefined) throw new Error(`no link with ${mac}: ${shown}`);
    return link.ifname;
  }

  /** Sends packets to a multicast group from eth0 of the host's box. */
  send(host: string, group: string, port: number, count: number): Promise<Result> {
    return this.inside(host, process.execPath, PEER, 'send', group, String(port), String(count), '2');
  }

  /** Joins a multicast group on eth0 of the host's box. @returns how many packets have come, and what leaves it. */
  async join(host: string, group: string, port: number): Promise<{ got(): number; leave(): Promise<void> }> {
    const command = this.#entered(host, [process.execPath, PEER, 'listen', group, String(port)]);
    const child = spawn(WEFT, ['lab', 'exec', host, ...command], { stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (more: string) => {
      text += more;
    });
    const leave = (): Promise<void> => {
      child.kill('SIGTERM');
      return ended;
    };
    try {
      await until(`${host} has joined ${group}`, async () => text.includes('joined'), 60_000);
    } catch (error) {
      await leave();
      throw error;
    }
    return { got: () => text.split('\n').filter((line) => line.startsWith('got ')).length, leave };
  }
}

/** As auditClean(); a host whose session has ended, as in a slow guest it may, is waited for. */
export async function datapathClean(): Promise<void> {
  const r = await until(
    'every host has been asked',
    async () => {
      const asked = await weft('audit', '--json', '--no-heal');
      return asked.stdout.includes(`"error": "`) ? null : asked;
    },
    120_000,
  );
  const { hosts } = JSON.parse(r.stdout) as { hosts: { drift: unknown[] }[] };
  const wrong = hosts.filter((h) => h.drift.length > 0);
  if (wrong.length > 0 || hosts.length < HOSTS.length) throw new Error(`audit: ${r.stdout}${r.stderr}`);
}

/** The link that a container of that host has in a network. */
export async function endOf(host: string, container: string, network: string): Promise<End> {
  const format = `{{json (index .NetworkSettings.Networks "${network}")}}`;
  const end = JSON.parse(await docker(host, 'inspect', '-f', format, container)) as Record<string, string>;
  const { IPAddress: ip = '', GlobalIPv6Address: ip6 = '', MacAddress: mac = '', EndpointID: id = '' } = end;
  return { ip, ip6, mac, port: `wft${id.slice(0, 12)}` };
}
