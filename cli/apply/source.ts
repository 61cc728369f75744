/** YAML to things with a place: sections of named entries, whatever is in them. All that is wrong is collected. Pure. */
import {
  Composer,
  type Document,
  isAlias,
  isScalar,
  LineCounter,
  type Node,
  Parser,
  visit,
  type YAMLError,
} from 'yaml';
import { middleCut, WeftError } from '../../lib/errors.ts';
import { whereIs } from '../policy-yaml.ts';
import { KIND, type Raw, SECTIONS, type Section } from './model.ts';

export interface Source {
  /** As messages call it. */
  readonly file: string;
  readonly text: string;
}

export interface Sources {
  readonly entries: readonly Raw[];
  readonly sections: ReadonlySet<Section>;
  readonly problems: readonly WeftError[];
}

/** Characters of a file. Reading takes a second or two a megabyte. */
export const MAX_FILE = 4 * 2 ** 20;
/** Problems of one file's YAML that are worth telling. */
const MAX_SYNTAX = 20;
/** Problems of all files after which no more are looked for. */
export const MAX_PROBLEMS = 100;
/** Of YAML's aliases, multiplied by what they stand for. */
const MAX_ALIASES = 1000;
/** Top-level keys that are the user's own, for anchors. */
const OWN = /^x-/;

const HINT = 'docs/apply.md says what a file may have';

export function readSources(sources: readonly Source[]): Sources {
  const found = { entries: [] as Raw[], sections: new Set<Section>(), problems: [] as WeftError[] };
  for (const source of sources) readSource(source, found);
  return found;
}

interface Found {
  readonly entries: Raw[];
  readonly sections: Set<Section>;
  readonly problems: WeftError[];
}

const bad = (where: string, message: string, hint = HINT): WeftError =>
  new WeftError('INVALID_ARGUMENT', `${where}: ${message}.`, { hint });

function readSource({ file, text }: Source, found: Found): void {
  if (text.length > MAX_FILE) {
    found.problems.push(
      bad(
        file,
        `it has more than ${MAX_FILE / 2 ** 20} MiB`,
        'make several files of it: -f may be given several times',
      ),
    );
    return;
  }
  const lines = new LineCounter();
  const documents = compose(text, lines);
  for (const document of documents) {
    const syntax = syntaxOf(document);
    for (const { at, message } of syntax.slice(0, MAX_SYNTAX))
      found.problems.push(bad(`${file}, line ${lines.linePos(at).line}`, message));
    if (syntax.length === 0) readDocument(document, file, lines, found);
  }
}

/** Stops after so many errors: a flood of them takes minutes. */
class Enough extends Error {}

function compose(text: string, lines: LineCounter): Document[] {
  const composer = new Composer({ uniqueKeys: false, prettyErrors: false });
  const { onError } = composer as unknown as { onError: (...args: unknown[]) => void };
  let errors = 0;
  Object.assign(composer, {
    onError: (...args: unknown[]) => {
      if (++errors > MAX_SYNTAX) throw new Enough();
      onError(...args);
    },
  });
  const documents: Document[] = [];
  try {
    for (const document of composer.compose(new Parser(lines.addNewLine).parse(text))) documents.push(document);
  } catch (error) {
    if (!(error instanceof Enough)) throw error;
    // The document that they are in is not finished.
    const { errors: seen } = composer as unknown as { errors: YAMLError[] };
    documents.push({ errors: seen, warnings: [], contents: null } as unknown as Document);
  }
  return documents;
}

interface Fault {
  readonly at: number;
  readonly message: string;
}

/** Everything for which its values cannot be taken at all. */
function syntaxOf(document: Document): Fault[] {
  const said = [...document.errors, ...document.warnings].map(({ pos, message }) => ({
    at: pos[0],
    message: message.startsWith('Maximum call stack')
      ? 'not YAML that can be read: it is nested too deeply'
      : `not YAML: ${middleCut(message.split('\n')[0] ?? '').replace(/[.:]$/, '')}`,
  }));
  if (said.length > 0) return said;
  const faults: Fault[] = [];
  const fault = (node: Node, message: string): void => {
    if (faults.length < MAX_SYNTAX) faults.push({ at: node.range?.[0] ?? 0, message });
  };
  visit(document, {
    Alias(_key, node, path) {
      const target = node.resolve(document);
      if (target !== undefined && path.includes(target))
        fault(node, `*${middleCut(node.source)} is inside what it means`);
    },
    Map(_key, node) {
      const seen = new Set<unknown>();
      for (const { key } of node.items) {
        if (isAlias(key)) fault(key, 'a key must be text, and no alias');
        if (!isScalar(key)) continue;
        if (typeof key.value !== 'string') fault(key, `the key ${middleCut(String(key.value))} must be text: quote it`);
        if (seen.has(key.value)) fault(key, `the key ${middleCut(String(key.value))} is there twice`);
        seen.add(key.value);
      }
    },
  });
  return faults;
}

function readDocument(document: Document, file: string, lines: LineCounter, found: Found): void {
  const place = (...path: readonly (string | number)[]): string => whereIs(file, document, path, lines);
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    const { message } = error as Error;
    const what = message.startsWith('Excessive alias') ? 'aliases stand for too much' : middleCut(message);
    found.problems.push(bad(place(), `not YAML that can be read: ${what}`));
    return;
  }
  if (value === null || value === undefined) return;
  if (!isRecord(value)) {
    found.problems.push(bad(place(), `it must be a map with ${SECTIONS.join(', ')}`));
    return;
  }
  for (const [key, list] of Object.entries(value)) {
    if (found.problems.length >= MAX_PROBLEMS) return;
    if (OWN.test(key)) continue;
    const section = SECTIONS.find((one) => one === key);
    if (section === undefined) {
      const policy = 'ingress' in value || 'egress' in value;
      const hint = policy ? 'a policy goes into a list under "policies"' : `it may have ${SECTIONS.join(', ')}`;
      found.problems.push(bad(place(key), `unknown key ${middleCut(key)}`, hint));
      if (policy) return;
      continue;
    }
    if (!Array.isArray(list)) {
      const none = list === null ? ', and is empty' : '';
      const hint = list === null ? `write "${key}: []" where there are none, or leave it out` : `${key}: [{name: …}]`;
      found.problems.push(bad(place(key), `${key} must be a list${none}`, hint));
      continue;
    }
    found.sections.add(section);
    list.forEach((entry: unknown, i) => {
      if (found.problems.length >= MAX_PROBLEMS) return;
      const where = (...path: readonly (string | number)[]): string => place(key, i, ...path);
      if (isRecord(entry)) found.entries.push({ section, value: entry, where });
      else found.problems.push(bad(where(), `a ${KIND[section]} must be a map with name and so on`));
    });
  }
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
