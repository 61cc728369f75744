/**
 * Commands of ip(8) as words, and as lines of `ip -batch`. Pure. Its reader (getcmdline and makeargs in iproute2's lib/utils.c) ends a
 * line at the first "#", even inside quotes, and takes a backslash at the end for a line that goes on; a word that begins with a
 * quote ends with the next such quote, and nothing escapes one.
 */

/** Words without the "ip" before them. */
export type Command = readonly string[];

/** A command from a template: blanks in the text part its words, what is filled in is one word, whatever is in it. */
export function command(text: TemplateStringsArray, ...filled: readonly (string | number)[]): Command {
  return text.flatMap((part, i) => {
    const value = filled[i];
    return [...part.split(' ').filter((word) => word !== ''), ...(value === undefined ? [] : [String(value)])];
  });
}

/** Null: a batch cannot carry it, it needs a process of its own. */
export function batchLine(words: Command): string | null {
  const quoted = words.map(quote);
  return quoted.includes(null) ? null : quoted.join(' ');
}

function quote(word: string): string | null {
  if (/^[\w./:+-]+$/.test(word)) return word;
  if (/[#\n\r]/.test(word)) return null;
  const mark = [`'`, '"'].find((q) => !word.includes(q));
  return mark === undefined ? null : `${mark}${word}${mark}`;
}
