/**
 * What things of a file may say: the flags of the commands that make and set them, as keys. Their values become what these commands take,
 * so that a file and a command line cannot mean different things by a word. Pure.
 */
import { middleCut, WeftError } from '../../lib/errors.ts';
import { UsageError } from '../usage.ts';
import { quote } from '../values.ts';
import { KIND, type Raw, type Section } from './model.ts';
import { isRecord } from './source.ts';

/**
 * "text": a string. "word": a number as well. "flag": true or false. "labels": a map, or LABEL=VALUE as the flag has it. In the plural: a
 * list too.
 */
type Type = 'text' | 'word' | 'texts' | 'words' | 'flag' | 'labels';

export const KEYS = {
  networks: {
    subnet: 'texts',
    'ip-range': 'text',
    gateway: 'texts',
    ipv6: 'flag',
    encap: 'text',
    vni: 'word',
    mtu: 'word',
    uplink: 'text',
    tag: 'word',
    'allow-trust': 'flag',
    internal: 'flag',
    encrypt: 'flag',
    space: 'text',
    label: 'labels',
    'publish-by': 'text',
    'dns-order': 'text',
    'policy-default': 'text',
    'egress-ip': 'texts',
    rate: 'text',
    burst: 'text',
  },
  reservations: { network: 'text', ip: 'texts', mac: 'text', label: 'labels' },
  routers: { network: 'texts', route: 'texts', label: 'labels' },
  services: {
    network: 'text',
    selector: 'labels',
    port: 'words',
    ip: 'texts',
    headless: 'flag',
    affinity: 'word',
    'local-first': 'flag',
    label: 'labels',
    health: 'text',
    'health-interval': 'word',
    'health-timeout': 'word',
    'health-rise': 'word',
    'health-fall': 'word',
    publish: 'words',
    'publish-local': 'words',
  },
  endpoints: {
    network: 'text',
    'allow-address': 'texts',
    drain: 'flag',
    rate: 'text',
    burst: 'text',
    priority: 'text',
  },
} as const satisfies Record<Exclude<Section, 'policies'>, Readonly<Record<string, Type>>>;

/** A section whose things are said by flags. */
export type Flagged = keyof typeof KEYS;

type Value = string | readonly string[] | boolean;
/** By the names that commander gives to options: ip-range is ipRange. */
export type Flags = Readonly<Record<string, Value>>;

export interface Entry {
  readonly name: string;
  readonly flags: Flags;
}

const camel = (key: string): string => key.replaceAll(/-([a-z0-9])/g, (_all, letter: string) => letter.toUpperCase());

/** What a thing is called, for messages. */
export function nameOf({ value }: Raw): string {
  const { name } = value;
  return typeof name === 'string' ? middleCut(name) : '';
}

/** A refusal, in front of it where it is and whose. @param path of what is wrong, in the thing */
export function refusal(raw: Raw, path: readonly (string | number)[], error: WeftError | UsageError): WeftError {
  const name = nameOf(raw);
  const code = error instanceof UsageError ? 'INVALID_ARGUMENT' : error.code;
  // Flags of a command line are keys here.
  const words = (text: string): string => text.replaceAll(/(?<![\w-])--(?=[a-z])/g, '');
  const hint = error.hint === null || error.hint.startsWith('see weft') ? 'docs/apply.md lists the keys' : error.hint;
  const message = words(error.message);
  return new WeftError(
    code,
    `${raw.where(...path)}: ${KIND[raw.section]}${name === '' ? '' : ` ${name}`}: ${message}${message.endsWith('.') ? '' : '.'}`,
    { hint: words(hint) },
  );
}

const invalid = (message: string, hint = 'docs/apply.md lists the keys'): WeftError =>
  new WeftError('INVALID_ARGUMENT', message, { hint });

/** Runs what judges a thing; what it throws becomes a problem, at the key that it is about. */
export function attempt<T>(raw: Raw, problems: WeftError[], run: () => T): T | undefined {
  try {
    return run();
  } catch (error) {
    const thrown = error instanceof UsageError ? error : WeftError.from(error);
    const keys = [...thrown.message.matchAll(/--([a-z][a-z0-9-]*)/g)].map(([, key = '']) => key);
    const key = keys.find((one) => Object.hasOwn(raw.value, one));
    problems.push(refusal(raw, key === undefined ? [] : [key], thrown));
    return undefined;
  }
}

