/** Policies as people write them in YAML, and back. What of them can be, the coordinator judges. Pure. */
import * as v from 'valibot';
import { type Document, isMap, isNode, LineCounter, parseAllDocuments, stringify } from 'yaml';
import type { PolicySpec } from '../gen/weft/v1/control.ts';
import { Policy, type PolicyPeer, type PolicyRule } from '../gen/weft/v1/types.ts';
import { middleCut, WeftError } from '../lib/errors.ts';
import { DEFAULT_ORDER, DEFAULT_TIER } from '../lib/policy-order.ts';
import { PORT_EXAMPLES, parsePort } from '../lib/policy-port.ts';
import type { PolicyJson } from './shapes.ts';

/** YAML takes 1.10 for a number, and yes for a text. */
const text = (what: string) =>
  v.pipe(v.string(`${what}: text (quote what looks like a number)`), v.minLength(1, `${what}, and not empty`));
/** A list is an object to valibot. */
const notList = (value: unknown): boolean => !Array.isArray(value);
const labels = v.pipe(
  v.unknown(),
  v.check(notList, 'a map of labels and values'),
  v.record(
    v.pipe(v.string(), v.minLength(1, 'a map of labels and values')),
    v.string('text (quote what looks like a number)'),
    'a map of labels and values',
  ),
);
/** An empty list would look like nobody, and mean whoever. */
const listOf = <S extends v.GenericSchema>(item: S, whoever: string) =>
  v.pipe(v.array(item, 'a list'), v.minLength(1, `a list with something in it (leave it out for ${whoever})`));

const peer = v.pipe(
  v.strictObject(
    {
      labels: v.optional(labels),
      network: v.optional(text('the name of a network')),
      cidr: v.optional(text('a CIDR')),
      except: v.optional(listOf(text('a CIDR'), 'none')),
      service: v.optional(text('the name of a service')),
      name: v.optional(text('a DNS name')),
    },
    'a map: {labels, network}, {cidr, except}, {service} or {name}',
  ),
  v.check(
    (p) =>
      [p.labels ?? p.network, p.cidr, p.service, p.name].filter((one) => one !== undefined).length === 1 &&
      (p.except === undefined || p.cidr !== undefined),
    'one of {labels, network}, {cidr, except}, {service} and {name}',
  ),
  v.transform((p): PolicyPeer => {
    if (p.cidr !== undefined)
      return { who: { $case: 'addresses', value: { cidr: p.cidr, except: [...(p.except ?? [])] } } };
    if (p.service !== undefined) return { who: { $case: 'service', value: p.service } };
    if (p.name !== undefined) return { who: { $case: 'name', value: p.name } };
    return { who: { $case: 'endpoints', value: { networkId: p.network ?? '', labels: { ...p.labels } } } };
  }),
);

const port = v.pipe(
  v.string(`a port ${PORT_EXAMPLES}`),
  v.check((t) => parsePort(t) !== null, `a port ${PORT_EXAMPLES}`),
  v.transform((t) => parsePort(t)!),
);

const action = text('allow, drop or reject');
const peers = v.optional(listOf(peer, 'whoever'), undefined);
const ports = v.optional(listOf(port, 'every port'), undefined);
const RULE = 'a map with action';
const ruleOf = (r: { action: string; ports?: PolicyRule['ports'] | undefined }, p?: PolicyPeer[]): PolicyRule => ({
  action: r.action,
  peers: p ?? [],
  ports: r.ports ?? [],
});
const ingress = v.pipe(
  v.strictObject({ action, from: peers, ports }, RULE),
  v.transform((r) => ruleOf(r, r.from)),
);
const egress = v.pipe(
  v.strictObject({ action, to: peers, ports }, RULE),
  v.transform((r) => ruleOf(r, r.to)),
);

export const policySchema = v.pipe(
  v.unknown(),
  v.check(notList, 'a map with name, network and rules'),
  v.strictObject(
    {
      name: text('a name'),
      network: v.optional(text('the name of a network')),
      networks: v.optional(listOf(text('the name of a network'), '"network"')),
      tier: v.optional(text('platform, application or baseline'), DEFAULT_TIER),
      order: v.optional(
        v.pipe(
          v.number('a whole number'),
          v.check((n) => Number.isInteger(n) && n >= 0 && n < 2 ** 31, 'a whole number'),
        ),
        DEFAULT_ORDER,
      ),
      select: v.optional(labels, {}),
      ingress: v.optional(v.array(ingress, 'a list of rules'), []),
      egress: v.optional(v.array(egress, 'a list of rules'), []),
      staged: v.optional(v.boolean('true or false'), false),
      labels: v.optional(labels, {}),
    },
    'a map with name, network and rules',
  ),
  v.check((p) => (p.network === undefined) !== (p.networks === undefined), 'a map with either network or networks'),
);

/**
 * @param source YAML: a policy in each document, or a list of them under "policies"
 * @param file for messages
 * @returns in the order of the file; one for each network that a policy is for
 * @throws INVALID_ARGUMENT naming line and key
 */
