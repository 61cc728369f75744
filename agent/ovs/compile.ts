/**
 * Steps → the operations of one OVSDB transaction, given the rows as they are. Pure.
 *
 * Rows are addressed by uuid, so each operation on an existing row says in its `count` whether the row was still there:
 * the driver checks that (`expects`), and compiles anew from a fresh cache when a race was lost.
 */
import { WeftError } from '../../lib/errors.ts';
import type { Operation } from './ovsdb.ts';
import type { BridgeRow, PortRow, Rows } from './rows.ts';
import type { OvsStep } from './steps.ts';
import { mapOf, namedRef, optional, type Ref, setOf, uuidRef, type Value } from './values.ts';

export interface Compiled {
  readonly operations: readonly Operation[];
  /** Indexes of operations that must have counted exactly one row. */
  readonly expects: readonly number[];
}

type EnsureBridge = Extract<OvsStep, { kind: 'ensureBridge' }>;
type AddPort = Extract<OvsStep, { kind: 'addPort' }>;
type SetPort = Extract<OvsStep, { kind: 'setPort' }>;

/** The end that a list of steps comes to, a port or bridge at a time; later steps win over earlier ones. */
interface Outcome {
  readonly bridges: Map<string, EnsureBridge | 'gone'>;
  readonly ports: Map<string, AddPort | SetPort | { readonly kind: 'delPort'; readonly bridge: string }>;
}

function fold(steps: readonly OvsStep[]): Outcome {
  const outcome: Outcome = { bridges: new Map(), ports: new Map() };
  for (const step of steps) {
    switch (step.kind) {
      case 'ensureBridge':
        outcome.bridges.set(step.name, step);
        break;
      case 'delBridge':
        outcome.bridges.set(step.name, 'gone');
        for (const [name, port] of outcome.ports) if (port.bridge === step.name) outcome.ports.delete(name);
        break;
      case 'setPort': {
        const before = outcome.ports.get(step.name);
        const merges = before !== undefined && before.kind !== 'delPort';
        outcome.ports.set(step.name, merges ? ({ ...before, ...step, kind: before.kind } as AddPort | SetPort) : step);
        break;
      }
      case 'addPort':
      case 'delPort':
        outcome.ports.set(step.name, step);
    }
  }
  return outcome;
}

class Builder {
  readonly operations: Operation[] = [];
  readonly expects: number[] = [];
  #names = 0;

  insert(table: string, row: Record<string, Value>): Ref {
    const name = `r${this.#names++}`;
    this.operations.push({ op: 'insert', table, row, 'uuid-name': name });
    return namedRef(name);
  }

  /** `ref` may be of a row made by the same transaction. */
  update(table: string, ref: Ref, row: Record<string, Value>): void {
    if (Object.keys(row).length > 0) this.#on(ref, { op: 'update', table, where: [['_uuid', '==', ref]], row });
  }

  mutate(table: string, ref: Ref, column: string, mutator: 'insert' | 'delete', refs: readonly Ref[]): void {
    if (refs.length === 0) return;
    this.#on(ref, { op: 'mutate', table, where: [['_uuid', '==', ref]], mutations: [[column, mutator, setOf(refs)]] });
  }

  #on(ref: Ref, operation: Operation): void {
    if (ref[0] === 'uuid') this.expects.push(this.operations.length);
    this.operations.push(operation);
  }
}

/** Throws NOT_FOUND for a port to be added to, or set in, a bridge that neither exists nor is made by the same steps. */
export function compile(steps: readonly OvsStep[], rows: Rows): Compiled {
  const { bridges, ports } = fold(steps);
  const builder = new Builder();
  const byName = new Map([...rows.Bridge.values()].map((row) => [row.name, row]));
  const root = rootRef(rows, builder);
  const refs = new Map<string, Ref>();
  for (const [name, row] of byName) refs.set(name, uuidRef(row.uuid));
  for (const [name, step] of bridges) {
    const row = byName.get(name);
    if (step !== 'gone') refs.set(name, ensureBridge(builder, root(), step, row));
    else if (row !== undefined) {
      builder.mutate('Open_vSwitch', root(), 'bridges', 'delete', [uuidRef(row.uuid)]);
      refs.delete(name);
    }
  }
  compilePorts(builder, rows, refs, ports);
  return { operations: builder.operations, expects: builder.expects };
}

