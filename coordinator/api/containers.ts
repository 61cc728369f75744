/** Control: `docker network connect` and `disconnect` on the host that runs the container. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { canonicalIp, familyOfText } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import { normalMac } from '../../lib/mac.ts';
import type { Host } from '../../lib/model.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';
import { hostOf, networkOf } from './resolve.ts';

const FIND_MS = 5000;
/** Docker may have to wait for the driver. */
const CONNECT_MS = 30_000;

interface Found {
  readonly host: Host;
  readonly id: string;
  readonly name: string;
}

export function containerMethods(
  parts: Parts,
  method: Method,
): Pick<ControlServer, 'connectContainer' | 'disconnectContainer'> {
  const { state, fanout } = parts;

  /** @throws NOT_FOUND; FAILED_PRECONDITION listing HOST/NAME when more than one container could be meant */
  const find = async (container: string, hostName: string, signal: AbortSignal): Promise<Found> => {
    const slash = container.indexOf('/');
    const name = slash < 0 ? container : container.slice(slash + 1);
    const onHost = slash < 0 ? hostName : container.slice(0, slash);
    if (name === '')
      throw new WeftError('INVALID_ARGUMENT', 'No container is named.', { hint: 'write NAME, or HOST/NAME' });
    if (slash >= 0 && hostName !== '' && hostOf(state, hostName).id !== hostOf(state, onHost).id)
      throw new WeftError('INVALID_ARGUMENT', `Container ${container} is not on host ${hostName}.`, {
        hint: 'name the host once',
      });
    const hosts =
      onHost === '' ? [...state.hosts.values()].filter((h) => state.presences.has(h.id)) : [hostOf(state, onHost)];
    const silent: string[] = [];
    const answers = await Promise.all(
      hosts.map(async (host): Promise<Found[]> => {
        try {
          const query = { $case: 'findContainer', value: { container: name } } as const;
          const answer = await fanout.ask(host.id, query, FIND_MS, signal);
          const containers = answer.body?.$case === 'findContainer' ? answer.body.value.containers : [];
          return containers.map((c) => ({ host, id: c.id, name: c.name }));
        } catch (error) {
          const weft = WeftError.from(error);
          if (weft.code === 'NOT_FOUND') return [];
          if (onHost !== '') throw weft;
          silent.push(`${host.name} (${weft.message})`);
          return [];
        }
      }),
    );
    const all = answers.flat();
    // A name is what people mean, before a part of an id.
    const named = all.filter((found) => found.name === name || found.id === name);
    const found = named.length > 0 ? named : all;
    const [only] = found;
    const unasked = silent.length > 0 ? ` These hosts could not be asked: ${silent.join(', ')}.` : '';
    if (only === undefined)
      throw new WeftError(
        'NOT_FOUND',
        `There is no container ${container} on ${onHost === '' ? 'any host' : onHost}.${unasked}`,
        {
          hint: 'it must exist on a connected host',
        },
      );
    if (found.length > 1)
      throw new WeftError(
        'FAILED_PRECONDITION',
        `More than one container could be meant: ${found
          .map((f) => `${f.host.name}/${f.name}`)
          .sort()
          .join(', ')}.`,
        { hint: 'write HOST/NAME' },
      );
    return only;
  };

  return {
    connectContainer: method(async ({ request, signal }) => {
      const network = networkOf(state, request.project, request.network);
      const [ip, ip6] = [addressOf('--ip', request.ip, 4), addressOf('--ip6', request.ip6, 6)];
      const mac = request.mac === '' ? '' : normalMac(request.mac);
      const { host, id } = await find(request.container, request.host, signal);
      const value = { networkId: network.id, container: id, ip, mac, ip6 };
      const answer = await fanout.ask(host.id, { $case: 'connect', value }, CONNECT_MS, signal);
      const given = answer.body?.$case === 'connect' ? answer.body.value : { ip: '', ip6: '' };
      return { host: host.name, ip: given.ip, ip6: given.ip6 };
    }),

    disconnectContainer: method(async ({ request, signal }) => {
      const network = networkOf(state, request.project, request.network);
      const { host, id } = await find(request.container, request.host, signal);
      const value = { networkId: network.id, container: id, force: request.force };
      await fanout.ask(host.id, { $case: 'disconnect', value }, CONNECT_MS, signal);
      return { host: host.name };
    }),
  };
}

/** Empty stays empty. @throws INVALID_ARGUMENT unless an address of the family */
function addressOf(flag: string, text: string, family: 4 | 6): string {
  if (text === '') return '';
  const ip = canonicalIp(text);
  if (familyOfText(ip) === family) return ip;
  throw new WeftError('INVALID_ARGUMENT', `${flag} ${ip} is not an IPv${family} address.`, {
    hint: family === 4 ? 'give it as --ip6' : 'give it as --ip',
  });
}
