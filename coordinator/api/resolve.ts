/** Names that people type, as records: a name, an id, or a unique prefix of an id (four digits or more). */
import { middleCut, WeftError } from '../../lib/errors.ts';
import type { Host, Network, Revision } from '../../lib/model.ts';
import type { State } from '../contract.ts';

export const DEFAULT_PROJECT = 'default';
const MIN_PREFIX = 4;

/** Empty = default. @throws NOT_FOUND */
export function projectOf(project: string): string {
  if (project === '' || project === DEFAULT_PROJECT) return DEFAULT_PROJECT;
  throw new WeftError('NOT_FOUND', `There is no project ${middleCut(project)}.`, {
    hint: 'there is only the project "default" for now: leave the project out',
  });
}

function byId<T extends { readonly id: string }>(records: Iterable<T>, text: string, what: string): T | undefined {
  if (!/^[0-9a-f]+$/.test(text)) return undefined;
  const found = [...records].filter(
    (record) => record.id === text || (text.length >= MIN_PREFIX && record.id.startsWith(text)),
  );
  if (found.length > 1)
    throw new WeftError('INVALID_ARGUMENT', `${what} id ${text} is not unique: ${found.map((r) => r.id).join(', ')}.`, {
      hint: 'write more digits',
    });
  return found[0];
}

/** @throws NOT_FOUND, INVALID_ARGUMENT when a prefix is not unique */
export function networkOf(state: State, project: string, text: string): Network {
  const owner = projectOf(project);
  if (text === '') throw new WeftError('INVALID_ARGUMENT', 'No network is named.', { hint: 'write its name or id' });
  const found = state.networkByName(owner, text) ?? byId(state.networks.values(), text, 'Network');
  if (found === undefined)
    throw new WeftError('NOT_FOUND', `There is no network ${middleCut(text)}.`, {
      hint: 'list them with "weft network ls"',
    });
  return found;
}

/** @throws NOT_FOUND, INVALID_ARGUMENT when a prefix is not unique */
export function hostOf(state: State, text: string): Host {
  if (text === '') throw new WeftError('INVALID_ARGUMENT', 'No host is named.', { hint: 'write its name or id' });
  const found = state.hostByName(text) ?? byId(state.hosts.values(), text, 'Host');
  if (found === undefined)
    throw new WeftError('NOT_FOUND', `There is no host ${middleCut(text)}.`, { hint: 'list them with "weft host ls"' });
  return found;
}

export const revisionOf = (state: State, number = state.revision): Revision => ({ epoch: state.epoch, number });
