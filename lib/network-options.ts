/** Driver options of a network (`docker network create -o`, `--ipam-opt`) that Weft knows; in another's prefix none is. */
import { middleCut, WeftError } from './errors.ts';

/** What options say of a network; a key that is not there was not given. */
export interface NetworkOptions {
  readonly encap?: string;
  readonly uplink?: string;
  readonly vlanTag?: number;
  readonly mtu?: number;
  readonly allowTrust?: boolean;
  readonly publishBy?: string;
  readonly dnsOrder?: string;
  readonly policyDefault?: string;
}

/** Addresses of a name are answered with those on the asking container's host first (Network.dnsOrder). */
export const NEAREST = 'nearest';

/** What no rule of a policy is about is dropped (Network.policyDefault). */
export const DROP = 'drop';

/** Docker's own gateway bridge leads containers out and publishes their ports (Network.publishBy). */
export const BY_DOCKER = 'docker';

const DOCKERS_MTU = 'com.docker.network.driver.mtu';
const KNOWN: readonly string[] = [
  'weft.encap',
  'weft.uplink',
  'weft.tag',
  'weft.mtu',
  'weft.allow-trust',
  'weft.publish-by',
  'weft.dns-order',
  'weft.policy-default',
  DOCKERS_MTU,
];

/** Options without our or Docker's prefix are the user's own remarks. */
export const isOurs = (key: string): boolean => key.startsWith('weft.') || key.startsWith('com.docker.network.');

/**
 * Reads them; what would be accepted and ignored is refused.
 * @throws UNIMPLEMENTED an option that is not known; INVALID_ARGUMENT a value that it cannot have
 */
export function networkOptions(options: Readonly<Record<string, string>>): NetworkOptions {
  for (const key of Object.keys(options))
    if (isOurs(key) && !KNOWN.includes(key))
      throw new WeftError('UNIMPLEMENTED', `option "${middleCut(key)}" is not available on Weft networks`, {
        hint: 'leave it out',
      });
  const mtu = number(options, 'weft.mtu') ?? number(options, DOCKERS_MTU);
  const tag = number(options, 'weft.tag');
  const trust = flag(options, 'weft.allow-trust');
  return {
    ...(options['weft.encap'] === undefined ? {} : { encap: options['weft.encap'] }),
    ...(options['weft.uplink'] === undefined ? {} : { uplink: options['weft.uplink'] }),
    ...(tag === null ? {} : { vlanTag: tag }),
    ...(mtu === null ? {} : { mtu }),
    ...(trust === null ? {} : { allowTrust: trust }),
    ...(options['weft.publish-by'] === undefined ? {} : { publishBy: options['weft.publish-by'] }),
    ...(options['weft.dns-order'] === undefined ? {} : { dnsOrder: options['weft.dns-order'] }),
    ...(options['weft.policy-default'] === undefined ? {} : { policyDefault: options['weft.policy-default'] }),
  };
}

function number(options: Readonly<Record<string, string>>, key: string): number | null {
  const text = options[key];
  if (text === undefined) return null;
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new WeftError('INVALID_ARGUMENT', `option ${key} takes a whole number above 0, not "${middleCut(text)}"`);
}

function flag(options: Readonly<Record<string, string>>, key: string): boolean | null {
  const text = options[key];
  return text === undefined ? null : truthOf(key, text);
}

/** Yes or no, as an option of a network or an endpoint says it. @throws INVALID_ARGUMENT */
export function truthOf(key: string, text: string): boolean {
  if (text === 'true' || text === '1' || text === '') return true;
  if (text === 'false' || text === '0') return false;
  throw new WeftError('INVALID_ARGUMENT', `option ${key} takes true or false, not "${middleCut(text)}"`);
}
