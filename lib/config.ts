/** agent.yaml and coordinator.yaml: read, checked, defaults filled in. Errors name the file, the key and what it should be. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import * as v from 'valibot';
import { LineCounter, parseDocument } from 'yaml';
import { WeftError } from './errors.ts';
import { formatHostPort, tryParseHostPort } from './hostport.ts';
import { formatIp6, tryParseIp6 } from './ip6.ts';
import { parseShaped, tryParseShaped } from './rate.ts';

export const AGENT_CONFIG = '/etc/weft/agent.yaml';
export const COORDINATOR_CONFIG = '/etc/weft/coordinator.yaml';
export const CONTROL_PORT = 7470;
const TLS_DIR = '/etc/weft/tls';

const name = v.pipe(
  v.string('a name'),
  v.regex(/^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/, 'a name of letters, digits, "_", "." and "-", at most 63 characters'),
);
const path = v.pipe(v.string('a path'), v.regex(/^\/./, 'an absolute path'));
const ipAddress = v.pipe(
  v.string('an IP address'),
  v.check((text) => isIP(text) !== 0, 'an IPv4 or IPv6 address'),
  v.transform((text) => {
    const ip6 = tryParseIp6(text);
    return ip6 === null ? text : formatIp6(ip6);
  }),
);
const port = v.pipe(
  v.number('a port number'),
  v.check((n) => Number.isInteger(n) && n >= 1 && n <= 65535, 'a port number from 1 to 65535'),
);

/** host:port, normal form; the port may be left out where there is a default. */
const address = (defaultPort?: number) =>
  v.pipe(
    v.string('an address host:port'),
    v.check((text) => tryParseHostPort(text, defaultPort) !== null, 'an address host:port'),
    v.transform((text) => {
      const at = tryParseHostPort(text, defaultPort);
      return at === null ? text : formatHostPort(at);
    }),
  );

/** One may be written without the list. */
const addresses = (defaultPort?: number) =>
  v.pipe(
    v.unknown(),
    v.transform((value) => (typeof value === 'string' ? [value] : value)),
    v.array(address(defaultPort), 'a list of addresses'),
    v.minLength(1, 'at least one address'),
  );

const tls = (role: string) =>
  v.optional(
    v.strictObject(
      {
        ca: v.optional(path, `${TLS_DIR}/ca.crt`),
        cert: v.optional(path, `${TLS_DIR}/${role}.crt`),
        key: v.optional(path, `${TLS_DIR}/${role}.key`),
      },
      'a map with ca, cert and key',
    ),
    {},
  );

const log = v.optional(
  v.strictObject(
    {
      level: v.optional(
        v.picklist(['trace', 'debug', 'info', 'warn', 'error'], 'trace, debug, info, warn or error'),
        'info',
      ),
      /** Lines go to stderr unless a file is named. */
      file: v.optional(v.nullable(path), null),
    },
    'a map with level and file',
  ),
  {},
);

/** null switches the HTTP server off. */
const metrics = (defaultPort: number) => v.optional(v.nullable(address(defaultPort)), `127.0.0.1:${defaultPort}`);

const inheritOr = (min: number, max: number) =>
  v.union(
    [v.literal('inherit'), v.pipe(v.number(), v.integer(), v.minValue(min), v.maxValue(max))],
    `"inherit" or a number from ${min} to ${max}`,
  );

/** Bytes; the interface's own unless given. */
const underlayMtu = v.optional(
  v.nullable(
    v.pipe(
      v.number('a number of bytes'),
      v.check((n) => Number.isInteger(n) && n >= 576 && n <= 65535, 'a number of bytes from 576 to 65535'),
    ),
  ),
  null,
);

const SHAPE = 'a rate from 1mbit to 100gbit such as 950mbit, or none';

/** This host's VTEP: an address of it; or `on`, the CIDR that contains it or its interface. Text alone means either. */
const underlay = v.pipe(
  v.unknown(),
  v.transform((value) => (typeof value === 'string' ? underlayOf(value) : value)),
  v.strictObject(
    {
      vtep: v.optional(ipAddress),
      on: v.optional(v.pipe(v.string(), v.regex(/^[^\s]{1,64}$/, 'a CIDR or the name of an interface'))),
      mtu: underlayMtu,
      /** Bits per second that its interface is shaped to, by classes; null = it is left alone. */
      shape: v.optional(
        v.nullable(
          v.pipe(
            v.string(SHAPE),
            v.check((text) => tryParseShaped(text) !== undefined, SHAPE),
            v.transform((text) => tryParseShaped(text) ?? null),
          ),
        ),
        null,
      ),
    },
    'a map with vtep (an address of this host) or on (a CIDR or an interface), mtu and shape',
  ),
  v.check((u) => (u.vtep === undefined) !== (u.on === undefined), 'a map with either vtep or on'),
);

