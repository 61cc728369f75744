/** OpenFlow's error numbers as sentences (OpenFlow 1.4 section 7.5.4). Pure. */
import { type Code, WeftError } from '../../lib/errors.ts';

/** Types, with the names of their codes in order. */
const ERRORS: Readonly<Record<number, readonly [type: string, codes: readonly string[]]>> = {
  0: ['hello failed', ['incompatible version', 'permission']],
  1: [
    'bad request',
    [
      'version',
      'type',
      'multipart type',
      'experimenter',
      'experimenter type',
      'permission',
      'length',
      'buffer empty',
      'buffer unknown',
      'table',
      'is slave',
      'port',
      'packet',
      'multipart overflow',
    ],
  ],
  2: [
    'bad action',
    [
      'type',
      'length',
      'experimenter',
      'experimenter type',
      'port',
      'argument',
      'permission',
      'too many',
      'queue',
      'group',
      'inconsistent with the match',
      'order',
      'tag',
      'set-field type',
      'set-field length',
      'set-field argument',
    ],
  ],
  3: [
    'bad instruction',
    [
      'unknown',
      'unsupported',
      'table',
      'metadata',
      'metadata mask',
      'experimenter',
      'experimenter type',
      'length',
      'permission',
      'duplicate',
    ],
  ],
  4: [
    'bad match',
    [
      'type',
      'length',
      'tag',
      'data link address mask',
      'network address mask',
      'wildcards',
      'field',
      'value',
      'mask',
      'prerequisite missing',
      'duplicate field',
      'permission',
    ],
  ],
  5: [
    'flow refused',
    [
      'unknown',
      'table full',
      'table',
      'overlap',
      'permission',
      'timeout',
      'command',
      'flags',
      'cannot be kept in step',
      'priority',
    ],
  ],
  12: [
    'meter refused',
    [
      'unknown',
      'exists',
      'invalid',
      'unknown meter',
      'command',
      'flags',
      'rate',
      'burst',
      'band',
      'band value',
      'out of meters',
      'out of bands',
    ],
  ],
  17: [
    'bundle failed',
    [
      'unknown',
      'permission',
      'id',
      'exists',
      'closed',
      'out of bundles',
      'type',
      'flags',
      'message length',
      'message xid',
      'message unsupported',
      'message conflict',
      'too many messages',
      'a message failed',
      'timeout',
      'in progress',
    ],
  ],
  65535: ['Nicira extension', []],
};

const codeOf = (type: number, code: number): Code => {
  if ((type === 5 && code === 1) || (type === 12 && code >= 10)) return 'RESOURCE_EXHAUSTED';
  return type === 0 ? 'UNIMPLEMENTED' : 'INTERNAL';
};

/** An error message of the switch as an error of ours. */
export function errorText({ type, code }: { readonly type: number; readonly code: number }): WeftError {
  const [what, codes] = ERRORS[type] ?? [`type ${type}`, []];
  return new WeftError(codeOf(type, code), `Open vSwitch refused: ${what}, ${codes[code] ?? `code ${code}`}.`);
}
