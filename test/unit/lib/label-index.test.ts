import fc from 'fast-check';
import { expect, it } from 'vitest';
import { LabelIndex } from '../../../lib/label-index.ts';
import { selects } from '../../../lib/selector.ts';

const labels = fc.dictionary(fc.constantFrom('a', 'a b', 'b', '__proto__'), fc.constantFrom('', 'b', 'b c', 'c'), {
  maxKeys: 3,
});

it('finds what a selector selects, in order', () => {
  fc.assert(
    fc.property(fc.array(labels), labels, (items, selector) => {
      const index = new LabelIndex(items, (item) => item);
      expect(index.find(selector)).toEqual(items.filter((item) => selects(selector, item)));
    }),
  );
});
