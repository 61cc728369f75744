import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { JsonSplitter } from '../../../agent/ovs/framing.ts';

const pieces = (bytes: Uint8Array, cuts: readonly number[]): Uint8Array[] => {
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  return [...at, bytes.length].map((end, i) => bytes.subarray(i === 0 ? 0 : at[i - 1], end));
};
/** JSON has no -0. */
const messages = fc.array(fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue()), { maxLength: 5 });

describe('JsonSplitter', () => {
  it('finds the same messages wherever the stream is cut', () => {
    fc.assert(
      fc.property(
        messages,
        fc.array(fc.nat(), { maxLength: 20 }),
        fc.constantFrom('', '\n', ' \t\r\n'),
        (list, cuts, gap) => {
          const texts = list.map((message) => JSON.stringify(message));
          const splitter = new JsonSplitter();
          const found = pieces(Buffer.from(texts.join(gap)), cuts).flatMap((piece) => splitter.push(piece));
          expect(found).toEqual(texts.map((text) => JSON.parse(text)));
        },
      ),
    );
  });

  it('finds them byte by byte, with braces and quotes in strings', () => {
    const list = [{ a: '}{"\\' }, { '{': ['\\"', 'ünï ☃ 𝒳'] }, {}];
    const splitter = new JsonSplitter();
    const bytes = Buffer.from(list.map((message) => JSON.stringify(message)).join(''));
    expect([...bytes].flatMap((byte) => splitter.push(Uint8Array.of(byte)))).toEqual(list);
  });

  it('refuses what is not JSON objects', () => {
    for (const text of ['x', '[1]', '"a"', '{}}', '{a}', '{"a":}']) {
      expect(() => new JsonSplitter().push(Buffer.from(text)), text).toThrow(
        expect.objectContaining({ code: 'INTERNAL' }),
      );
    }
  });

  it('holds no more than its limit', () => {
    const splitter = new JsonSplitter(100);
    expect(splitter.push(Buffer.from(`{"a":"${'x'.repeat(50)}"}`.repeat(10)))).toHaveLength(10);
    splitter.push(Buffer.from(`{"a":"${'x'.repeat(80)}`));
    expect(() => splitter.push(Buffer.alloc(80, 'x'))).toThrow(expect.objectContaining({ code: 'RESOURCE_EXHAUSTED' }));
  });

  it('never throws anything but a WeftError', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        try {
          new JsonSplitter().push(bytes);
        } catch (error) {
          expect(error).toMatchObject({ name: 'WeftError' });
        }
      }),
    );
  });
});
