/** What the flags of `weft service create` say, as a service. What of it can be, the coordinator judges. Pure. */
import { HealthCheck, Service, type ServicePort } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import { UsageError } from './usage.ts';
import { exactLabels, labels, milliseconds, nonEmpty, quote, wholeNumber } from './values.ts';

export interface ServiceFlags {
  readonly port?: string[];
  readonly selector?: string[];
  readonly ip?: string[];
  readonly headless?: boolean;
  readonly health?: string;
  readonly healthInterval?: string;
  readonly healthTimeout?: string;
  readonly healthRise?: string;
  readonly healthFall?: string;
  readonly affinity?: string;
  readonly localFirst?: boolean;
  readonly publish?: string[];
  readonly publishLocal?: string[];
  readonly label?: string[];
}

/** @throws UsageError; INVALID_ARGUMENT numbers out of range */
export function serviceOf(name: string, flags: ServiceFlags): Service {
  const ports = (flags.port ?? []).map(portOf);
  const { publish = [], publishLocal = [] } = flags;
  if (publish.length > 0 && publishLocal.length > 0)
    throw new UsageError('--publish and --publish-local exclude each other.', 'a service is published one way');
  // As the coordinator says it; here, because without a port the flag's own complaint would come first.
  if (flags.headless === true && publish.length + publishLocal.length > 0)
    throw new WeftError('INVALID_ARGUMENT', 'A headless service cannot be published.', {
      hint: 'leave --headless or --publish out',
    });
  for (const text of publish) publishPort(ports, '--publish', text);
  for (const text of publishLocal) publishPort(ports, '--publish-local', text);
  return Service.fromPartial({
    name: nonEmpty('service name', name),
    ips: (flags.ip ?? []).map((ip) => nonEmpty('--ip', ip)),
    ports,
    selector: exactLabels('--selector', flags.selector ?? []),
    headless: flags.headless ?? false,
    health: healthOf(flags, ports),
    affinityS: flags.affinity === undefined ? 0 : wholeNumber('--affinity', flags.affinity, 1, 86_400),
    localFirst: flags.localFirst ?? false,
    publish: publish.length > 0 ? 'all' : publishLocal.length > 0 ? 'local' : '',
    labels: labels('--label', flags.label ?? []),
  });
}

const port = (flag: string, text: string): number => wholeNumber(flag, text, 1, 65_535);

/** [NAME=]PORT[:TARGET][/PROTOCOL] */
function portOf(text: string): ServicePort {
  const m = /^(?:([^=]+)=)?(\d+)(?::(\d+))?(?:\/([a-z0-9]+))?$/.exec(text);
  if (m === null)
    throw new UsageError(`--port takes [NAME=]PORT[:TARGET][/tcp|udp], not ${quote(text)}.`, 'like 80:8080/tcp');
  const [, name = '', own = '', target, protocol = 'tcp'] = m;
  const number = port('--port', own);
  const targetPort = target === undefined ? number : port('--port', target);
  return { name, protocol, port: number, targetPort, hostPort: 0 };
}

/** [HOSTPORT:]PORT[/PROTOCOL]: the hosts' port that leads to a port which the service has. */
function publishPort(ports: ServicePort[], flag: string, text: string): void {
  const m = /^(?:(\d+):)?(\d+)(?:\/([a-z0-9]+))?$/.exec(text);
  if (m === null) throw new UsageError(`${flag} takes [HOSTPORT:]PORT[/tcp|udp], not ${quote(text)}.`, 'like 8080:80');
  const [, host, own = '', protocol] = m;
  const number = port(flag, own);
  const found = ports.filter((p) => p.port === number && (protocol === undefined || p.protocol === protocol));
  const [first] = found;
  if (first === undefined)
    throw new WeftError('INVALID_ARGUMENT', `${flag} ${text}: the service has no port ${number}.`, {
      hint: 'HOSTPORT:PORT, where PORT is one of those that --port gives',
    });
  if (found.length > 1)
    throw new UsageError(
      `${flag} ${text}: the service has port ${number} of TCP and of UDP.`,
      `${text}/tcp or ${text}/udp`,
    );
  if (first.hostPort !== 0) throw new UsageError(`${flag}: port ${number}/${first.protocol} is published twice.`);
  ports[ports.indexOf(first)] = { ...first, hostPort: host === undefined ? number : port(flag, host) };
}

/** tcp[:PORT], http:[PORT]/PATH or none. */
function healthOf(flags: ServiceFlags, ports: readonly ServicePort[]): HealthCheck | undefined {
  const { healthInterval: interval, healthTimeout: timeout, healthRise: rise, healthFall: fall } = flags;
  const check = flags.health ?? (ports.some((p) => p.protocol === 'tcp') ? 'tcp' : 'none');
  if (check === 'none') {
    if ([interval, timeout, rise, fall].every((given) => given === undefined)) return undefined;
    throw new UsageError('There is no health check that --health-… could be about.', 'give --health tcp:PORT');
  }
  const m = /^(?:(tcp)(?::(\d+))?|(http):(\d+)?(\/.*)?)$/.exec(check);
  if (m === null)
    throw new UsageError(
      `--health takes tcp, tcp:PORT, http:/PATH, http:PORT/PATH or none, not ${quote(check)}.`,
      'like http:/healthz',
    );
  const text = m[2] ?? m[4];
  return HealthCheck.fromPartial({
    type: m[1] ?? 'http',
    port: text === undefined ? 0 : port('--health', text),
    path: m[3] === undefined ? '' : (m[5] ?? '/'),
    intervalMs: interval === undefined ? 0 : milliseconds('--health-interval', interval),
    timeoutMs: timeout === undefined ? 0 : milliseconds('--health-timeout', timeout),
    rise: rise === undefined ? 0 : wholeNumber('--health-rise', rise, 1, 10),
    fall: fall === undefined ? 0 : wholeNumber('--health-fall', fall, 1, 10),
  });
}
