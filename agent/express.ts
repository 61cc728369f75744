/** Which endpoints may take the express path. Pure. */
import type { LocalEndpoint } from './contract.ts';

/** True where only forwarding and port security concern it, which the kernel side does as well. Others are told by its record. */
export const mayExpress = (_e: LocalEndpoint): boolean => true;