/** Of one thing that are worth telling. */
const MAX_FAULTS = 20;

/** Undefined where a key of it cannot be taken: then there are problems. */
export function readEntry(raw: Raw & { readonly section: Flagged }, problems: WeftError[]): Entry | undefined {
  const types: Readonly<Record<string, Type>> = KEYS[raw.section];
  const before = problems.length;
  const fail = (error: WeftError, ...path: (string | number)[]): void => {
    problems.push(refusal(raw, path, error));
  };
  const flags: Record<string, Value> = {};
  for (const [key, value] of Object.entries(raw.value)) {
    if (key === 'name') continue;
    if (problems.length - before >= MAX_FAULTS) break;
    const type = Object.hasOwn(types, key) ? types[key] : undefined;
    if (type === undefined) fail(unknown(key, Object.keys(types)), key);
    else if (value === null) fail(invalid(`${key} is empty`, 'give it a value, or leave it out'), key);
    else {
      const read = readValue(key, type, value);
      if (read instanceof WeftError) fail(read, key);
      else flags[camel(key)] = read;
    }
  }
  const { name } = raw.value;
  if (name === undefined) fail(invalid('name is missing', 'every thing has a name'));
  else if (typeof name !== 'string')
    fail(invalid(`name must be text, and is ${show(name)}`, 'quote what looks like a number'), 'name');
  else if (name.trim() === '') fail(invalid('name is empty', 'every thing has a name'), 'name');
  return problems.length > before ? undefined : { name: name as string, flags };
}

function unknown(key: string, known: readonly string[]): WeftError {
  const plain = (text: string): string => text.toLowerCase().replaceAll(/[^a-z0-9]|s$/g, '');
  const meant = known.find((one) => plain(one) === plain(key));
  return invalid(
    `unknown key ${middleCut(key)}`,
    meant === undefined ? `it may have name, ${known.join(', ')}` : `write ${meant}`,
  );
}

const show = (value: unknown): string => middleCut(JSON.stringify(value) ?? 'nothing');

const SHAPES: Readonly<Record<Type, string>> = {
  text: 'text (quote what looks like a number)',
  word: 'text or a number',
  texts: 'text (quote what looks like a number), or a list of it',
  words: 'text or a number, or a list of them',
  flag: 'true or false',
  labels: 'a map of labels and values, which are text (quote what looks like a number)',
};

function readValue(key: string, type: Type, value: unknown): Value | WeftError {
  const wrong = (): WeftError => invalid(`${key} must be ${SHAPES[type]}, and is ${show(value)}`);
  if (type === 'flag') return typeof value === 'boolean' ? value : wrong();
  if (type === 'labels') return labelTexts(value) ?? wrong();
  const numbers = type === 'word' || type === 'words';
  const one = (item: unknown): string | undefined =>
    typeof item === 'string' || (numbers && typeof item === 'number') ? String(item) : undefined;
  const single = one(value);
  const many = type === 'texts' || type === 'words';
  if (single !== undefined) return single === '' ? invalid(`${key} is empty`) : many ? [single] : single;
  if (!many || !Array.isArray(value)) return wrong();
  if (value.length === 0) return invalid(`${key} is an empty list`, 'leave it out where there is none');
  const items = value.map(one);
  return items.every((item) => item !== undefined && item !== '') ? (items as string[]) : wrong();
}

/** As the flag takes them; undefined for what are none. */
function labelTexts(value: unknown): string[] | undefined {
  if (typeof value === 'string') return [value];
  if (Array.isArray(value)) return value.every((item) => typeof item === 'string') ? value : undefined;
  if (!isRecord(value)) return undefined;
  const entries = Object.entries(value);
  const ok = entries.every(([label, text]) => label !== '' && !label.includes('=') && typeof text === 'string');
  return ok ? entries.map(([label, text]) => `${label}=${text as string}`) : undefined;
}

/** Names of something that exists. @throws INVALID_ARGUMENT */
export function need(key: string, text: Value | undefined): string {
  if (typeof text === 'string') return text;
  throw invalid(`--${key} is missing`, `say which: "${key}: ${quote('NAME').slice(1, -1)}"`);
}

/** What somebody else refuses, with the key that it is about in front. */
export function about<T>(key: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    const { code, message, hint } = WeftError.from(error);
    throw new WeftError(code, `${key}: ${message}`, hint === null ? {} : { hint });
  }
}
