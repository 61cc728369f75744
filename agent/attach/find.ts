/** Networks and attached endpoints by what people call them. */
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Network } from '../../lib/model.ts';
import { type Journal, type LocalEndpoint, type Mesh, nameOf } from '../contract.ts';

const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/;

/**
 * The name of an endpoint, like that of a container: given, or made from what it is.
 * @throws INVALID_ARGUMENT
 */
export function validName(given: string, made: string): string {
  if (given === '') return made.replaceAll(/[^a-zA-Z0-9_.-]/g, '-').replace(/^[^a-zA-Z0-9]+/, '') || 'endpoint';
  if (NAME.test(given)) return given;
  throw new WeftError('INVALID_ARGUMENT', `"${middleCut(given)}" cannot be the name of an endpoint`, {
    hint: 'letters, digits, "_", "." and "-", the first a letter or a digit, up to 63',
  });
}

/** A network by id, NAME or PROJECT.NAME, newest record; waits a moment for one that this host has not taken up yet. @throws NOT_FOUND */
export async function networkOf(
  parts: { journal: Journal; mesh: Pick<Mesh, 'view' | 'hostName'> },
  wanted: string,
  timeoutMs: number,
): Promise<Network> {
  const known = (): Network | null => {
    const all = parts.mesh.view().networks;
    for (const row of parts.journal.networks.values()) {
      const seen = all.get(row.networkId);
      const network = seen !== undefined && seen.revision >= row.network.revision ? seen : row.network;
      if (network.state === 'bound' && isCalled(network, wanted)) return network;
    }
    return null;
  };
  const now = known();
  if (now !== null) return now;
  const told = [...parts.mesh.view().networks.values()].some((n) => n.state === 'bound' && isCalled(n, wanted));
  const late = told ? await eventually(parts.journal, known, timeoutMs) : null;
  if (late !== null) return late;
  if (told)
    throw new WeftError('UNAVAILABLE', `network ${wanted} is not on host ${parts.mesh.hostName} yet`, {
      hint: 'weft status says what is missing there; try again',
    });
  throw new WeftError('NOT_FOUND', `there is no network ${middleCut(wanted)}`, { hint: 'weft network ls lists them' });
}

const isCalled = (n: Network, wanted: string): boolean =>
  n.id === wanted || `${n.project}.${n.name}` === wanted || (n.project === 'default' && n.name === wanted);

function eventually<T>(journal: Journal, look: () => T | null, timeoutMs: number): Promise<T | null> {
  return new Promise((resolve) => {
    const done = (found: T | null): void => {
      clearTimeout(timer);
      stop();
      resolve(found);
    };
    const timer = setTimeout(() => done(null), timeoutMs);
    const stop = journal.onChange(() => {
      const found = look();
      if (found !== null) done(found);
    });
  });
}

/** @param wanted id, unique prefix of one, or name. @throws NOT_FOUND, FAILED_PRECONDITION (a container's, or several) */
export function findAttached(journal: Pick<Journal, 'endpoints'>, wanted: string): LocalEndpoint {
  const all = [...journal.endpoints.values()];
  const exact = all.filter((e) => e.id === wanted || nameOf(e) === wanted);
  const prefix = /^[0-9a-f]{4,}$/.test(wanted) ? all.filter((e) => e.id.startsWith(wanted)) : [];
  const found = exact.length > 0 ? exact : prefix;
  const attached = found.filter((e) => e.attached !== undefined);
  const [first] = attached;
  if (first === undefined && found.length > 0)
    throw new WeftError('FAILED_PRECONDITION', `${wanted} is a container's endpoint`, {
      hint: 'docker network disconnect, or weft network disconnect, ends it',
    });
  if (first === undefined)
    throw new WeftError('NOT_FOUND', `nothing called ${middleCut(wanted)} is attached on this host`, {
      hint: 'weft endpoint ls lists all endpoints with their hosts',
    });
  if (attached.length === 1) return first;
  const ids = attached.map((e) => `${e.id.slice(0, 12)} (${e.ip || e.ip6})`).join(', ');
  throw new WeftError('FAILED_PRECONDITION', `${wanted} means several endpoints: ${ids}`, { hint: 'give the id' });
}
