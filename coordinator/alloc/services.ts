/** Judges what is asked of a service by itself, and makes it canonical. What of the mesh it must not take is in service-clash.ts. Pure. */
import { familyOfText, formatIp } from '../../lib/addr.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { HealthCheck, Network, Service, ServicePort } from '../../lib/model.ts';
import { withHealthDefaults } from '../../lib/service-defaults.ts';
import type { NewService } from '../contract.ts';
import { noWayOut } from './edits.ts';
import { checkAssignable } from './families.ts';

export const MAX_PORTS = 32;
/** A day. */
const MAX_AFFINITY_S = 86_400;
const MAX_PATH = 1024;
const MAX_LABELS = 64;
const HOUR_MS = 3_600_000;

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });

/**
 * @returns with all that has a default filled in, addresses that are to be picked excepted
 * @throws INVALID_ARGUMENT what no service of the network can be; FAILED_PRECONDITION the network can have none
 */
export function checkService(network: Network, asked: Service): NewService {
  if (network.state !== 'bound')
    throw new WeftError('FAILED_PRECONDITION', `Network ${network.id} has no name yet.`, { hint: 'try again' });
  if (network.encap === 'vlan')
    throw new WeftError('FAILED_PRECONDITION', `Network ${network.name} is a vlan: it has no services.`, {
      hint: 'make the service in a network of another encapsulation',
    });
  if (!/^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$/.test(asked.name))
    throw invalid(
      `"${middleCut(asked.name)}" cannot be the name of a service.`,
      'use 1 to 63 lower-case letters, digits, "-" or "_", beginning and ending with a letter or digit',
    );
  const selector = checkSelector(asked.selector);
  const ports = checkPorts(asked);
  checkPublish(asked, ports);
  const shut = asked.publish === '' ? null : noWayOut(network);
  if (shut !== null)
    throw new WeftError('FAILED_PRECONDITION', `No port of the hosts leads into network ${network.name}: ${shut}.`, {
      hint: 'leave --publish out, or make the service in a network that leads out by Weft',
    });
  if (asked.affinityS > MAX_AFFINITY_S)
    throw invalid(`An affinity of ${asked.affinityS} s is too long.`, `give up to ${MAX_AFFINITY_S} seconds`);
  if (asked.headless && asked.affinityS > 0)
    throw invalid('A headless service has no affinity: its clients choose by themselves.', 'leave --affinity out');
  return {
    networkId: network.id,
    name: asked.name,
    ips: checkIps(network, asked),
    ports,
    selector,
    headless: asked.headless,
    health: asked.health === undefined ? undefined : checkHealth(asked.health, ports),
    affinityS: asked.affinityS,
    localFirst: asked.localFirst,
    publish: asked.publish,
    labels: { ...asked.labels },
  };
}

function checkSelector(selector: Readonly<Record<string, string>>): Record<string, string> {
  const labels = Object.keys(selector);
  if (labels.length === 0)
    throw invalid(
      'A service needs to know who is behind it.',
      'give --selector LABEL=VALUE: containers with that label',
    );
  if (labels.includes('')) throw invalid('A label of the selector has no name.', 'give --selector LABEL=VALUE');
  if (labels.length > MAX_LABELS) throw invalid(`A selector has at most ${MAX_LABELS} labels.`, 'give fewer');
  return { ...selector };
}

/** Canonical, IPv4 first. */
function checkIps(network: Network, { ips: given, headless }: Service): string[] {
  if (headless && given.length > 0)
    throw invalid('A headless service has no address of its own.', 'leave --ip or --headless out');
  const ips = given.map((text) => formatIp(checkAssignable(network, text).ip));
  ips.sort((a, b) => familyOfText(a) - familyOfText(b));
  if (ips.length > 2 || (ips.length === 2 && familyOfText(ips[0]!) === familyOfText(ips[1]!)))
    throw invalid('A service has one address of each family.', 'give --ip once for IPv4, and once for IPv6');
  return ips;
}

const isPort = (port: number): boolean => Number.isInteger(port) && port >= 1 && port <= 65_535;

/** As text, like 80/tcp. */
const portText = (p: Pick<ServicePort, 'port' | 'protocol'>): string => `${p.port}/${p.protocol}`;

