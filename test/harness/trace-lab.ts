/** Networks and containers to trace packets between, on the lab; and a trace as tests and docs/trace.md read it. */
import { auditClean, clean, run, sleeper, WEFT, weft, weftOk } from './lab.ts';
import { labStatus } from './lab-direct.ts';

export const HOSTS = ['h1', 'h2', 'h3'] as const;
const PORT = '8087:80';

export interface Hop {
  readonly host: string;
  readonly engine: string;
  readonly stage: string;
  readonly what: string;
}
export interface Traced {
  readonly verdict: string;
  readonly reason: string;
  readonly host: string | null;
  readonly hops: readonly Hop[];
}

/** What the lab calls otherwise each time, by the names that the page has for it. */
const names = new Map<string, string>();

/** @param n networks are 10.N.0.0/24 and the three after it, with VNIs to match: what one file gives back, another cannot have at once */
export async function setUp(n: number): Promise<void> {
  await weftOk('network', 'create', 'web', '--vni', `${5000 + n}`, '--subnet', `10.${n}.0.0/24`, '--ipv6');
  await weftOk('network', 'create', 'data', '--vni', `${5000 + n + 1}`, '--subnet', `10.${n + 1}.0.0/24`);
  await weftOk(
    'network',
    'create',
    'vault',
    '--vni',
    `${5000 + n + 2}`,
    '--subnet',
    `10.${n + 2}.0.0/24`,
    '--policy-default',
    'drop',
  );
  await weftOk(
    'network',
    'create',
    'inside',
    '--vni',
    `${5000 + n + 3}`,
    '--subnet',
    `10.${n + 3}.0.0/24`,
    '--internal',
  );
  const ip = (text: string): string[] => ['--ip', text];
  await sleeper('h1', 'web-1', 'web', ...ip(`10.${n}.0.2`), '-p', PORT, '--label', 'app=shop');
  await sleeper('h1', 'web-2', 'web', ...ip(`10.${n}.0.3`));
  await sleeper('h2', 'web-3', 'web', ...ip(`10.${n}.0.18`));
  await sleeper('h3', 'web-4', 'web', ...ip(`10.${n}.0.34`));
  await sleeper('h1', 'app-1', 'data', ...ip(`10.${n + 1}.0.2`), '--label', 'app=web');
  await sleeper('h2', 'db-1', 'data', ...ip(`10.${n + 1}.0.18`), '--label', 'app=db');
  await sleeper('h2', 'other-2', 'data', ...ip(`10.${n + 1}.0.19`));
  await sleeper('h1', 'vault-1', 'vault', ...ip(`10.${n + 2}.0.2`));
  await sleeper('h2', 'vault-2', 'vault', ...ip(`10.${n + 2}.0.18`));
  await sleeper('h1', 'in-1', 'inside', ...ip(`10.${n + 3}.0.2`));
  await weftOk(
    'service',
    'create',
    'shop',
    '--network',
    'web',
    '--ip',
    `10.${n}.0.200`,
    '--port',
    '80:8080',
    '--selector',
    'app=shop',
    '--health',
    'none',
    '--publish',
    '8207:80',
  );
  const policies = `
policies:
  - name: db
    network: data
    select: { app: db }
    ingress:
      - action: allow
        from: [{ labels: { app: web } }]
        ports: [9042/tcp]
      - action: reject
  - name: no-mail
    network: data
    select: { app: web }
    egress:
      - action: drop
        ports: [25/tcp]
`;
  const r = await run(WEFT, ['policy', 'apply', '-f', '-'], { input: policies });
  if (r.code !== 0) throw new Error(r.stderr);
  await weftOk('wait');
  const { hosts, coordinators } = await labStatus();
  for (const [i, h] of hosts.entries()) names.set(h.underlay.ip, `192.0.2.${i + 1}`);
  names.set(coordinators[0]?.address.replace(/:\d+$/, '') ?? '', '198.51.100.7');
}

export async function tearDown(): Promise<void> {
  await weft('policy', 'rm', 'db', 'no-mail', '--network', 'data');
  await clean(HOSTS);
  await weftOk('wait');
  await auditClean();
}

/** @param args with the page's names for what the lab has: 192.0.2.N is host N, 198.51.100.7 the world */
const asked = (args: readonly string[]): string[] =>
  args.map((arg) => [...names].find(([, shown]) => shown === arg)?.[0] ?? arg);

export async function trace(...args: string[]): Promise<Traced & { code: number }> {
  const r = await weft('trace', ...asked(args), '--json');
  if (r.stdout === '') throw new Error(`trace ${args.join(' ')}: exit ${r.code}\n${r.stderr}`);
  return { ...(JSON.parse(r.stdout) as Traced), code: r.code };
}

/** As the page shows it. */
export async function shown(...args: string[]): Promise<string> {
  const r = await weft('trace', ...asked(args));
  let text = r.stdout + r.stderr;
  for (const [real, name] of names) text = text.replaceAll(real, name);
  return text
    .replaceAll(/wft[0-9a-f]{12}/g, 'wft0123456789ab')
    .replaceAll(/169\.254\.(?!100\.53|64\.1\b)\d+\.\d+/g, '169.254.70.1')
    .replaceAll(/ +$/gm, '');
}

export const engines = (t: Traced): string[] => [...new Set(t.hops.map((h) => `${h.host} ${h.engine}`))];