/** The root row is made by whoever comes first; normally that is the installation. */
function rootRef(rows: Rows, builder: Builder): () => Ref {
  const existing = rows.Open_vSwitch.values().next().value;
  let ref: Ref | null = existing === undefined ? null : uuidRef(existing.uuid);
  return () => (ref ??= builder.insert('Open_vSwitch', {}));
}

function ensureBridge(builder: Builder, root: Ref, step: EnsureBridge, row: BridgeRow | undefined): Ref {
  const columns = {
    datapath_type: step.datapathType,
    fail_mode: step.failMode,
    protocols: setOf([]),
    external_ids: mapOf(step.externalIds),
    other_config: mapOf(step.otherConfig),
  };
  if (row !== undefined) {
    builder.update('Bridge', uuidRef(row.uuid), columns);
    return uuidRef(row.uuid);
  }
  // A bridge has a local port of its own name.
  const local = builder.insert('Interface', { name: step.name, type: 'internal' });
  const port = builder.insert('Port', { name: step.name, interfaces: setOf([local]) });
  const bridge = builder.insert('Bridge', { name: step.name, ports: setOf([port]), ...columns });
  builder.mutate('Open_vSwitch', root, 'bridges', 'insert', [bridge]);
  return bridge;
}

function compilePorts(builder: Builder, rows: Rows, bridges: ReadonlyMap<string, Ref>, ports: Outcome['ports']): void {
  const portByName = new Map([...rows.Port.values()].map((row) => [row.name, row]));
  const added = new Map<string, Ref[]>();
  const removed = new Map<string, Ref[]>();
  const push = (map: Map<string, Ref[]>, bridge: string, ref: Ref): void => {
    map.set(bridge, [...(map.get(bridge) ?? []), ref]);
  };
  for (const [name, step] of ports) {
    const row = portByName.get(name);
    const owner = row === undefined ? undefined : ownerOf(rows, row);
    const here = row !== undefined && owner === step.bridge && bridges.has(step.bridge);
    if (step.kind === 'delPort') {
      if (here) push(removed, step.bridge, uuidRef(row.uuid));
      continue;
    }
    if (!bridges.has(step.bridge))
      throw new WeftError('NOT_FOUND', `There is no bridge ${step.bridge} for port ${name}.`);
    if (here && row.interfaces[0] !== undefined) {
      builder.update('Interface', uuidRef(row.interfaces[0]), columnsOf(step));
      continue;
    }
    if (step.kind === 'setPort') throw new WeftError('NOT_FOUND', `There is no port ${name} in bridge ${step.bridge}.`);
    if (row !== undefined && owner !== undefined) push(removed, owner, uuidRef(row.uuid));
    const iface = builder.insert('Interface', { name, ...columnsOf(step) });
    push(added, step.bridge, builder.insert('Port', { name, interfaces: setOf([iface]) }));
  }
  for (const [bridge, refs] of removed) {
    const ref = bridges.get(bridge);
    if (ref !== undefined) builder.mutate('Bridge', ref, 'ports', 'delete', refs);
  }
  for (const [bridge, refs] of added) builder.mutate('Bridge', bridges.get(bridge)!, 'ports', 'insert', refs);
}

const ownerOf = (rows: Rows, port: PortRow): string | undefined =>
  [...rows.Bridge.values()].find((bridge) => bridge.ports.includes(port.uuid))?.name;

/** The columns that a step speaks of: all of them for an added port, the given ones for a set port. */
function columnsOf(step: AddPort | SetPort): Record<string, Value> {
  const full = step.kind === 'addPort';
  const columns: Record<string, Value> = {};
  if (step.type !== undefined) columns['type'] = step.type;
  if (step.options !== undefined) columns['options'] = mapOf(step.options);
  if (step.externalIds !== undefined) columns['external_ids'] = mapOf(step.externalIds);
  if (full || step.mtuRequest !== undefined) columns['mtu_request'] = optional(step.mtuRequest ?? null);
  if (full || step.ingress !== undefined) {
    columns['ingress_policing_rate'] = step.ingress?.rate ?? 0;
    columns['ingress_policing_burst'] = step.ingress?.burst ?? 0;
  }
  return columns;
}
