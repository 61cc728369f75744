/** From what files say and what the mesh has to what is to be done, in order; or to why nothing is. Pure. */
import { Network } from '../../gen/weft/v1/types.ts';
import { familyOfText } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import * as compare from './compare.ts';
import { endpointChanges, meantBy, unsetChange } from './endpoints.ts';
import * as entries from './entries.ts';
import { judge } from './judge.ts';
import type { Actual, Call, Change, Desired, Difference, Kind, NetworkWish, Plan, Ref, RouterWish } from './model.ts';
import { NOTHING_PRUNED, namer, type Pruned, prunedBy } from './scope.ts';

/** What is found about the things of one kind. */
interface Found {
  readonly changes: Change[];
  readonly unchanged: Ref[];
  readonly problems: WeftError[];
}

const nothing = (): Found => ({ changes: [], unchanged: [], problems: [] });

/** @param prune what the files do not have, of the kinds and networks that they speak of, is to go */
export function plan(desired: Desired, actual: Actual, { prune }: { readonly prune: boolean }): Plan {
  const meant = meantBy(desired, actual);
  const pruned = prune ? prunedBy(desired, actual, new Set(meant.byId.keys())) : NOTHING_PRUNED;
  const networks = networkChanges(desired, actual);
  const steps = [
    networks.made,
    reservationChanges(desired, actual),
    routerChanges(desired, actual),
    serviceChanges(desired, actual),
    policyChanges(desired, actual),
    networks.set,
    endpointChanges(meant, actual),
  ];
  const made = steps.flatMap(({ changes }) => changes);
  const removals = removalChanges(pruned, actual);
  const needed = needs(made, desired);
  // Two routers of a network do not lead to one range: what goes makes room for what comes.
  const makesRoom = ({ kind }: Change): boolean => kind === 'router' && made.some((one) => one.kind === 'router');
  const first = removals.filter(({ change, holds }) => makesRoom(change) || holds.some((key) => needed.has(key)));
  const later = removals.filter((one) => !first.includes(one));
  return {
    changes: [...first.map(({ change }) => change), ...made, ...later.map(({ change }) => change)],
    unchanged: steps.flatMap(({ unchanged }) => unchanged),
    problems: [...judge(desired, actual, pruned), ...meant.problems, ...steps.flatMap(({ problems }) => problems)],
  };
}

const create = (ref: Ref, entry: entries.FileEntry, ...calls: Call[]): Change => ({
  ...ref,
  action: 'create',
  differences: lines(entry).map(([key, want]): Difference => ({ key, have: null, want })),
  calls,
  undo: null,
});

/** Keys and values, without those that every line is under. */
function lines(entry: entries.FileEntry): [string, string][] {
  const text = (value: unknown): string =>
    typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
      ? String(value)
      : Array.isArray(value)
        ? value.map(text).join(', ')
        : Object.entries(value as object)
            .map(([key, item]) => (typeof item === 'object' ? `${key} ${text(item)}` : `${key}=${text(item)}`))
            .join(' ');
  return Object.entries(entry).flatMap(([key, value]) =>
    key === 'name' || (key === 'network' && typeof value === 'string') ? [] : [[key, text(value)]],
  );
}

function networkChanges(desired: Desired, actual: Actual): { readonly made: Found; readonly set: Found } {
  const have = new Map(actual.networks.map((n) => [n.name, n]));
  const [made, set] = [nothing(), nothing()];
  for (const wish of desired.networks) {
    const ref: Ref = { kind: 'network', network: null, name: wish.name };
    const present = have.get(wish.name);
    if (present === undefined) {
      const calls = settingsCall(
        wish,
        wish.name,
        wish.egressIps.length > 0 ? ['egress-ip'] : [],
        wish.rate !== undefined,
      );
      const record = Network.fromPartial({ ...wish.request, egressIps: [...wish.egressIps], rate: wish.rate });
      made.changes.push(
        create(ref, entries.networkEntry(record), { method: 'createNetwork', request: wish.request }, ...calls),
      );
      continue;
    }
    const differences = compare.networkDifferences(wish, present);
    const isLive = ({ key }: Difference): boolean => compare.LIVE.some((live) => live === key);
    for (const one of differences) if (!isLive(one)) made.problems.push(fixed(wish, one));
    const live = differences.filter(isLive);
    if (differences.length === 0) set.unchanged.push(ref);
    if (live.length === 0) continue;
    const keys = live.map(({ key }) => key);
    const calls = settingsCall(wish, present.id, keys, keys.includes('rate') || keys.includes('burst'));
    set.changes.push({ ...ref, action: 'update', differences: live, calls, undo: null });
  }
  return { made, set };
}

function fixed(wish: NetworkWish, { key, have, want }: Difference): WeftError {
  const is = have === null ? 'it has none' : `it is ${have}`;
  const says = want === null ? 'the file does not say so' : `the file says ${want}`;
  return new WeftError(
    'UNIMPLEMENTED',
    `${wish.where(key)}: network ${wish.name}: ${key} cannot be changed while the network is there: ${is}, and ${says}.`,
    {
      hint:
        want === null
          ? `write "${key}" as it is (weft export --network ${wish.name} shows it), or make another network`
          : `write ${key} as it is, or make another network with it, and move its containers there`,
    },
  );
}

