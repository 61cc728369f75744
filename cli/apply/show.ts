/** Plans as people read them. Pure. */
import { clean } from '../output.ts';
import { type Change, type Plan, refText } from './model.ts';

const SIGN: Readonly<Record<Change['action'], string>> = {
  create: '+',
  update: '~',
  replace: '~',
  remove: '-',
  missing: '?',
};

const NOTE: Readonly<Record<Change['action'], string>> = {
  create: '',
  update: '',
  replace: ' (made anew: it cannot be changed)',
  remove: '',
  missing: ' (it is not there: apply again when it runs)',
};

/** "-" is what is and goes, "+" what is not and comes. */
export function planText({ changes }: Pick<Plan, 'changes'>): string {
  if (changes.length === 0) return 'Nothing to do: the mesh is as the files say.\n';
  const count = new Map<string, number>();
  for (const { action } of changes) count.set(action, (count.get(action) ?? 0) + 1);
  const words = {
    create: 'to make',
    update: 'to change',
    replace: 'to make anew',
    remove: 'to remove',
    missing: 'not there',
  };
  const sums = Object.entries(words).flatMap(([action, word]) => {
    const n = count.get(action);
    return n === undefined ? [] : [`${n} ${word}`];
  });
  return `${changes.map(changeText).join('')}${sums.join(', ')}\n`;
}

function changeText(change: Change): string {
  const head = `${SIGN[change.action]} ${clean(refText(change))}${NOTE[change.action]}\n`;
  const lines = change.differences.flatMap(({ key, have, want }) => [
    ...(have === null ? [] : [`    - ${key}: ${have}`]),
    ...(want === null ? [] : [`    + ${key}: ${want}`]),
  ]);
  return head + lines.map((line) => `    ${clean(line.trim())}\n`).join('');
}

export const changeJson = ({ kind, network, name, action, differences }: Change) => ({
  kind,
  network,
  name,
  action,
  differences,
});
