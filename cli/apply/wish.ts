/** What entries of files mean, in the coordinator's words and canonical. Each is judged by itself; all problems are collected. Pure. */
import * as v from 'valibot';
import {
  EndpointSettings,
  Policy,
  type PolicyPeer,
  Reservation,
  Router,
  type Service,
} from '../../gen/weft/v1/types.ts';
import { canonicalIp, familyOfText, formatCidr, parseCidr } from '../../lib/addr.ts';
import { dnsName } from '../../lib/dns-name.ts';
import { middleCut, WeftError } from '../../lib/errors.ts';
import { normalMac } from '../../lib/mac.ts';
import { ACTIONS, ORDERS, TIERS } from '../../lib/policy-order.ts';
import { withHealthDefaults } from '../../lib/service-defaults.ts';
import { allowedAddress } from '../endpoint.ts';
import { type CreateFlags, createRequest } from '../network-flags.ts';
import { egressIps } from '../network-set.ts';
import { explain, policySchema } from '../policy-yaml.ts';
import { rateFlags, shapingRequest } from '../rates.ts';
import { routesOf } from '../router-flags.ts';
import { type ServiceFlags, serviceOf } from '../service-flags.ts';
import { labels } from '../values.ts';
import { about, attempt, type Flagged, type Flags, nameOf, need, readEntry, refusal } from './keys.ts';
import type {
  Desired,
  EndpointWish,
  NetworkWish,
  PolicyWish,
  Raw,
  ReservationWish,
  RouterWish,
  ServiceWish,
  Where,
} from './model.ts';
import { checkNetwork } from './network-check.ts';
import { MAX_PROBLEMS, type Sources } from './source.ts';

/** As Docker has it, and DNS. */
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/;
const LABEL = /^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$/;

const invalid = (message: string, hint: string): WeftError => new WeftError('INVALID_ARGUMENT', message, { hint });

export function readWishes({ entries, sections, problems: before }: Sources): {
  readonly desired: Desired;
  readonly problems: readonly WeftError[];
} {
  const problems = [...before];
  const lists = {
    networks: [] as NetworkWish[],
    reservations: [] as ReservationWish[],
    routers: [] as RouterWish[],
    services: [] as ServiceWish[],
    policies: [] as PolicyWish[],
    endpoints: [] as EndpointWish[],
  };
  const named = new Set<string>();
  for (const raw of entries) {
    if (problems.length >= MAX_PROBLEMS) break;
    for (const name of namesOf(raw)) named.add(name);
    if (raw.section === 'policies') lists.policies.push(...policyWishes(raw, problems));
    else readFlagged({ ...raw, section: raw.section }, lists, problems);
  }
  return { desired: { sections, ...lists, named }, problems };
}

/** What others may refer to, whatever else is wrong with it. */
function namesOf(raw: Raw): string[] {
  const { name, network } = raw.value;
  if (typeof name !== 'string') return [];
  if (raw.section === 'networks') return [`network ${name}`];
  return raw.section === 'services' && typeof network === 'string' ? [`service ${network}/${name}`] : [];
}

type Lists = { -readonly [K in Flagged]: Desired[K] extends readonly (infer W)[] ? W[] : never };

function readFlagged(raw: Raw & { readonly section: Flagged }, lists: Lists, problems: WeftError[]): void {
  const entry = readEntry(raw, problems);
  if (entry === undefined) return;
  const { name, flags } = entry;
  const { where } = raw;
  attempt(raw, problems, () => {
    switch (raw.section) {
      case 'networks':
        return lists.networks.push(networkWish(name, flags, where));
      case 'reservations':
        return lists.reservations.push(reservationWish(name, flags, where));
      case 'routers':
        return lists.routers.push(routerWish(name, flags, where));
      case 'services':
        return lists.services.push(serviceWish(name, flags, where));
      case 'endpoints':
        return lists.endpoints.push(endpointWish(name, flags, where));
    }
  });
}

const textsOf = (flags: Flags, key: string): readonly string[] => (flags[key] ?? []) as readonly string[];
const textOf = (flags: Flags, key: string): string => (flags[key] ?? '') as string;
const canonicalIps = (texts: readonly string[]): string[] =>
  texts.map((text) => about('--ip', () => canonicalIp(text))).sort((a, b) => familyOfText(a) - familyOfText(b));

