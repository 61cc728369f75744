/** What Docker's answers say (pure): read field by field, since its JSON has null where dockerode's types promise objects. */
import { WeftError } from '../../lib/errors.ts';
import { NO_IPV4, shownAddress } from './pools.ts';

/** A network as Docker has it. */
export interface DockerNetwork {
  readonly id: string;
  readonly name: string;
  readonly driver: string;
  readonly ipamDriver: string;
  /** IPv4; empty = none. */
  readonly subnet: string;
  readonly subnet6: string;
  /** Of either family, as given. */
  readonly ipRanges: readonly string[];
  readonly gateway: string;
  readonly gateway6: string;
  readonly auxAddresses: Readonly<Record<string, string>>;
  readonly internal: boolean;
  readonly attachable: boolean;
  readonly options: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
}

/** An endpoint as Docker has it. */
export interface DockerEndpoint {
  readonly id: string;
  readonly dockerNetworkId: string;
  /** Null for one that belongs to no container (left by a crash, or still being made). */
  readonly containerId: string | null;
  readonly containerName: string;
  /** Empty = none. */
  readonly ip: string;
  readonly prefix: number;
  readonly ip6: string;
  readonly prefix6: number;
  readonly mac: string;
}

export interface DockerContainer {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** created, running, paused, exited … */
  readonly state: string;
}

/** What only a container's inspect tells: its namespace, and network aliases by endpoint id. */
export interface ContainerSandbox {
  readonly sandbox: string;
  /** First process in it; 0 when it does not run. */
  readonly pid: number;
  readonly aliases: ReadonlyMap<string, readonly string[]>;
}

export interface DockerEvent {
  readonly type: 'network' | 'container';
  /** create, destroy, connect, disconnect; rename, die. */
  readonly action: string;
  /** Network or container id. */
  readonly id: string;
  readonly attributes: Readonly<Record<string, string>>;
}

type Fields = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);

/** Absent, or null, is none: for what an answer may leave out. */
const fields = (value: unknown): Fields => (isObject(value) ? value : {});
const list = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);
const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const texts = (value: unknown): Record<string, string> =>
  Object.fromEntries(Object.entries(fields(value)).filter((entry): entry is [string, string] => isText(entry[1])));
const isText = (value: unknown): value is string => typeof value === 'string';

/** An answer that is not what was asked must not be taken for "there is none". @throws INTERNAL */
export function listOf<T>(answer: unknown, read: (item: unknown) => T): T[] {
  if (!Array.isArray(answer)) throw strange('no list');
  return answer.map(read);
}

/** @throws INTERNAL when there is no id */
export function idOf(answer: unknown): string {
  const id = fields(answer)['Id'];
  if (!isText(id) || id === '') throw strange('no id');
  return id;
}

const strange = (what: string): WeftError =>
  new WeftError('INTERNAL', `dockerd's answer is not understood: ${what} in it`);

export function versionOf(answer: unknown): { version: string; api: string } {
  const { Version, ApiVersion } = fields(answer);
  return { version: text(Version), api: text(ApiVersion) };
}

/** One network of the list, or the answer of inspect. */
export function networkOf(answer: unknown): DockerNetwork {
  const { Name, Driver, IPAM, Internal, Attachable, Options, Labels } = fields(answer);
  const ipam = fields(IPAM);
  const configs = list(ipam['Config']).map(fields);
  const of = (six: boolean): Fields => configs.find((c) => text(c['Subnet']).includes(':') === six) ?? {};
  const [four, six] = [of(false), of(true)];
  const none = text(four['Subnet']) === NO_IPV4.pool;
  return {
    id: idOf(answer),
    name: text(Name),
    driver: text(Driver),
    ipamDriver: text(ipam['Driver']),
    subnet: none ? '' : text(four['Subnet']),
    subnet6: text(six['Subnet']),
    ipRanges: configs.map((c) => text(c['IPRange'])).filter((range) => range !== ''),
    gateway: shownAddress(text(four['Gateway'])),
    gateway6: shownAddress(text(six['Gateway'])),
    auxAddresses: { ...texts(four['AuxiliaryAddresses']), ...texts(six['AuxiliaryAddresses']) },
    internal: Internal === true,
    attachable: Attachable === true,
    options: texts(Options),
    labels: texts(Labels),
  };
}

/** Of a network's inspect: keys are container ids, or "ep-" and the endpoint's id where it belongs to none. */
export function endpointsOf(answer: unknown): DockerEndpoint[] {
  const dockerNetworkId = idOf(answer);
  return Object.entries(fields(fields(answer)['Containers'])).map(([key, value]) => {
    const { EndpointID, Name, IPv4Address, IPv6Address, MacAddress } = fields(value);
    const [four, six] = [text(IPv4Address), text(IPv6Address)];
    const prefixOf = (address: string, none: number): number => Number(address.split('/')[1] ?? none);
    return {
      id: text(EndpointID),
      dockerNetworkId,
      containerId: key.startsWith('ep-') ? null : key,
      containerName: text(Name),
      ip: shownAddress(four),
      prefix: prefixOf(four, 32),
      ip6: shownAddress(six),
      prefix6: prefixOf(six, 128),
      mac: text(MacAddress).toLowerCase(),
    };
  });
}

/** One container of the list. */
export function containerOf(answer: unknown): DockerContainer {
  const { Names, Labels, State } = fields(answer);
  return {
    id: idOf(answer),
    name: text(list(Names)[0]).replace(/^\//, ''),
    labels: texts(Labels),
    state: text(State),
  };
}

export function sandboxOf(answer: unknown): ContainerSandbox {
  idOf(answer);
  const { SandboxKey, Networks } = fields(fields(answer)['NetworkSettings']);
  const { Pid } = fields(fields(answer)['State']);
  const aliases = Object.values(fields(Networks)).map((network): [string, string[]] => {
    const { EndpointID, Aliases } = fields(network);
    return [text(EndpointID), list(Aliases).filter(isText)];
  });
  return { sandbox: text(SandboxKey), pid: typeof Pid === 'number' ? Pid : 0, aliases: new Map(aliases) };
}

/** One line of /events. `since` has nanoseconds: more than a number holds exactly, so it is taken from the text. */
export function eventOf(line: string): { event: DockerEvent; since: string } | null {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    return null;
  }
  const { Type: type, Action, Actor } = fields(parsed);
  if (type !== 'network' && type !== 'container') return null;
  const { ID, Attributes } = fields(Actor);
  const nano = /"timeNano":(\d{10,})/.exec(line)?.[1];
  return {
    event: { type, action: text(Action), id: text(ID), attributes: texts(Attributes) },
    since: nano === undefined ? '0' : `${nano.slice(0, -9)}.${nano.slice(-9)}`,
  };
}
