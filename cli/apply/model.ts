/** What files say the mesh should have, what it has, and what is to be done about it: the words of `weft apply`. Pure. */
import type { CreateNetworkRequest } from '../../gen/weft/v1/control.ts';
import type {
  Endpoint,
  EndpointSettings,
  ExternalPeer,
  Network,
  Policy,
  Rate,
  Reservation,
  Router,
  Service,
} from '../../gen/weft/v1/types.ts';
import type { WeftError } from '../../lib/errors.ts';
import type { MethodName, RequestOf } from '../client.ts';

/** Keys of a file, in the order in which things are made; they are removed in the reverse. */
export const SECTIONS = ['networks', 'reservations', 'routers', 'services', 'policies', 'endpoints'] as const;
export type Section = (typeof SECTIONS)[number];

export type Kind = 'network' | 'reservation' | 'router' | 'service' | 'policy' | 'endpoint';

export const KIND: Readonly<Record<Section, Kind>> = {
  networks: 'network',
  reservations: 'reservation',
  routers: 'router',
  services: 'service',
  policies: 'policy',
  endpoints: 'endpoint',
};

/** File and line of a thing, or of the part of it that the path leads to. */
export type Where = (...path: readonly (string | number)[]) => string;

/** A thing as it stands in a file. */
export interface Raw {
  readonly section: Section;
  readonly value: Readonly<Record<string, unknown>>;
  readonly where: Where;
}

interface Wish {
  readonly name: string;
  readonly where: Where;
}

export interface NetworkWish extends Wish {
  /** What it would be made by. 0 and "" = not said. */
  readonly request: CreateNetworkRequest;
  readonly egressIps: readonly string[];
  /** Absent = none. */
  readonly rate: Rate | undefined;
}

export interface ReservationWish extends Wish {
  readonly network: string;
  readonly reservation: Reservation;
}

export interface RouterWish extends Wish {
  /** networkIds are names. */
  readonly router: Router;
}

export interface ServiceWish extends Wish {
  readonly network: string;
  readonly service: Service;
}

export interface PolicyWish extends Wish {
  readonly network: string;
  /** A selector's networkId is a name. */
  readonly policy: Policy;
}

export interface EndpointWish extends Wish {
  /** Empty: whichever it is in. */
  readonly network: string;
  /** Id, times and revision mean nothing. */
  readonly settings: EndpointSettings;
}

/** All that files say. */
export interface Desired {
  /** Sections that are there, with or without something in them. */
  readonly sections: ReadonlySet<Section>;
  readonly networks: readonly NetworkWish[];
  readonly reservations: readonly ReservationWish[];
  readonly routers: readonly RouterWish[];
  readonly services: readonly ServiceWish[];
  readonly policies: readonly PolicyWish[];
  readonly endpoints: readonly EndpointWish[];
  /** Names that something in the files has, whatever else is wrong with it: "network web", "service web/shop". */
  readonly named: ReadonlySet<string>;
}

/** All that the mesh has, of every network. */
export interface Actual {
  readonly networks: readonly Network[];
  readonly reservations: readonly Reservation[];
  readonly routers: readonly Router[];
  readonly services: readonly Service[];
  readonly policies: readonly Policy[];
  readonly endpoints: readonly Endpoint[];
  /** External peers, of which files say nothing. */
  readonly peers: readonly ExternalPeer[];
  /** By endpoint id. */
  readonly settings: Readonly<Record<string, EndpointSettings>>;
  /** Host id to name. */
  readonly hostNames: Readonly<Record<string, string>>;
}

/** A call of the coordinator. */
export type Call = { [M in MethodName]: { readonly method: M; readonly request: RequestOf<M> } }[MethodName];

/** A part of a thing that is not as the files say; null = nothing. */
export interface Difference {
  readonly key: string;
  readonly have: string | null;
  readonly want: string | null;
}

/** A thing of the mesh by name; network null where it is in none, or in several. */
export interface Ref {
  readonly kind: Kind;
  readonly network: string | null;
  readonly name: string;
}

/**
 * "replace": removed and made anew, for want of a way to change it. "missing": an endpoint that is not there; nothing can be done, and
 * `calls` is empty.
 */
export interface Change extends Ref {
  readonly action: 'create' | 'update' | 'replace' | 'remove' | 'missing';
  readonly differences: readonly Difference[];
  /** In this order; the first makes the thing where it is made. */
  readonly calls: readonly Call[];
  /** "replace": puts back what was there, should the calls after the first fail. */
  readonly undo: Call | null;
}

export interface Plan {
  /** In the order in which they are done. */
  readonly changes: readonly Change[];
  readonly unchanged: readonly Ref[];
  /** Why the files cannot be applied; then nothing is. */
  readonly problems: readonly WeftError[];
}

export const refText = ({ kind, network, name }: Ref): string =>
  network === null ? `${kind} ${name}` : `${kind} ${network}/${name}`;