/** @param text address, CIDR or interface, as --underlay takes it. */
export const underlayOf = (text: string): { vtep: string } | { on: string } =>
  isIP(text) ? { vtep: text } : { on: text };

const agentSchema = v.strictObject({
  /** Host name in the mesh. */
  name: v.optional(name, () => hostname().split('.')[0] ?? ''),
  coordinators: addresses(CONTROL_PORT),
  tls: tls('agent'),
  stateDir: v.optional(path, '/var/lib/weft'),
  runDir: v.optional(path, '/run/weft'),
  pluginSocket: v.optional(path, '/run/docker/plugins/weft.sock'),
  /** RUNDIR/agent.sock unless given. */
  agentSocket: v.optional(path),
  dockerSocket: v.optional(path, '/var/run/docker.sock'),
  ovs: v.optional(
    v.strictObject(
      {
        /** Unix socket of ovsdb-server. */
        db: v.optional(path, '/var/run/openvswitch/db.sock'),
        /** Where ovs-vswitchd has its *.mgmt and *.ctl sockets. */
        rundir: v.optional(path, '/var/run/openvswitch'),
      },
      'a map with db and rundir',
    ),
    {},
  ),
  datapath: v.optional(v.picklist(['auto', 'system', 'netdev'], 'auto, system or netdev'), 'auto'),
  /** How frames reach other hosts; "auto": as the kernel allows. */
  backend: v.optional(v.picklist(['auto', 'ovs-tunnel', 'kernel-tunnel'], 'auto, ovs-tunnel or kernel-tunnel'), 'auto'),
  /** Where the maps and programs of kernel-tunnel are pinned; a BPF file system is mounted at its parent where there is none. */
  bpfDir: v.optional(path, '/sys/fs/bpf/weft'),
  /** With kernel-tunnel: frames that only need forwarding go past Open vSwitch. */
  express: v.optional(v.boolean('true or false'), true),
  underlay,
  /** The outer headers of what this host sends. */
  tunnel: v.optional(
    v.strictObject(
      {
        ttl: v.optional(inheritOr(1, 255), 64),
        dscp: v.optional(inheritOr(0, 63), 'inherit'),
        /** UDP checksum over the whole packet. */
        checksum: v.optional(v.boolean('true or false'), false),
      },
      'a map with ttl, dscp and checksum',
    ),
    {},
  ),
  metrics: metrics(7472),
  /** Whose resolvers are asked for names that the mesh does not have (resolv.conf(5)). */
  resolvConf: v.optional(v.string(), '/etc/resolv.conf'),
  log,
  /** False: drift is reported and left (tests). */
  heal: v.optional(v.boolean('true or false'), true),
  vxlanPort: v.optional(port, 4789),
  genevePort: v.optional(port, 6081),
});

const coordinatorSchema = v.strictObject({
  name: v.optional(name, () => hostname().split('.')[0] ?? ''),
  listen: v.optional(addresses(CONTROL_PORT), [`0.0.0.0:${CONTROL_PORT}`]),
  /** host:port that other coordinators dial; the first of `listen`, with this machine's name for a wildcard. */
  advertise: v.optional(address(CONTROL_PORT)),
  metrics: metrics(7471),
  tls: tls('coordinator'),
  etcd: v.union(
    [
      v.literal('embedded'),
      v.strictObject({
        /** URLs. */
        endpoints: v.pipe(
          v.array(v.pipe(v.string(), v.regex(/^https?:\/\/[^/\s]+$/))),
          v.minLength(1, 'at least one URL'),
        ),
        tls: v.optional(v.nullable(v.strictObject({ ca: path, cert: path, key: path })), null),
      }),
    ],
    '"embedded", or a map with endpoints (URLs such as http://192.0.2.1:2379) and tls',
  ),
  stateDir: v.optional(path, '/var/lib/weft'),
  vxlanPort: v.optional(port, 4789),
  log,
  /** False: drift of etcd's keys is reported and left (tests). */
  heal: v.optional(v.boolean('true or false'), true),
});

export type AgentConfig = Omit<v.InferOutput<typeof agentSchema>, 'agentSocket'> & { readonly agentSocket: string };
export type CoordinatorConfig = Omit<v.InferOutput<typeof coordinatorSchema>, 'advertise'> & {
  readonly advertise: string;
};

