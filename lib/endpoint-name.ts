/** What people call an endpoint. */
import type { Endpoint } from './model.ts';

/** The container's name, or that of what is attached; empty while it is not known. */
export const endpointName = (e: Pick<Endpoint, 'container' | 'aliases'>): string =>
  e.container?.name || (e.aliases[0] ?? '');