export function parsePolicies(source: string, file: string): PolicySpec[] {
  const lines = new LineCounter();
  const specs: PolicySpec[] = [];
  for (const document of parseAllDocuments(source, { lineCounter: lines, uniqueKeys: true })) {
    const [problem] = document.errors;
    if (problem !== undefined) throw bad(file, `not YAML: ${problem.message}`);
    for (const { at, value } of entries(document, file, lines))
      specs.push(...specsOf(document, at, value, file, lines));
  }
  if (specs.length === 0) throw bad(file, 'there is no policy in it');
  return specs;
}

const bad = (where: string, message: string): WeftError =>
  new WeftError('INVALID_ARGUMENT', `${where}: ${message}${message.endsWith('.') ? '' : '.'}`, {
    hint: 'docs/policies.md lists what a policy may say',
  });

type Path = readonly (string | number)[];
interface Entry {
  readonly at: Path;
  readonly value: unknown;
}

function entries(document: Document, file: string, lines: LineCounter): Entry[] {
  const value = plainOf(document, file);
  if (value === null || value === undefined) return [];
  if (typeof value !== 'object' || !('policies' in value)) return [{ at: [], value }];
  const other = Object.keys(value).find((key) => key !== 'policies');
  if (other !== undefined)
    throw bad(whereIs(file, document, [other], lines), `unknown key ${middleCut(other)} beside policies`);
  const { policies } = value;
  if (!Array.isArray(policies))
    throw bad(whereIs(file, document, ['policies'], lines), 'policies must be a list of policies');
  return policies.map((one: unknown, i) => ({ at: ['policies', i], value: one }));
}

function plainOf(document: Document, file: string): unknown {
  try {
    return document.toJS({ maxAliasCount: 1000 });
  } catch (error) {
    throw bad(file, `not YAML: ${(error as Error).message}`);
  }
}

function specsOf(document: Document, at: Path, value: unknown, file: string, lines: LineCounter): PolicySpec[] {
  const result = v.safeParse(policySchema, value, { abortEarly: true, abortPipeEarly: true });
  if (!result.success) {
    const [issue] = result.issues;
    const keys = (issue.path ?? []).map((step) => step.key as string | number);
    const name = (value as { name?: unknown } | null)?.name;
    const whose = typeof name === 'string' ? `policy ${middleCut(name)}: ` : '';
    throw bad(whereIs(file, document, [...at, ...keys], lines), `${whose}${explain(issue, keys)}`);
  }
  const { network, networks, select, ...fields } = result.output;
  const made = Policy.fromPartial({ ...fields, selector: select });
  return (networks ?? [network!]).map((one) => ({ network: one, policy: made }));
}

export function explain(issue: v.BaseIssue<unknown>, keys: Path): string {
  const key = keys.map((step, i) => (typeof step === 'number' ? `[${step}]` : i === 0 ? step : `.${step}`)).join('');
  // strictObject reports both of these; its own message would say neither.
  if (issue.type === 'strict_object' && issue.expected === 'never') return `unknown key ${middleCut(key)}`;
  if (issue.type === 'strict_object' && issue.input === undefined && keys.length > 0) return `${key} is missing`;
  const is = key === '' ? '' : `, and is ${middleCut(JSON.stringify(issue.input) ?? 'nothing')}`;
  return `${key === '' ? 'it' : middleCut(key)} must be ${issue.message}${is}`;
}

/** File and line of a key, or of what is around it. */
export function whereIs(file: string, document: Document, path: Path, lines: LineCounter): string {
  for (let length = path.length; length >= 0; length--) {
    const step = path[length - 1];
    const around = length === 0 ? document.contents : document.getIn(path.slice(0, length - 1), true);
    const pair = isMap(around)
      ? around.items.find((item) => isNode(item.key) && item.key.toJSON() === step)
      : undefined;
    const node = length === 0 ? around : (pair?.key ?? document.getIn(path.slice(0, length), true));
    if (isNode(node) && node.range != null) return `${file}, line ${lines.linePos(node.range[0]).line}`;
  }
  return file;
}

const STAGED_NOTE = '# staged: decides nothing; what it would decide otherwise is counted, and told by weft events';

/** As parsePolicies takes it, not yet as text; what is by default is left out, or undefined. */
export function policyEntry(p: PolicyJson) {
  const some = <T extends object>(value: T): T | undefined => (Object.keys(value).length === 0 ? undefined : value);
  const rules = (direction: 'ingress' | 'egress') =>
    some(
      p[direction].map((rule) => ({
        action: rule.action,
        [direction === 'ingress' ? 'from' : 'to']: some(
          rule.peers.map(({ labels: of, network, cidr, except, service, name }) => ({
            network: of !== null && network !== p.network ? (network ?? undefined) : undefined,
            labels: of ?? undefined,
            cidr: cidr ?? undefined,
            except: some(except),
            service: service ?? undefined,
            name: name ?? undefined,
          })),
        ),
        ports: some(rule.ports),
      })),
    );
  return {
    name: p.name,
    network: p.network,
    tier: p.tier,
    order: p.order,
    select: some(p.select),
    ingress: rules('ingress'),
    egress: rules('egress'),
    staged: p.staged ? true : undefined,
    labels: some(p.labels),
  };
}

/** As parsePolicies takes it; what is by default is left out. */
export function policyYaml(p: PolicyJson): string {
  const yaml = stringify(policyEntry(p), { lineWidth: 0 });
  return p.staged ? `${STAGED_NOTE}\n${yaml}` : yaml;
}
