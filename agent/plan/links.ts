/** What is to be done to links. Pure. */
import { containerLink, hostLink, type Link, type LinkStep } from '../link/steps.ts';

export interface DesiredLink {
  readonly endpointId: string;
  readonly mtu: number;
  readonly mac: string;
  /** Once joined: path of the container's namespace, interface name in it, address/prefix. */
  readonly joined: { readonly sandbox: string; readonly interfaceName: string; readonly address: string } | null;
}

/**
 * @param mayRemove says of a link name whether it may be deleted now (invariant I6).
 * Orphans are host-side links that no endpoint has; their container side goes with them.
 */
export function planLinks(
  desired: readonly DesiredLink[],
  actual: ReadonlyMap<string, Link>,
  mayRemove: (name: string) => boolean,
): LinkStep[] {
  const steps: LinkStep[] = [];
  const wanted = new Set<string>();
  for (const d of desired) {
    const host = hostLink(d.endpointId);
    const container = containerLink(d.endpointId);
    wanted.add(host);
    wanted.add(container);
    const link = actual.get(host);
    if (link === undefined) {
      const veth = { host, container, mtu: d.mtu, mac: d.mac };
      steps.push(d.joined === null ? { kind: 'addVeth', ...veth } : { kind: 'restoreVeth', ...veth, ...d.joined });
    } else if (link.mtu !== d.mtu || !link.up) {
      steps.push({ kind: 'setLink', name: host, mtu: d.mtu });
    }
  }
  const orphans = [...actual.keys()].filter((name) => !wanted.has(name) && mayRemove(name));
  // Both ends of a pair that never left the host: deleting one deletes the other.
  const gone = new Set<string>();
  for (const name of orphans.sort((a, b) => b.localeCompare(a))) {
    const id = name.slice(3);
    if (gone.has(id)) continue;
    gone.add(id);
    steps.push({ kind: 'delLink', name });
  }
  return steps;
}