function networkWish(name: string, flags: Flags, where: Where): NetworkWish {
  const request = createRequest(name, flags as CreateFlags);
  const rate = rateFlags(flags as { rate?: string; burst?: string });
  const egress = egressIps(flags['egressIp'] as readonly string[] | undefined) ?? [];
  return {
    name,
    where,
    request: checkNetwork(request),
    egressIps: egress.map((ip) => about('--egress-ip', () => canonicalIp(ip))),
    rate: rate?.bits === 0n ? undefined : rate,
  };
}

function reservationWish(name: string, flags: Flags, where: Where): ReservationWish {
  if (!NAME.test(name))
    throw invalid(
      `"${middleCut(name)}" cannot be the name of a reservation`,
      'use 1 to 63 letters, digits, "_", "." or "-", beginning with a letter or digit',
    );
  const ips = canonicalIps(textsOf(flags, 'ip'));
  if (ips.length === 0) throw invalid('it needs an address', 'give it ip');
  onePerFamily(ips);
  const mac = textOf(flags, 'mac');
  const reservation = Reservation.fromPartial({
    name,
    ips,
    mac: mac === '' ? '' : about('--mac', () => normalMac(mac)),
    labels: labels('--label', textsOf(flags, 'label')),
  });
  return { name, where, network: need('network', flags['network']), reservation };
}

function onePerFamily(ips: readonly string[]): void {
  if (ips.length > 2 || (ips.length === 2 && familyOfText(ips[0]!) === familyOfText(ips[1]!)))
    throw invalid('--ip: it has one address of each family', 'give one of IPv4, and one of IPv6');
}

function routerWish(name: string, flags: Flags, where: Where): RouterWish {
  if (!LABEL.test(name)) throw invalid(`"${middleCut(name)}" cannot be the name of a router`, LABEL_HINT);
  const networkIds = [...textsOf(flags, 'network')];
  if (networkIds.length === 0) throw invalid('--network is missing', 'write "network: [A, B]"');
  const twice = networkIds.find((one, i) => networkIds.indexOf(one) !== i);
  if (twice !== undefined) throw invalid(`--network: ${middleCut(twice)} is given twice`, 'give each once');
  const routes = routesOf('--route', textsOf(flags, 'route')).map(({ cidr, via }) =>
    about('--route', () => ({ cidr: formatCidr(parseCidr(cidr)), via: via.map(canonicalIp) })),
  );
  const again = routes.find(({ cidr }, i) => routes.findIndex((one) => one.cidr === cidr) !== i);
  if (again !== undefined)
    throw invalid(`--route: ${again.cidr} is given twice`, 'give it once, with several next hops: CIDR via IP,IP');
  if (networkIds.length === 1 && routes.length === 0)
    throw invalid('it leads nowhere', 'give it another network, or a route: CIDR via IP');
  const router = Router.fromPartial({ name, networkIds, routes, labels: labels('--label', textsOf(flags, 'label')) });
  return { name, where, router };
}

const LABEL_HINT = 'use 1 to 63 lower-case letters, digits, "-" or "_", beginning and ending with a letter or digit';

function serviceWish(name: string, flags: Flags, where: Where): ServiceWish {
  if (!LABEL.test(name)) throw invalid(`"${middleCut(name)}" cannot be the name of a service`, LABEL_HINT);
  if (textsOf(flags, 'selector').length === 0)
    throw invalid(
      '--selector is missing',
      'write "selector: {LABEL: VALUE}": containers with that label are behind it',
    );
  const network = need('network', flags['network']);
  const asked = serviceOf(name, flags as ServiceFlags);
  if (asked.ports.length === 0 && !asked.headless) throw invalid('--port is missing', 'write "port: 80:8080"');
  if (asked.headless && asked.ips.length > 0)
    throw invalid('--ip: a headless service has no address of its own', 'leave ip or headless out');
  const ips = canonicalIps(asked.ips);
  onePerFamily(ips);
  for (const [i, port] of asked.ports.entries()) {
    if (port.protocol !== 'tcp' && port.protocol !== 'udp')
      throw invalid(`--port: "${middleCut(port.protocol)}" is no protocol of a service's port`, 'choose tcp or udp');
    if (asked.ports.findIndex((p) => p.port === port.port && p.protocol === port.protocol) !== i)
      throw invalid(`--port: ${port.port}/${port.protocol} is given twice`, 'give each once');
  }
  const health = asked.health === undefined ? undefined : withHealthDefaults(asked.health, asked.ports);
  if (health?.port === 0)
    throw invalid('--health: the check has no port, for the service has none of TCP', 'give it one, like tcp:8080');
  const service: Service = { ...asked, ips, ...(health === undefined ? {} : { health }) };
  return { name, where, network, service };
}

