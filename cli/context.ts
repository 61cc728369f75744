/** Which coordinators to talk to and as whom: from flags, WEFT_* variables, then context.json; nothing else, for root neither. */
import { readFile } from 'node:fs/promises';
import { WeftError } from '../lib/errors.ts';
import { formatHostPort, parseHostPort } from '../lib/hostport.ts';
import type { TlsFiles } from '../lib/tls.ts';
import { contextPath, type Io } from './io.ts';
import { list } from './values.ts';

const CONTROL_PORT = 7470;

export interface ConnectionFlags {
  readonly coordinator?: string;
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
}

export interface Target {
  /** host:port, at least one. */
  readonly coordinators: readonly string[];
  readonly tls: TlsFiles;
}

/** The file's content; `lab` says which lab wrote it. */
interface Context {
  readonly coordinators?: readonly string[];
  readonly tls?: Partial<TlsFiles>;
}

/** @throws FAILED_PRECONDITION naming what is not known, INVALID_ARGUMENT for an address or file that makes no sense. */
export async function resolveTarget(flags: ConnectionFlags, io: Io): Promise<Target> {
  const context = await readContext(contextPath(io));
  const given = flags.coordinator ?? io.env['WEFT_COORDINATOR'];
  const coordinators = (given === undefined || given === '' ? (context.coordinators ?? []) : list(given)).map((text) =>
    formatHostPort(parseHostPort(text, CONTROL_PORT)),
  );
  const tls = {
    ca: flags.ca ?? (io.env['WEFT_CA'] || context.tls?.ca),
    cert: flags.cert ?? (io.env['WEFT_CERT'] || context.tls?.cert),
    key: flags.key ?? (io.env['WEFT_KEY'] || context.tls?.key),
  };
  if (coordinators.length === 0)
    throw new WeftError('FAILED_PRECONDITION', 'No coordinator is known.', {
      hint: `give --coordinator HOST:PORT, set WEFT_COORDINATOR, or run weft ca init or weft lab up (they write ${contextPath(io)})`,
    });
  const absent = (['ca', 'cert', 'key'] as const).filter((name) => tls[name] === undefined || tls[name] === '');
  if (absent.length > 0)
    throw new WeftError('FAILED_PRECONDITION', `No client certificate is known: ${absent.join(', ')} missing.`, {
      hint: 'give --ca, --cert and --key, or set WEFT_CA, WEFT_CERT and WEFT_KEY',
    });
  return { coordinators, tls: tls as TlsFiles };
}

async function readContext(path: string): Promise<Context> {
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {};
    throw new WeftError('FAILED_PRECONDITION', `${path} cannot be read: ${(error as Error).message}.`);
  }
  const bad = (why: string): WeftError =>
    new WeftError('INVALID_ARGUMENT', `${path} ${why}.`, { hint: 'remove it, or write it anew with weft ca init' });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw bad('is not JSON');
  }
  if (typeof value !== 'object' || value === null) throw bad('is not an object');
  const { coordinators, tls } = value as { coordinators?: unknown; tls?: unknown };
  const strings = (items: unknown[]): boolean => items.every((item) => typeof item === 'string');
  if (!Array.isArray(coordinators) || !strings(coordinators)) throw bad('has no list "coordinators"');
  if (typeof tls !== 'object' || tls === null || !strings(Object.values(tls))) throw bad('has no map "tls"');
  return value as Context;
}
