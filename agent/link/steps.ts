/** Links (netdevs) that Weft makes: one veth pair an endpoint. Names say whose they are, to an agent without memory. Pure. */

const HOST_PREFIX = 'wft';
const CONTAINER_PREFIX = 'wfc';
/** IFNAMSIZ is 16 with the terminating zero: three letters and twelve hex digits of the endpoint's id. */
const ID_DIGITS = 12;

/** The host's side of an endpoint's veth pair, a port of br-weft. */
export const hostLink = (endpointId: string): string => HOST_PREFIX + endpointId.slice(0, ID_DIGITS);
/** The container's side, before Docker renames it to eth0. */
export const containerLink = (endpointId: string): string => CONTAINER_PREFIX + endpointId.slice(0, ID_DIGITS);
export const isHostLink = (name: string): boolean => /^wft[0-9a-f]{12}$/.test(name);
export const isOurLink = (name: string): boolean => /^wf[tc][0-9a-f]{12}$/.test(name);

export interface Link {
  readonly name: string;
  readonly mtu: number;
  readonly up: boolean;
  /** Kernel's number of the device; null = not read yet. */
  readonly ifindex: number | null;
}

export type LinkStep =
  | {
      readonly kind: 'addVeth';
      readonly host: string;
      readonly container: string;
      readonly mtu: number;
      readonly mac: string;
    }
  | { readonly kind: 'setLink'; readonly name: string; readonly mtu: number }
  | { readonly kind: 'delLink'; readonly name: string }
  | {
      /** A running container lost its interface (someone deleted the pair): make it again inside the sandbox. */
      readonly kind: 'restoreVeth';
      readonly host: string;
      readonly container: string;
      readonly mtu: number;
      readonly mac: string;
      /** Path of the container's network namespace. */
      readonly sandbox: string;
      readonly interfaceName: string;
      /** address/prefix */
      readonly address: string;
    };

/** Lines for `ip -batch` in the host's namespace (ip-link(8)). */
export function hostBatch(step: LinkStep): string[] {
  switch (step.kind) {
    case 'addVeth':
    case 'restoreVeth': {
      const lines = [
        `link add ${step.host} mtu ${step.mtu} type veth peer name ${step.container} mtu ${step.mtu} address ${step.mac}`,
        `link set ${step.host} up`,
      ];
      if (step.kind === 'restoreVeth') lines.push(`link set ${step.container} netns ${step.sandbox}`);
      return lines;
    }
    case 'setLink':
      return [`link set ${step.name} mtu ${step.mtu} up`];
    case 'delLink':
      return [`link del ${step.name}`];
  }
}

/** Lines for `ip -batch` inside the sandbox; none for other steps. */
export function sandboxBatch(step: LinkStep): string[] {
  if (step.kind !== 'restoreVeth') return [];
  return [
    `link set ${step.container} name ${step.interfaceName}`,
    `addr add ${step.address} broadcast + dev ${step.interfaceName}`,
    `link set ${step.interfaceName} up`,
  ];
}

/** What the kernel has told of a link; null: it is gone from the host's namespace. */
export interface LinkChange {
  readonly name: string;
  readonly link: Link | null;
}

/** A line of `ip -o monitor link`: "3: wft…@wfc…: <BROADCAST,UP> mtu 1450 …", with "Deleted " before it. Null when not of ours. */
export function parseNotice(line: string): LinkChange | null {
  const m = /^(Deleted )?(\d+): ([^:@\s]+)\S*: <([^>]*)> mtu (\d+) /.exec(line);
  const name = m?.[3];
  if (m === null || name === undefined || !isOurLink(name)) return null;
  if (m[1] !== undefined) return { name, link: null };
  const up = (m[4] ?? '').split(',').includes('UP');
  return { name, link: { name, mtu: Number(m[5]), up, ifindex: Number(m[2]) } };
}

/** Reads `ip -j link show`: ours only. Entries that are not as expected are left out. */
export function parseLinks(json: string): Map<string, Link> {
  const out = new Map<string, Link>();
  const items: unknown = json.trim() === '' ? [] : JSON.parse(json);
  for (const item of Array.isArray(items) ? items : []) {
    const o = item as { ifname?: unknown; ifindex?: unknown; mtu?: unknown; flags?: unknown };
    if (typeof o.ifname !== 'string' || typeof o.mtu !== 'number' || !Array.isArray(o.flags)) continue;
    const ifindex = typeof o.ifindex === 'number' ? o.ifindex : null;
    if (isOurLink(o.ifname)) out.set(o.ifname, { name: o.ifname, mtu: o.mtu, up: o.flags.includes('UP'), ifindex });
  }
  return out;
}