function settingsCall(
  { request, egressIps, rate }: NetworkWish,
  network: string,
  keys: readonly string[],
  rates: boolean,
): Call[] {
  const fields = [
    ...(keys.includes('egress-ip') ? ['egressIps'] : []),
    ...(rates ? ['rate'] : []),
    ...(keys.includes('policy-default') ? ['policyDefault'] : []),
  ];
  if (fields.length === 0) return [];
  const values = Network.fromPartial({
    egressIps: [...egressIps],
    rate,
    policyDefault: request.policyDefault || 'allow',
  });
  return [{ method: 'updateNetwork', request: { project: '', network, fields, values } }];
}

/** Things of networks, by network and name. */
function byKey<T extends { readonly networkId: string; readonly name: string }>(
  have: readonly T[],
  nameOf: (id: string) => string,
): (wish: { readonly network: string; readonly name: string }) => T | undefined {
  const found = new Map(have.map((one) => [`${nameOf(one.networkId)}/${one.name}`, one]));
  return ({ network, name }) => found.get(`${network}/${name}`);
}

function reservationChanges(desired: Desired, actual: Actual): Found {
  const found = nothing();
  const present = byKey(actual.reservations, namer(actual));
  for (const wish of desired.reservations) {
    const { network, name, reservation } = wish;
    const ref: Ref = { kind: 'reservation', network, name };
    const make = (one: typeof reservation): Call => {
      return { method: 'createReservation', request: { project: '', network, reservation: one } };
    };
    const have = present(wish);
    if (have === undefined) {
      found.changes.push(create(ref, entries.reservationEntry(reservation, network), make(reservation)));
      continue;
    }
    const differences = compare.reservationDifferences(reservation, have);
    if (differences.length === 0) found.unchanged.push(ref);
    else
      found.changes.push({
        ...ref,
        action: 'replace',
        differences,
        calls: [removeCall('reservation', network, name), make({ ...reservation, mac: reservation.mac || have.mac })],
        undo: make(have),
      });
  }
  return found;
}

function routerChanges(desired: Desired, actual: Actual): Found {
  const found = nothing();
  const nameOf = namer(actual);
  const present = new Map(actual.routers.map((r) => [r.name, r]));
  for (const wish of desired.routers) {
    const { name, router } = wish;
    const ref: Ref = { kind: 'router', network: null, name };
    const have = present.get(name);
    if (have === undefined) {
      const entry = entries.routerEntry(router, (network) => network);
      found.changes.push(create(ref, entry, { method: 'createRouter', request: { project: '', router } }));
      continue;
    }
    const differences = compare.routerDifferences(router, have, nameOf);
    const labels = differences.find(({ key }) => key === 'label');
    if (labels !== undefined) found.problems.push(fixedLabels(wish, labels));
    else if (differences.length === 0) found.unchanged.push(ref);
    else {
      const [mine, theirs] = [new Set(router.networkIds), new Set(have.networkIds.map(nameOf))];
      const ranges = new Set(router.routes.map(({ cidr }) => cidr));
      const text = (r: { cidr: string; via: readonly string[] }): string => `${r.cidr} ${[...r.via].sort().join()}`;
      const routes = new Set(have.routes.map(text));
      const request = {
        project: '',
        name,
        addNetworks: [...mine].filter((one) => !theirs.has(one)),
        removeNetworks: [...theirs].filter((one) => !mine.has(one)),
        addRoutes: router.routes.filter((one) => !routes.has(text(one))),
        removeRoutes: have.routes.map(({ cidr }) => cidr).filter((cidr) => !ranges.has(cidr)),
      };
      found.changes.push({
        ...ref,
        action: 'update',
        differences,
        calls: [{ method: 'updateRouter', request }],
        undo: null,
      });
    }
  }
  found.changes.sort((a, b) => Number(gives(a)) - Number(gives(b)));
  return found;
}

/** It leads to more than before; what only takes away goes first. */
const gives = ({ calls }: Change): boolean =>
  calls.some(
    (call) =>
      call.method !== 'updateRouter' || call.request.addRoutes.length > 0 || call.request.addNetworks.length > 0,
  );

const fixedLabels = ({ name, where }: RouterWish, { have, want }: Difference): WeftError =>
  new WeftError(
    'UNIMPLEMENTED',
    `${where('label')}: router ${name}: label cannot be changed while the router is there: it is ${have ?? 'none'}, and the file says ${want ?? 'none'}.`,
    { hint: `write label as it is, or remove the router first: weft router rm ${name}` },
  );

