/** What is to be done to links. Pure. */
import { endsOf, isOurLink, primaryOf, type TunnelEncap } from '../link/names.ts';
import type { HostEnd, Joined, Link, LinkStep } from '../link/steps.ts';
import type { Planned } from './planned.ts';

/** Known by `name`; an endpoint's pair by the host's side, other pairs by the kernel's side. */
export type DesiredLink =
  | {
      readonly kind: 'endpoint';
      readonly name: string;
      readonly container: string;
      readonly mtu: number;
      readonly mac: string;
      /** Once joined. */
      readonly joined: Joined | null;
    }
  | {
      readonly kind: 'pair';
      readonly name: string;
      readonly peer: string;
      readonly mtu: number;
      /** Of `name`, where the host itself has to do with it. */
      readonly host?: HostEnd;
      /** Addresses are rewritten in what it carries, and that leaves the host. */
      readonly rewritten?: true;
      /** Open vSwitch does not read it: segments stay whole on it. */
      readonly whole?: true;
    }
  /** Where what comes in by another link waits. */
  | { readonly kind: 'ifb'; readonly name: string; readonly mtu: number }
  /** A device of the user's: it is made and removed by the user. */
  | { readonly kind: 'device'; readonly name: string; readonly mtu: number }
  | {
      readonly kind: 'tunnel';
      readonly name: string;
      readonly encap: TunnelEncap;
      readonly ipv6: boolean;
      readonly udpPort: number;
      readonly mtu: number;
    };

/** Orphans are links of ours that nobody wants; deleting one end of a pair deletes the other. */
export function planLinks(desired: readonly DesiredLink[], actual: ReadonlyMap<string, Link>): Planned<LinkStep>[] {
  const planned: Planned<LinkStep>[] = [];
  const wanted = new Set<string>();
  for (const d of desired) {
    wanted.add(d.name);
    const base = { kind: 'link', id: d.name, object: d.name, want: wantText(d) };
    const link = actual.get(d.name);
    const peer = d.kind === 'pair' ? actual.get(d.peer) : undefined;
    if (link === undefined) {
      if (d.kind !== 'device') planned.push({ ...base, change: 'missing', have: '', step: makeStep(d) });
    } else if (!fits(link, d)) planned.push({ ...base, change: 'differs', have: textOf(link, d), step: setStep(d) });
    else if (peer !== undefined && !(peer.mtu === d.mtu && peer.up))
      planned.push({ ...base, object: peer.name, change: 'differs', have: text(peer), step: setStep(d) });
  }
  const gone = new Set<string>();
  // The kernel's side is named where both are there.
  const byPrimary = [...actual.keys()]
    .filter(isOurLink)
    .sort((a, b) => Number(primaryOf(b) === b) - Number(primaryOf(a) === a));
  for (const name of byPrimary) {
    const primary = primaryOf(name);
    if (wanted.has(primary) || gone.has(primary)) continue;
    gone.add(primary);
    planned.push({
      kind: 'link',
      // Known by its primary side, whichever of the two is left.
      id: primary,
      object: name,
      change: 'extra',
      want: '',
      have: text(actual.get(name)!),
      step: { kind: 'delLink', name },
    });
  }
  return planned;
}

/** A link as it should be. */
export const wantText = (d: DesiredLink): string => text({ mtu: d.mtu, up: true, addresses: hostOf(d)?.addresses });

function makeStep(d: Exclude<DesiredLink, { kind: 'device' }>): LinkStep {
  switch (d.kind) {
    case 'endpoint': {
      const veth = { host: d.name, container: d.container, mtu: d.mtu, mac: d.mac };
      return d.joined === null ? { kind: 'addVeth', ...veth } : { kind: 'restoreVeth', ...veth, joined: d.joined };
    }
    case 'pair':
      return { ...d, kind: 'addPair' };
    case 'ifb':
      return { kind: 'addIfb', name: d.name, mtu: d.mtu };
    case 'tunnel':
      return { ...d, kind: 'addTunnel' };
  }
}

/** The other end of an endpoint's pair is the container's business. */
function setStep(d: DesiredLink): LinkStep {
  const { name, mtu } = d;
  if (d.kind !== 'pair') return { kind: 'setLink', name, peer: null, mtu };
  const step = { kind: 'setLink', name, peer: endsOf(name)[1] ?? null, mtu } as const;
  return d.host === undefined ? step : { ...step, host: d.host };
}

const hostOf = (d: DesiredLink): HostEnd | undefined => (d.kind === 'pair' ? d.host : undefined);
const fits = (link: Link, d: DesiredLink): boolean => textOf(link, d) === wantText(d);
/** Addresses matter only where some are wanted. */
const textOf = (link: Link, d: DesiredLink): string =>
  text({ ...link, addresses: hostOf(d) === undefined ? undefined : (link.addresses ?? []) });

const text = (link: { mtu: number; up: boolean; addresses?: readonly string[] | undefined }): string =>
  [`mtu ${link.mtu} ${link.up ? 'up' : 'down'}`, ...[...(link.addresses ?? [])].sort()].join(' ');
