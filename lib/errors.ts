/** One error class for everything that crosses a boundary (gRPC, CLI, Docker plugin), with the closed set of gRPC codes. */

export const CODES = {
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  ALREADY_EXISTS: 6,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  ABORTED: 10,
  UNIMPLEMENTED: 12,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  UNAUTHENTICATED: 16,
  CANCELLED: 1,
} as const;

export type Code = keyof typeof CODES;

/** A message may quote what somebody sent, however long; its ends say what it is about. */
const MAX_MESSAGE = 1500;

/** Text from outside, for a sentence: at most `max` characters, the middle left out. */
export function middleCut(text: string, max = 80): string {
  if (text.length <= max) return text;
  const half = Math.floor((max - 1) / 2);
  return `${text.slice(0, half)}…${text.slice(-half)}`.toWellFormed();
}

const NAMES = new Map<number, Code>(Object.entries(CODES).map(([name, number]) => [number, name as Code]));

/**
 * An error whose message is a sentence for the user: what is wrong. `hint` says what to do about it.
 * Compare by `code`, never by `instanceof` or message text.
 */
export class WeftError extends Error {
  readonly code: Code;
  readonly hint: string | null;

  constructor(code: Code, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(middleCut(message, MAX_MESSAGE), options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'WeftError';
    this.code = code;
    this.hint = options.hint ?? null;
  }

  /** True when the same call may succeed later without anybody changing anything. */
  get retryable(): boolean {
    return this.code === 'UNAVAILABLE' || this.code === 'ABORTED' || this.code === 'DEADLINE_EXCEEDED';
  }

  /** Anything thrown, as a WeftError: ours as it is, gRPC errors by their status, system errors by errno. */
  static from(error: unknown): WeftError {
    if (error instanceof WeftError) return error;
    const e = error as { code?: unknown; details?: unknown; message?: unknown };
    const message = typeof e?.message === 'string' ? e.message : String(error);
    if (typeof e?.code === 'number') {
      const code = NAMES.get(e.code) ?? 'INTERNAL';
      const text = typeof e.details === 'string' && e.details !== '' ? e.details : message;
      const [head, ...rest] = text.split('\nhint: ');
      return new WeftError(
        code,
        head ?? text,
        rest.length > 0 ? { hint: rest.join('\n'), cause: error } : { cause: error },
      );
    }
    if (typeof e?.code === 'string') {
      const unavailable = ['ECONNREFUSED', 'ECONNRESET', 'ENOENT', 'EPIPE', 'ETIMEDOUT', 'EHOSTUNREACH', 'ENETUNREACH'];
      if (unavailable.includes(e.code)) return new WeftError('UNAVAILABLE', message, { cause: error });
    }
    return new WeftError('INTERNAL', message, { cause: error });
  }

  /** gRPC status details: message and hint in one string, taken apart again by `from`. */
  get details(): string {
    return this.hint === null ? this.message : `${this.message}\nhint: ${this.hint}`;
  }
}

export const codeOf = (error: unknown): Code => WeftError.from(error).code;