function checkPorts({ ports: asked, headless }: Service): ServicePort[] {
  if (asked.length === 0 && !headless) throw invalid('A service needs a port.', 'give --port PORT[:TARGET]/tcp');
  if (asked.length > MAX_PORTS) throw invalid(`A service has at most ${MAX_PORTS} ports.`, 'make a second service');
  const ports = asked.map((p): ServicePort => {
    const protocol = p.protocol === '' ? 'tcp' : p.protocol;
    if (protocol !== 'tcp' && protocol !== 'udp')
      throw invalid(`"${middleCut(protocol)}" is no protocol of a service's port.`, 'choose tcp or udp');
    const targetPort = p.targetPort === 0 ? p.port : p.targetPort;
    for (const port of [p.port, targetPort, ...(p.hostPort === 0 ? [] : [p.hostPort])])
      if (!isPort(port)) throw invalid(`${port} is no port.`, 'choose 1 to 65535');
    if (p.name !== '' && !/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(p.name))
      throw invalid(
        `"${middleCut(p.name)}" cannot be the name of a port.`,
        'use 1 to 63 lower-case letters, digits or "-", beginning and ending with a letter or digit',
      );
    return { name: p.name, protocol, port: p.port, targetPort, hostPort: p.hostPort };
  });
  refuseTwice(ports.map(portText), (text) => `The port ${text} is given twice.`);
  refuseTwice(
    ports.map((p) => p.name).filter((name) => name !== ''),
    (name) => `Two ports have the name "${name}".`,
  );
  return ports;
}

function refuseTwice(texts: readonly string[], sentence: (text: string) => string): void {
  const twice = texts.find((text, i) => texts.indexOf(text) < i);
  if (twice !== undefined) throw invalid(sentence(twice), 'give each once');
}

function checkPublish({ publish, headless }: Service, ports: readonly ServicePort[]): void {
  const published = ports.filter((p) => p.hostPort !== 0);
  if (!['', 'all', 'local'].includes(publish))
    throw invalid(
      `"${middleCut(publish)}" is no way to publish a service.`,
      'choose "all" or "local", or leave it out',
    );
  if (publish === '' && published.length > 0)
    throw invalid(
      'A port of the hosts is given, and the service is not published.',
      'give --publish or --publish-local',
    );
  if (publish === '') return;
  if (headless) throw invalid('A headless service cannot be published.', 'leave --headless or --publish out');
  if (published.length === 0)
    throw invalid('The service is published, and no port of the hosts leads to it.', 'give --publish HOSTPORT:PORT');
  refuseTwice(
    published.map((p) => portText({ port: p.hostPort, protocol: p.protocol })),
    (text) => `The port ${text} of the hosts is given twice.`,
  );
}

function checkHealth(asked: HealthCheck, ports: readonly ServicePort[]): HealthCheck {
  const { type, path, port, ...full } = withHealthDefaults(asked, ports);
  if (type !== 'tcp' && type !== 'http')
    throw invalid(`"${middleCut(type)}" is no health check.`, 'choose tcp or http, or leave it out');
  if (asked.port !== 0 && !isPort(asked.port)) throw invalid(`${asked.port} is no port.`, 'choose 1 to 65535');
  if (port === 0)
    throw invalid('The health check has no port: the service has none of TCP.', `give one, like --health ${type}:8080`);
  // It becomes a line of a request.
  if (type === 'http' && !(path.length <= MAX_PATH && /^\/[\x21-\x7e]*$/.test(path)))
    throw invalid(`"${middleCut(path)}" is no path to ask for.`, 'begin it with "/", and write blanks as %20');
  if (type === 'tcp' && path !== '') throw invalid('A health check by TCP has no path.', 'write http:/path');
  const bounded = (what: string, value: number, least: number, most: number, unit: string): number => {
    if (value >= least && value <= most) return value;
    throw invalid(`${what} of ${value}${unit} is out of range.`, `give ${least}${unit} to ${most}${unit}`);
  };
  const intervalMs = bounded('A health interval', full.intervalMs, 200, HOUR_MS, ' ms');
  const timeoutMs = bounded('A health timeout', full.timeoutMs, 1, intervalMs, ' ms');
  const rise = bounded('A rise', full.rise, 1, 10, '');
  const fall = bounded('A fall', full.fall, 1, 10, '');
  return { type, port, path, intervalMs, timeoutMs, rise, fall };
}