/** What flags of the command line say of the underlay: instead of the file, each for itself. */
export interface UnderlayFlags {
  readonly underlay?: string | undefined;
  /** Of `underlay.shape`. */
  readonly shape?: string | undefined;
}

/** @throws NOT_FOUND when the file is not there, INVALID_ARGUMENT when it is not as it should be. */
export const loadAgentConfig = async (file = AGENT_CONFIG, flags: UnderlayFlags = {}): Promise<AgentConfig> =>
  parseAgentConfig(await read(file), file, flags);

/**
 * @param overrides replace keys of the file (command line flags); with one, the usual file need not be there.
 * @throws NOT_FOUND when the file is not there, INVALID_ARGUMENT when it is not as it should be.
 */
export const loadCoordinatorConfig = async (
  file = COORDINATOR_CONFIG,
  overrides: Readonly<Record<string, unknown>> = {},
): Promise<CoordinatorConfig> => parseCoordinatorConfig(await readOr(file, overrides), file, overrides);

async function readOr(file: string, overrides: Readonly<Record<string, unknown>>): Promise<string> {
  const optional = file === COORDINATOR_CONFIG && Object.keys(overrides).length > 0;
  return optional && !existsSync(file) ? '' : read(file);
}

export function parseAgentConfig(text: string, file = AGENT_CONFIG, flags: UnderlayFlags = {}): AgentConfig {
  const config = check(agentSchema, withUnderlay(toObject(text, file), flags), file);
  return { ...config, agentSocket: config.agentSocket ?? `${config.runDir}/agent.sock` };
}

function withUnderlay(config: Record<string, unknown>, { underlay, shape }: UnderlayFlags): Record<string, unknown> {
  if (underlay === undefined && shape === undefined) return config;
  if (shape !== undefined) parseShaped(shape); // a flag that means nothing is named as one
  const said = config['underlay'];
  const { vtep, on, ...others } = (typeof said === 'string' ? underlayOf(said) : (said ?? {})) as Record<
    string,
    unknown
  >;
  const where = underlay === undefined ? (vtep === undefined ? { on } : { vtep }) : underlayOf(underlay);
  return { ...config, underlay: { ...where, ...others, ...(shape === undefined ? {} : { shape }) } };
}

export function parseCoordinatorConfig(
  text: string,
  file = COORDINATOR_CONFIG,
  overrides: Readonly<Record<string, unknown>> = {},
): CoordinatorConfig {
  const config = check(coordinatorSchema, { ...toObject(text, file), ...overrides }, file);
  const first = tryParseHostPort(config.listen[0] ?? '', CONTROL_PORT) ?? { host: '0.0.0.0', port: CONTROL_PORT };
  const wildcard = first.host === '0.0.0.0' || first.host === '::';
  const own = formatHostPort(wildcard ? { host: hostname(), port: first.port } : first);
  return { ...config, advertise: config.advertise ?? own };
}

async function read(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new WeftError('NOT_FOUND', `The configuration ${file} cannot be read: ${(error as Error).message}.`, {
      hint: 'deploy/ has examples; --config names another file',
      cause: error,
    });
  }
}

function toObject(text: string, file: string): Record<string, unknown> {
  const document = parseDocument(text, { lineCounter: new LineCounter(), prettyErrors: true, uniqueKeys: true });
  const [problem] = document.errors;
  if (problem !== undefined) throw new WeftError('INVALID_ARGUMENT', `${file} is not YAML: ${problem.message}`);
  const value: unknown = document.toJS({ maxAliasCount: 10 }) ?? {};
  if (typeof value !== 'object' || Array.isArray(value))
    throw new WeftError('INVALID_ARGUMENT', `${file} must be a map of keys and values.`);
  return value as Record<string, unknown>;
}

function check<S extends v.GenericSchema>(schema: S, value: unknown, file: string): v.InferOutput<S> {
  const result = v.safeParse(schema, value, { abortPipeEarly: true });
  if (result.success) return result.output;
  const lines = result.issues.map(explain);
  throw new WeftError('INVALID_ARGUMENT', `${file}: ${lines.join('; ')}.`, {
    hint: 'docs/install.md lists the keys and their defaults',
  });
}

function explain(issue: v.BaseIssue<unknown>): string {
  const key = v.getDotPath(issue) ?? '';
  // strictObject reports both of these; its own message would say neither.
  if (issue.type === 'strict_object' && issue.expected === 'never') return `unknown key ${key}`;
  if (issue.type === 'strict_object' && issue.input === undefined) return `${key} is missing`;
  return `${key} must be ${issue.message}, and is ${JSON.stringify(issue.input)}`;
}
