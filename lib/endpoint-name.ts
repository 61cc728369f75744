/** What people call an endpoint. */
import type { Endpoint } from './model.ts';

/** The container's name, or that of what is attached; empty while it is not known. */
export const endpointName = (e: Pick<Endpoint, 'container' | 'aliases'>): string =>
  e.container?.name || (e.aliases[0] ?? '');

/**
 * Those that a text means: id, container's id, name, HOST/NAME, or address; else, with four digits or more, the beginning of one of these ids.
 * @param hostOf name of a host by its id
 */
export function endpointsNamed(all: readonly Endpoint[], text: string, hostOf: (id: string) => string): Endpoint[] {
  const names = (e: Endpoint): (string | undefined)[] => [
    e.id,
    e.container?.id,
    endpointName(e),
    `${hostOf(e.hostId)}/${endpointName(e)}`,
    ...e.ips,
  ];
  const exact = all.filter((e) => names(e).includes(text));
  if (exact.length > 0 || !/^[0-9a-f]{4,}$/.test(text)) return exact;
  return all.filter((e) => e.id.startsWith(text) || e.container?.id.startsWith(text) === true);
}
