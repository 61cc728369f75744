/** The rows of the Open_vSwitch database that Weft reads (ovs-vswitchd.conf.db(5)), typed. Pure. */
import { readMap, readNumber, readOptional, readRefs, readSet, readString, type Uuid } from './values.ts';

type StringMap = Readonly<Record<string, string>>;

export interface RootRow {
  readonly uuid: Uuid;
  readonly bridges: readonly Uuid[];
  readonly curCfg: number;
  readonly nextCfg: number;
  readonly externalIds: StringMap;
  readonly otherConfig: StringMap;
  readonly datapathTypes: readonly string[];
  readonly ifaceTypes: readonly string[];
  readonly ovsVersion: string | null;
}

export interface BridgeRow {
  readonly uuid: Uuid;
  readonly name: string;
  readonly ports: readonly Uuid[];
  readonly datapathType: string;
  readonly failMode: string | null;
  /** OpenFlow versions that it speaks; empty = all. */
  readonly protocols: readonly string[];
  readonly externalIds: StringMap;
  readonly otherConfig: StringMap;
}

export interface PortRow {
  readonly uuid: Uuid;
  readonly name: string;
  readonly interfaces: readonly Uuid[];
  readonly tag: number | null;
}

export interface InterfaceRow {
  readonly uuid: Uuid;
  readonly name: string;
  readonly type: string;
  readonly options: StringMap;
  readonly externalIds: StringMap;
  /** null: not known yet; -1: the interface could not be opened. */
  readonly ofport: number | null;
  readonly error: string | null;
  readonly macInUse: string | null;
  readonly ifindex: number | null;
  readonly mtu: number | null;
  readonly mtuRequest: number | null;
  /** kbit/s and kbit; 0 = no policing. */
  readonly ingressRate: number;
  readonly ingressBurst: number;
}

/** The whole of what is cached, by uuid. */
export interface Rows {
  readonly Open_vSwitch: Map<Uuid, RootRow>;
  readonly Bridge: Map<Uuid, BridgeRow>;
  readonly Port: Map<Uuid, PortRow>;
  readonly Interface: Map<Uuid, InterfaceRow>;
}
export type TableName = keyof Rows;
type RawRow = Readonly<Record<string, unknown>>;

/** Statistics and status are left out: they change every few seconds and mean nothing to us. */
export const COLUMNS: Readonly<Record<TableName, readonly string[]>> = {
  Open_vSwitch: [
    'bridges',
    'cur_cfg',
    'next_cfg',
    'external_ids',
    'other_config',
    'datapath_types',
    'iface_types',
    'ovs_version',
  ],
  Bridge: ['name', 'ports', 'datapath_type', 'fail_mode', 'protocols', 'external_ids', 'other_config'],
  Port: ['name', 'interfaces', 'tag'],
  Interface: [
    'name',
    'type',
    'options',
    'external_ids',
    'ofport',
    'error',
    'mac_in_use',
    'ifindex',
    'mtu',
    'mtu_request',
    'ingress_policing_rate',
    'ingress_policing_burst',
  ],
};

export const emptyRows = (): Rows => ({
  Open_vSwitch: new Map(),
  Bridge: new Map(),
  Port: new Map(),
  Interface: new Map(),
});

const readers: {
  readonly [T in TableName]: (uuid: Uuid, row: RawRow) => Rows[T] extends Map<Uuid, infer R> ? R : never;
} = {
  Open_vSwitch: (uuid, row) => ({
    uuid,
    bridges: readRefs(row['bridges']),
    curCfg: readNumber(row['cur_cfg']),
    nextCfg: readNumber(row['next_cfg']),
    externalIds: readMap(row['external_ids']),
    otherConfig: readMap(row['other_config']),
    datapathTypes: readSet(row['datapath_types']).map(String),
    ifaceTypes: readSet(row['iface_types']).map(String),
    ovsVersion: readOptional(row['ovs_version'], 'string'),
  }),
  Bridge: (uuid, row) => ({
    uuid,
    name: readString(row['name']),
    ports: readRefs(row['ports']),
    datapathType: readString(row['datapath_type']),
    failMode: readOptional(row['fail_mode'], 'string'),
    protocols: readSet(row['protocols']).map(String),
    externalIds: readMap(row['external_ids']),
    otherConfig: readMap(row['other_config']),
  }),
  Port: (uuid, row) => ({
    uuid,
    name: readString(row['name']),
    interfaces: readRefs(row['interfaces']),
    tag: readOptional(row['tag'], 'number'),
  }),
  Interface: (uuid, row) => ({
    uuid,
    name: readString(row['name']),
    type: readString(row['type']),
    options: readMap(row['options']),
    externalIds: readMap(row['external_ids']),
    ofport: readOptional(row['ofport'], 'number'),
    error: readOptional(row['error'], 'string'),
    macInUse: readOptional(row['mac_in_use'], 'string'),
    ifindex: readOptional(row['ifindex'], 'number'),
    mtu: readOptional(row['mtu'], 'number'),
    mtuRequest: readOptional(row['mtu_request'], 'number'),
    ingressRate: readNumber(row['ingress_policing_rate']),
    ingressBurst: readNumber(row['ingress_policing_burst']),
  }),
};

/** One row as it came (RFC 7047 section 5.2 notation) into the typed map. */
export function putRow(rows: Rows, table: TableName, uuid: Uuid, row: RawRow): void {
  const target = rows[table] as Map<Uuid, unknown>;
  target.set(uuid, readers[table](uuid, row));
}

/**
 * Applies RFC 7047 table-updates: `{table: {uuid: {old, new}}}`. Returns true when anything changed but the
 * configuration counters, which move with each transaction of anybody.
 */
export function applyUpdates(rows: Rows, updates: unknown): boolean {
  let changed = false;
  const tables = (updates ?? {}) as Record<string, Record<string, { old?: RawRow; new?: RawRow }>>;
  for (const [name, byUuid] of Object.entries(tables)) {
    if (!Object.hasOwn(COLUMNS, name)) continue;
    const table = name as TableName;
    for (const [uuid, { old, new: now }] of Object.entries(byUuid)) {
      if (now === undefined) rows[table].delete(uuid);
      else putRow(rows, table, uuid, now);
      const columns = old === undefined || now === undefined ? null : Object.keys(old);
      changed ||= columns === null || columns.some((column) => column !== 'cur_cfg' && column !== 'next_cfg');
    }
  }
  return changed;
}
