/** The controller action's long form (NXAST_CONTROLLER2, ovs-actions(7)): a list of properties. Pure. */
import type { ControllerAction } from './flow.ts';
import type { Reader, Writer } from './wire.ts';

const PROP = { maxLen: 0, id: 1, reason: 2, userdata: 3, meter: 5 };
/** OFPR_ACTION, what a controller action says unless told otherwise. */
export const REASON_ACTION = 1;
const WHOLE = 0xffff;

/** OpenFlow's own output to OFPP_CONTROLLER says all of it. */
export const isPlain = (a: ControllerAction): boolean =>
  (a.userdata ?? '') === '' &&
  a.meter === undefined &&
  (a.id ?? 0) === 0 &&
  (a.reason ?? REASON_ACTION) === REASON_ACTION;

/** One spelling: nothing that has the value of its absence. */
export const canonicalController = (a: ControllerAction): ControllerAction => ({
  type: 'controller',
  maxLen: a.maxLen,
  ...((a.userdata ?? '') !== '' && { userdata: a.userdata! }),
  ...(a.meter !== undefined && { meter: a.meter }),
  ...((a.id ?? 0) !== 0 && { id: a.id! }),
  ...((a.reason ?? REASON_ACTION) !== REASON_ACTION && { reason: a.reason! }),
});

/** Everything after the subtype. */
export function writeController(writer: Writer, action: ControllerAction): void {
  const a = canonicalController(action);
  writer.zeros(6);
  const prop = (type: number, length: number, body: () => void): void => {
    const start = writer.length;
    writer.u16(type).u16(length + 4);
    body();
    writer.align8(start);
  };
  if (a.maxLen !== WHOLE) prop(PROP.maxLen, 2, () => writer.u16(a.maxLen));
  if (a.id !== undefined) prop(PROP.id, 2, () => writer.u16(a.id!));
  if (a.reason !== undefined) prop(PROP.reason, 1, () => writer.u8(a.reason!));
  if (a.userdata !== undefined) {
    const bytes = Buffer.from(a.userdata, 'hex');
    prop(PROP.userdata, bytes.length, () => writer.raw(bytes));
  }
  if (a.meter !== undefined) prop(PROP.meter, 4, () => writer.u32(a.meter!));
}

/** What `writeController` wrote; undefined for what this program does not know. */
export function readController(body: Reader): ControllerAction | undefined {
  body.skip(6);
  let a: ControllerAction = { type: 'controller', maxLen: WHOLE };
  while (body.left >= 4) {
    const type = body.u16();
    const length = body.u16();
    if (length < 4) return undefined;
    const value = body.sub(length - 4);
    body.skip(Math.min(body.left, (8 - (length % 8)) % 8));
    if (type === PROP.maxLen) a = { ...a, maxLen: value.u16() };
    else if (type === PROP.id) a = { ...a, id: value.u16() };
    else if (type === PROP.reason) a = { ...a, reason: value.u8() };
    else if (type === PROP.userdata) a = { ...a, userdata: value.rest().toString('hex') };
    else if (type === PROP.meter) a = { ...a, meter: value.u32() };
    else return undefined;
  }
  // Properties that say nothing: not how this program, or Open vSwitch, writes it.
  return canonicalController(a);
}

/** As Open vSwitch's format_CONTROLLER writes it. */
export function formatController(action: ControllerAction): string {
  const a = canonicalController(action);
  if (isPlain(a)) return `CONTROLLER:${a.maxLen}`;
  const parts: string[] = [];
  if (a.reason !== undefined) parts.push(`reason=${REASONS[a.reason] ?? a.reason}`);
  if (a.maxLen !== WHOLE) parts.push(`max_len=${a.maxLen}`);
  if (a.id !== undefined) parts.push(`id=${a.id}`);
  if (a.userdata !== undefined) parts.push(`userdata=${a.userdata.replace(/(..)(?=.)/g, '$1.')}`);
  if (a.meter !== undefined) parts.push(`meter_id=${a.meter}`);
  return `controller(${parts.join(',')})`;
}

const REASONS = ['no_match', 'action', 'invalid_ttl', 'action_set', 'group', 'packet_out'];
