/** What is to be done to links. Pure. */
import { containerLink, hostLink, type Link, type LinkStep } from '../link/steps.ts';
import type { Planned } from './planned.ts';

export interface DesiredLink {
  readonly endpointId: string;
  readonly mtu: number;
  readonly mac: string;
  /** Once joined: path of the container's namespace, interface name in it, address/prefix. */
  readonly joined: { readonly sandbox: string; readonly interfaceName: string; readonly address: string } | null;
}

/** Orphans are links of ours that no endpoint has; deleting one end of a pair deletes the other. */
export function planLinks(desired: readonly DesiredLink[], actual: ReadonlyMap<string, Link>): Planned<LinkStep>[] {
  const planned: Planned<LinkStep>[] = [];
  const wanted = new Set<string>();
  for (const d of desired) {
    const host = hostLink(d.endpointId);
    const container = containerLink(d.endpointId);
    wanted.add(host);
    wanted.add(container);
    const link = actual.get(host);
    const base = { kind: 'link', id: host, object: host, want: text({ mtu: d.mtu, up: true }) };
    if (link === undefined) {
      const veth = { host, container, mtu: d.mtu, mac: d.mac };
      const step: LinkStep =
        d.joined === null ? { kind: 'addVeth', ...veth } : { kind: 'restoreVeth', ...veth, ...d.joined };
      planned.push({ ...base, change: 'missing', have: '', step });
    } else if (link.mtu !== d.mtu || !link.up) {
      planned.push({ ...base, change: 'differs', have: text(link), step: { kind: 'setLink', name: host, mtu: d.mtu } });
    }
  }
  const gone = new Set<string>();
  // 'wft…' sorts after 'wfc…': the host's side is named where both are there.
  for (const name of [...actual.keys()].sort().reverse()) {
    const id = name.slice(3);
    if (wanted.has(name) || gone.has(id)) continue;
    gone.add(id);
    // Known by its host side, whichever of the two is left.
    const host = `wft${id}`;
    const link = actual.get(name)!;
    planned.push({
      kind: 'link',
      id: host,
      object: name,
      change: 'extra',
      want: '',
      have: text(link),
      step: { kind: 'delLink', name },
    });
  }
  return planned;
}

const text = (link: { mtu: number; up: boolean }): string => `mtu ${link.mtu} ${link.up ? 'up' : 'down'}`;