function endpointWish(name: string, flags: Flags, where: Where): EndpointWish {
  const shaping = shapingRequest(flags as { rate?: string; burst?: string; priority?: string });
  const allowed = textsOf(flags, 'allowAddress').map((text) => {
    const { ip, mac } = allowedAddress('--allow-address', text);
    return about('--allow-address', () => ({
      ip: ip === '' ? '' : canonicalIp(ip),
      mac: mac === '' ? '' : normalMac(mac),
    }));
  });
  const settings = EndpointSettings.fromPartial({
    allowed,
    draining: flags['drain'] === true,
    ...(shaping.rate === undefined ? {} : { rate: shaping.rate }),
    ...(shaping.priority === undefined ? {} : { priority: shaping.priority }),
  });
  return { name, where, network: textOf(flags, 'network'), settings };
}

/** One for each network that it is for. */
function policyWishes(raw: Raw, problems: WeftError[]): PolicyWish[] {
  const result = v.safeParse(policySchema, raw.value, { abortPipeEarly: true });
  if (!result.success) {
    for (const issue of result.issues) {
      const path = (issue.path ?? []).map((step) => step.key as string | number);
      const error = invalid(explain(issue, path), 'docs/policies.md lists what a policy may say');
      problems.push(refusal(raw, path, error));
    }
    return [];
  }
  const { network, networks, select, ...fields } = result.output;
  const before = problems.length;
  const fail = (path: readonly (string | number)[], message: string, hint: string): void => {
    problems.push(refusal(raw, path, invalid(message, hint)));
  };
  if (!LABEL.test(fields.name)) fail(['name'], `"${nameOf(raw)}" cannot be the name of a policy`, LABEL_HINT);
  if (!TIERS.some((tier) => tier === fields.tier))
    fail(['tier'], `"${middleCut(fields.tier)}" is no tier`, `choose ${TIERS.join(', ')}`);
  if (fields.order >= ORDERS) fail(['order'], `the order ${fields.order} is out of range`, `choose 0 to ${ORDERS - 1}`);
  if (fields.ingress.length + fields.egress.length === 0) fail([], 'it has no rule', 'give it rules, or leave it out');
  for (const direction of ['ingress', 'egress'] as const)
    fields[direction].forEach((rule, i) => {
      if (!ACTIONS.some((action) => action === rule.action))
        fail([direction, i, 'action'], `"${middleCut(rule.action)}" is no action`, `choose ${[...ACTIONS].join(', ')}`);
      rule.peers.forEach((peer, at) => {
        const path = [direction, i, direction === 'ingress' ? 'from' : 'to', at];
        try {
          makeCanonical(peer, direction);
        } catch (error) {
          problems.push(refusal(raw, path, WeftError.from(error)));
        }
      });
    });
  if (problems.length > before) return [];
  const policy = Policy.fromPartial({ ...fields, selector: select });
  return (networks ?? [network!]).map((one) => ({ name: policy.name, where: raw.where, network: one, policy }));
}

/** @throws INVALID_ARGUMENT */
function makeCanonical({ who }: PolicyPeer, direction: 'ingress' | 'egress'): void {
  if (who?.$case === 'addresses') {
    who.value.cidr = formatCidr(parseCidr(who.value.cidr));
    who.value.except = who.value.except.map((text) => formatCidr(parseCidr(text)));
  }
  if (who?.$case !== 'service' && who?.$case !== 'name') return;
  if (direction === 'ingress')
    throw invalid(`a ${who.$case} can only be where something is sent to`, 'name whom it comes from by labels or cidr');
  if (who.$case === 'service') return;
  const name = dnsName(who.value);
  if (name === null)
    throw invalid(`"${middleCut(who.value)}" is no DNS name`, 'write one like db.example.org or *.example.org');
  who.value = name;
}
