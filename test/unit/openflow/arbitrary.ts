/** Random flows: any field with any value and mask, any action, prerequisites or not. */
import fc from 'fast-check';
import { FIELD_NAMES, FIELDS, type FieldName, fullMask } from '../../../agent/openflow/fields.ts';
import { type Action, type Flow, type LearnSpec, type MatchField, OFPP } from '../../../agent/openflow/flow.ts';

const field = fc.constantFrom(...FIELD_NAMES);
const anyValue = (name: FieldName): fc.Arbitrary<bigint> => fc.bigInt(0n, fullMask(name));

const matchField: fc.Arbitrary<MatchField> = field.chain((name) =>
  fc.oneof(
    anyValue(name).map((value) => ({ field: name, value })),
    fc.record({ field: fc.constant(name), value: anyValue(name), mask: anyValue(name) }),
  ),
);
/** Wide registers cover narrow ones: not both. */
const match = fc.uniqueArray(
  matchField.filter((m) => !m.field.startsWith('x') && !m.field.startsWith('vlan')),
  { selector: (m) => m.field, maxLength: 8 },
);

const subfield = fc
  .constantFrom(...FIELD_NAMES.filter((name) => FIELDS[name].wire.some((wire) => wire[2] === undefined)))
  .chain((name) =>
    fc
      .nat(FIELDS[name].subfieldBits - 1)
      .chain((ofs) =>
        fc
          .integer({ min: 1, max: Math.min(64, FIELDS[name].subfieldBits - ofs) })
          .map((nBits) => ({ field: name, ofs, nBits })),
      ),
  );
const port = fc.oneof(
  fc.integer({ min: 1, max: 0xfeff }),
  fc.constantFrom(OFPP.LOCAL, OFPP.FLOOD, OFPP.ALL, OFPP.NORMAL, OFPP.TABLE),
);
const u8 = fc.nat(254);
const u32 = fc.nat(0xffffffff);

const simple: fc.Arbitrary<Action> = fc.oneof(
  port.map((p): Action => ({ type: 'output', port: p })),
  fc.constant<Action>({ type: 'in_port' }),
  subfield.map((sub): Action => ({ type: 'output_reg', ...sub })),
  field.chain((name) => anyValue(name).map((value): Action => ({ type: 'set_field', field: name, value }))),
  field.chain((name) =>
    fc
      .tuple(anyValue(name), anyValue(name))
      .map(([value, mask]): Action => ({ type: 'set_field', field: name, value, mask: mask | 1n })),
  ),
  fc.tuple(subfield, subfield).map(([a, b]): Action => {
    const nBits = Math.min(a.nBits, b.nBits);
    return { type: 'move', src: a.field, srcOfs: a.ofs, dst: b.field, dstOfs: b.ofs, nBits };
  }),
  subfield.chain((sub) =>
    fc.bigInt(0n, (1n << BigInt(sub.nBits)) - 1n).map((value): Action => ({ type: 'load', ...sub, value })),
  ),
  u8.map((table): Action => ({ type: 'resubmit', table })),
  fc.tuple(u8, port).map(([table, p]): Action => ({ type: 'resubmit', table, port: p })),
  u32.map((group): Action => ({ type: 'group', group })),
  fc.nat(0xffff).map((maxLen): Action => ({ type: 'controller', maxLen })),
  fc
    .tuple(fc.nat(0xffff), fc.uint8Array({ minLength: 1, maxLength: 20 }), u32, fc.nat(5), fc.nat(0xffff))
    .map(([maxLen, bytes, meter, reason, id]): Action => {
      const userdata = Buffer.from(bytes).toString('hex');
      return { type: 'controller', maxLen, userdata, meter, reason, id };
    }),
  fc.constantFrom(0x8100, 0x88a8).map((etherType): Action => ({ type: 'push_vlan', etherType })),
  fc.constantFrom<Action>({ type: 'pop_vlan' }, { type: 'dec_ttl' }, { type: 'ct_clear' }),
  u32.map((queue): Action => ({ type: 'set_queue', queue })),
  fc.tuple(u32, u8, u8).map(([id, clause, nClauses]): Action => ({ type: 'conjunction', id, clause, nClauses })),
);
const ct: fc.Arbitrary<Action> = fc.record(
  {
    type: fc.constant('ct' as const),
    commit: fc.constant(true),
    force: fc.constant(true),
    zone: fc.oneof(fc.integer({ min: 1, max: 0xffff }), subfield),
    table: u8,
    alg: fc.integer({ min: 1, max: 0xffff }),
    exec: fc.array(simple, { minLength: 1, maxLength: 3 }),
  },
  { requiredKeys: ['type'] },
);
const spec: fc.Arbitrary<LearnSpec> = fc.oneof(
  subfield.map((from): LearnSpec => ({ to: 'output', from })),
  fc
    .tuple(subfield, fc.constantFrom('match' as const, 'load' as const))
    .chain(([dst, to]) => fc.bigInt(0n, (1n << BigInt(dst.nBits)) - 1n).map((from): LearnSpec => ({ to, dst, from }))),
  fc.tuple(subfield, subfield).map(([a, b]): LearnSpec => {
    const nBits = Math.min(a.nBits, b.nBits);
    return { to: 'match', dst: { ...a, nBits }, from: { ...b, nBits } };
  }),
);
const learn: fc.Arbitrary<Action> = fc.record(
  {
    type: fc.constant('learn' as const),
    table: u8,
    priority: fc.nat(0xffff),
    idleTimeout: fc.nat(0xffff),
    hardTimeout: fc.nat(0xffff),
    finIdleTimeout: fc.nat(0xffff),
    finHardTimeout: fc.nat(0xffff),
    cookie: fc.bigInt(0n, (1n << 64n) - 1n),
    limit: u32,
    flags: fc.nat(3),
    specs: fc.array(spec, { maxLength: 4 }),
  },
  { requiredKeys: ['type', 'table', 'priority', 'specs'] },
);
const actions = fc
  .tuple(
    fc.option(u32, { nil: undefined }),
    fc.array(fc.oneof(simple, ct, learn), { maxLength: 6 }),
    fc.option(u8, { nil: undefined }),
  )
  .map(([meter, list, table]): Action[] => [
    ...(meter === undefined ? [] : [{ type: 'meter' as const, meter }]),
    ...list,
    ...(table === undefined ? [] : [{ type: 'goto' as const, table }]),
  ]);

export const flows: fc.Arbitrary<Flow> = fc.record({
  table: u8,
  priority: fc.nat(0xffff),
  cookie: fc.bigInt(0n, (1n << 64n) - 1n),
  match,
  actions,
});
