/** What is to be done to links. Pure. */
import { endsOf, isOurLink, primaryOf, type TunnelEncap } from '../link/names.ts';
import type { Joined, Link, LinkStep } from '../link/steps.ts';
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
  | { readonly kind: 'pair'; readonly name: string; readonly peer: string; readonly mtu: number }
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
    } else if (!fits(link, d.mtu)) planned.push({ ...base, change: 'differs', have: text(link), step: setStep(d) });
    else if (peer !== undefined && !fits(peer, d.mtu))
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
export const wantText = (d: DesiredLink): string => text({ mtu: d.mtu, up: true });

function makeStep(d: Exclude<DesiredLink, { kind: 'device' }>): LinkStep {
  switch (d.kind) {
    case 'endpoint': {
      const veth = { host: d.name, container: d.container, mtu: d.mtu, mac: d.mac };
      return d.joined === null ? { kind: 'addVeth', ...veth } : { kind: 'restoreVeth', ...veth, joined: d.joined };
    }
    case 'pair':
      return { kind: 'addPair', name: d.name, peer: d.peer, mtu: d.mtu };
    case 'tunnel':
      return { ...d, kind: 'addTunnel' };
  }
}

/** The other end of an endpoint's pair is the container's business. */
const setStep = (d: DesiredLink): LinkStep => ({
  kind: 'setLink',
  name: d.name,
  peer: d.kind === 'pair' ? (endsOf(d.name)[1] ?? null) : null,
  mtu: d.mtu,
});

const fits = (link: Link, mtu: number): boolean => link.mtu === mtu && link.up;
const text = (link: { mtu: number; up: boolean }): string => `mtu ${link.mtu} ${link.up ? 'up' : 'down'}`;
