/** "host:port" texts: where a daemon listens, where a client dials. */
import { WeftError } from './errors.ts';

export interface HostPort {
  /** Name or address; IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
}

const FORM = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::(\d{1,5}))?$/;

/** @param defaultPort for a text without port; none = the port must be there. @throws INVALID_ARGUMENT */
export function parseHostPort(text: string, defaultPort?: number): HostPort {
  const parsed = tryParseHostPort(text, defaultPort);
  if (parsed === null)
    throw new WeftError('INVALID_ARGUMENT', `"${text}" is not an address and port.`, {
      hint: 'write host:port, like 192.0.2.1:7470 or [2001:db8::1]:7470',
    });
  return parsed;
}

export function tryParseHostPort(text: string, defaultPort?: number): HostPort | null {
  const [, v6, name, digits] = FORM.exec(text) ?? [];
  const host = v6 ?? name;
  const port = digits === undefined ? defaultPort : Number(digits);
  return host === undefined || port === undefined || port > 65535 ? null : { host, port };
}

export const formatHostPort = (at: HostPort): string =>
  `${at.host.includes(':') ? `[${at.host}]` : at.host}:${at.port}`;
