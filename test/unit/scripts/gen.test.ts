/** When gen/ is made anew: by what it was made of, not by the age of files, which a copy or a checkout changes. */
import { cpSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { genIsOld, keepGenSource } from '../../../scripts/gen-source.ts';

let root: string;
const put = (path: string, text: string): void => writeFileSync(join(root, path), text);

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'weft-gen-'));
  mkdirSync(join(root, 'proto/weft/v1'), { recursive: true });
  mkdirSync(join(root, 'gen'));
  put('proto/weft/v1/types.proto', 'message A {}');
  put('buf.gen.yaml', 'version: v2');
  keepGenSource(root);
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

test('what was made of the same is not old, whatever the clock says', () => {
  expect(genIsOld(root)).toBe(false);
  utimesSync(join(root, 'proto/weft/v1/types.proto'), new Date(), new Date(Date.now() + 3_600_000));
  put('proto/weft/v1/notes.txt', 'no proto');
  expect(genIsOld(root)).toBe(false);
});

test.each<[string, () => void]>([
  [
    'a file was changed, and is older',
    () => {
      put('proto/weft/v1/types.proto', 'message B {}');
      utimesSync(join(root, 'proto/weft/v1/types.proto'), 0, 0);
    },
  ],
  ['a file came', () => put('proto/weft/v1/more.proto', 'message A {}')],
  [
    'a file has another name',
    () => {
      cpSync(join(root, 'proto/weft/v1/types.proto'), join(root, 'proto/weft/v1/kinds.proto'));
      rmSync(join(root, 'proto/weft/v1/types.proto'));
    },
  ],
  ['it is made otherwise', () => put('buf.gen.yaml', 'version: v3')],
  ['gen/ is gone', () => rmSync(join(root, 'gen'), { recursive: true })],
])('old: %s', (_, change) => {
  change();
  expect(genIsOld(root)).toBe(true);
});
