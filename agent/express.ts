/** Which endpoints may take the express path. Pure. */
import { deviceOf, type LocalEndpoint } from './contract.ts';

/** True where only forwarding and port security concern it, which the kernel side does as well. Others are told by its record. */
export const mayExpress = (e: LocalEndpoint): boolean => deviceOf(e) === null;
