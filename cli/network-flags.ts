/** What the flags of `weft network create` say, as a request. What of it can be, the coordinator judges. Pure. */
import type { CreateNetworkRequest } from '../gen/weft/v1/control.ts';
import { labels, mtu, nonEmpty, vni, wholeNumber } from './values.ts';

export interface CreateFlags {
  readonly subnet?: string[];
  readonly ipRange?: string;
  readonly gateway?: string[];
  readonly ipv6?: boolean;
  readonly encap?: string;
  readonly vni?: string;
  readonly mtu?: string;
  readonly internal?: boolean;
  readonly encrypt?: boolean;
  readonly space?: string;
  readonly label?: string[];
  readonly uplink?: string;
  readonly tag?: string;
  readonly allowTrust?: boolean;
  readonly publishBy?: string;
  readonly dnsOrder?: string;
  readonly policyDefault?: string;
}

/** Checks here only what the coordinator cannot see any more: 0 and "" mean "not given" to it. */
export function createRequest(name: string, flags: CreateFlags): CreateNetworkRequest {
  return {
    project: '',
    name: nonEmpty('network name', name),
    subnets: (flags.subnet ?? []).map((text) => nonEmpty('--subnet', text)),
    ipRange: given('--ip-range', flags.ipRange),
    gateways: (flags.gateway ?? []).map((text) => nonEmpty('--gateway', text)),
    ipv6: flags.ipv6 ?? false,
    encap: given('--encap', flags.encap),
    vni: flags.vni === undefined ? 0 : vni('--vni', flags.vni),
    mtu: flags.mtu === undefined ? 0 : mtu('--mtu', flags.mtu),
    internal: flags.internal ?? false,
    encrypted: flags.encrypt ?? false,
    space: given('--space', flags.space),
    labels: labels('--label', flags.label ?? []),
    options: {},
    uplink: given('--uplink', flags.uplink),
    vlanTag: flags.tag === undefined ? 0 : wholeNumber('--tag', flags.tag, 1, 4094),
    allowTrust: flags.allowTrust ?? false,
    publishBy: given('--publish-by', flags.publishBy),
    dnsOrder: given('--dns-order', flags.dnsOrder),
    policyDefault: given('--policy-default', flags.policyDefault),
  };
}

/** Empty: not given. @throws INVALID_ARGUMENT it is given, and empty */
export const given = (flag: string, text: string | undefined): string =>
  text === undefined ? '' : nonEmpty(flag, text);
