/** What is to be done to the kernel side's maps, and to the programs on links. Pure. */
import { diff } from '../../lib/delta.ts';
import { describeKey, describeValue } from '../bpf/describe.ts';
import { type EncodedMaps, MAP_NAMES, type MapName } from '../bpf/encode.ts';
import type { BpfAttachment, BpfProgram } from '../bpf/model.ts';
import type { Planned } from './planned.ts';

export type MapStep =
  | { readonly kind: 'setMap'; readonly map: MapName; readonly key: string; readonly value: string }
  | { readonly kind: 'delMap'; readonly map: MapName; readonly key: string };

export type ProgramStep =
  | { readonly kind: 'attach'; readonly ifindex: number; readonly link: string; readonly program: BpfProgram }
  | { readonly kind: 'detach'; readonly ifindex: number; readonly link: string };

export type BpfStep = MapStep | ProgramStep;

/** At our place of a link: one of our programs as loaded now, something else (an older one, or foreign), nothing. */
export type AttachedProgram = BpfProgram | 'other' | null;

/** Identity of an entry among all maps. */
export const mapEntryId = (map: MapName, key: string): string => `${map}:${key}`;

export function planMaps(desired: EncodedMaps, actual: EncodedMaps): Planned<MapStep>[] {
  const none: ReadonlyMap<string, string> = new Map();
  return MAP_NAMES.flatMap((map) => {
    const { missing, differs, extra } = diff(desired.get(map) ?? none, actual.get(map) ?? none, (a, b) => a === b);
    const planned = (key: string, want: string | null, have: string | null): Planned<MapStep> => ({
      kind: 'map',
      id: mapEntryId(map, key),
      object: describeKey(map, key),
      change: have === null ? 'missing' : want === null ? 'extra' : 'differs',
      want: want === null ? '' : describeValue(map, want),
      have: have === null ? '' : describeValue(map, have),
      step: want === null ? { kind: 'delMap', map, key } : { kind: 'setMap', map, key, value: want },
    });
    return [
      ...[...missing].map(([key, want]) => planned(key, want, null)),
      ...[...differs].map(([key, { want, have }]) => planned(key, want, have)),
      // An array's element cannot be removed; it is always wanted.
      ...(map === 'config' ? [] : [...extra].map(([key, have]) => planned(key, null, have))),
    ];
  });
}

/**
 * @param actual by ifindex; links that are not there have no entry, and are waited for
 * @param bare names of links that nothing is to be attached to
 */
export function planPrograms(
  desired: readonly BpfAttachment[],
  actual: ReadonlyMap<number, AttachedProgram>,
  bare: readonly Pick<BpfAttachment, 'ifindex' | 'link'>[] = [],
): Planned<ProgramStep>[] {
  const planned: Planned<ProgramStep>[] = [];
  const wanted = new Set<number>();
  const names = new Map(bare.map(({ ifindex, link }) => [ifindex, link]));
  for (const { ifindex, link, program } of desired) {
    wanted.add(ifindex);
    const have = actual.get(ifindex);
    if (have === undefined || have === program) continue;
    planned.push({
      kind: 'program',
      id: link,
      object: link,
      change: have === null ? 'missing' : 'differs',
      want: program,
      have: have ?? '',
      step: { kind: 'attach', ifindex, link, program },
    });
  }
  for (const [ifindex, have] of actual) {
    if (wanted.has(ifindex) || have === null) continue;
    const link = names.get(ifindex) ?? `ifindex ${ifindex}`;
    planned.push({
      kind: 'program',
      id: link,
      object: link,
      change: 'extra',
      want: '',
      have,
      step: { kind: 'detach', ifindex, link },
    });
  }
  return planned;
}