function serviceChanges(desired: Desired, actual: Actual): Found {
  const found = nothing();
  const present = byKey(actual.services, namer(actual));
  for (const wish of desired.services) {
    const { network, name, service } = wish;
    const ref: Ref = { kind: 'service', network, name };
    const make = (one: typeof service): Call => {
      return { method: 'createService', request: { project: '', network, service: one } };
    };
    const have = present(wish);
    if (have === undefined) {
      found.changes.push(create(ref, entries.serviceEntry(service, network), make(service)));
      continue;
    }
    const differences = compare.serviceDifferences(service, have);
    if (differences.length === 0) {
      found.unchanged.push(ref);
      continue;
    }
    // It keeps the addresses that nobody gave: clients have them.
    const given = new Set(service.ips.map(familyOfText));
    const kept = service.headless ? [] : have.ips.filter((ip) => !given.has(familyOfText(ip)));
    const calls = [removeCall('service', network, name), make({ ...service, ips: [...service.ips, ...kept] })];
    found.changes.push({ ...ref, action: 'replace', differences, calls, undo: make(have) });
  }
  return found;
}

function policyChanges(desired: Desired, actual: Actual): Found {
  const found = nothing();
  const nameOf = namer(actual);
  const present = byKey(actual.policies, nameOf);
  for (const wish of desired.policies) {
    const { network, name, policy } = wish;
    const ref: Ref = { kind: 'policy', network, name };
    const call: Call = { method: 'applyPolicies', request: { project: '', policies: [{ network, policy }] } };
    const have = present(wish);
    if (have === undefined) {
      found.changes.push(create(ref, entries.policyEntry({ ...policy, networkId: network }, {}), call));
      continue;
    }
    const differences = compare.policyDifferences(policy, have, network, nameOf);
    if (differences.length === 0) found.unchanged.push(ref);
    else found.changes.push({ ...ref, action: 'update', differences, calls: [call], undo: null });
  }
  return found;
}

/** @param network its name; of a network its id */
function removeCall(kind: Exclude<Kind, 'endpoint'>, network: string, name: string): Call {
  const request = { project: '', network, name };
  switch (kind) {
    case 'network':
      return { method: 'deleteNetwork', request: { project: '', network } };
    case 'reservation':
      return { method: 'removeReservation', request };
    case 'router':
      return { method: 'removeRouter', request: { project: '', name } };
    case 'service':
      return { method: 'removeService', request };
    case 'policy':
      return { method: 'removePolicy', request };
  }
}

interface Removal {
  readonly change: Change;
  /** What others may have only afterwards. */
  readonly holds: readonly string[];
}

function removalChanges(pruned: Pruned, actual: Actual): Removal[] {
  const nameOf = namer(actual);
  const removal = (ref: Ref, entry: entries.FileEntry, call: Call, holds: readonly string[] = []): Removal => ({
    change: {
      ...ref,
      action: 'remove',
      differences: lines(entry).map(([key, have]): Difference => ({ key, have, want: null })),
      calls: [call],
      undo: null,
    },
    holds,
  });
  const ref = (kind: Kind, network: string | null, name: string): Ref => ({ kind, network, name });
  return [
    ...pruned.endpoints.map((e) => ({ change: unsetChange(e, actual), holds: [] })),
    ...pruned.policies.map((p) => {
      const network = nameOf(p.networkId);
      const names = Object.fromEntries(actual.networks.map(({ id, name }) => [id, name]));
      return removal(
        ref('policy', network, p.name),
        entries.policyEntry(p, names),
        removeCall('policy', network, p.name),
      );
    }),
    ...pruned.services.map((s) => {
      const network = nameOf(s.networkId);
      const holds = [...s.ips.map((ip) => `${network} ${ip}`), ...hostPorts(s)];
      return removal(
        ref('service', network, s.name),
        entries.serviceEntry(s, network),
        removeCall('service', network, s.name),
        holds,
      );
    }),
    ...pruned.routers.map((r) =>
      removal(ref('router', null, r.name), entries.routerEntry(r, nameOf), removeCall('router', '', r.name)),
    ),
    ...pruned.reservations.map((r) => {
      const network = nameOf(r.networkId);
      const holds = [...r.ips.map((ip) => `${network} ${ip}`), `${network} ${r.mac}`];
      return removal(
        ref('reservation', network, r.name),
        entries.reservationEntry(r, network),
        removeCall('reservation', network, r.name),
        holds,
      );
    }),
    ...pruned.networks.map((n) =>
      removal(ref('network', null, n.name), entries.networkEntry(n), removeCall('network', n.id, n.name)),
    ),
  ];
}

const hostPorts = ({ ports }: { readonly ports: readonly { hostPort: number; protocol: string }[] }): string[] =>
  ports.filter((p) => p.hostPort !== 0).map((p) => `${p.hostPort}/${p.protocol}`);

/** Addresses and ports that what is made must have. */
function needs(made: readonly Change[], desired: Desired): Set<string> {
  const changing = new Set(made.map((c) => `${c.kind} ${c.network}/${c.name}`));
  return new Set([
    ...desired.reservations
      .filter((w) => changing.has(`reservation ${w.network}/${w.name}`))
      .flatMap((w) =>
        [...w.reservation.ips, w.reservation.mac].filter((one) => one !== '').map((one) => `${w.network} ${one}`),
      ),
    ...desired.services
      .filter((w) => changing.has(`service ${w.network}/${w.name}`))
      .flatMap((w) => [...w.service.ips.map((ip) => `${w.network} ${ip}`), ...hostPorts(w.service)]),
  ]);
}
