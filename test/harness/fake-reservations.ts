/** Reservations of the mesh in memory, as a coordinator makes and claims them. */
import { containsIp, parseCidr, parseIp } from '../../lib/addr.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Address, Reservation, Service } from '../../lib/model.ts';
import type { FakeWorld } from './fake-mesh.ts';

export const reservationAt = (world: FakeWorld, networkId: string, ip: string): Reservation | undefined =>
  world.reservations.values().find((r) => r.networkId === networkId && r.ips.includes(ip));

export const serviceAt = (world: FakeWorld, networkId: string, ip: string): Service | undefined =>
  world.services.values().find((s) => s.networkId === networkId && s.ips.includes(ip));

export function whoMustAgree(world: FakeWorld, networkId: string, ip: string): string | null {
  const held = world.addresses.get(`${networkId}/${ip}`);
  const block = world.blocksOf(networkId).find(({ cidr }) => containsIp(parseCidr(cidr), parseIp(ip)));
  return held?.hostId ?? block?.hostId ?? null;
}

export async function ask(
  world: FakeWorld,
  host: string,
  networkId: string,
  ip: string,
  name: string,
  forHost: string,
) {
  const mesh = world.hosts.get(host)!;
  if (!mesh.connected) throw new WeftError('FAILED_PRECONDITION', `host ${mesh.hostName} is not connected`);
  await mesh.book!.reserve(networkId, ip, name, forHost);
}

/** As `weft reservation create`. */
export async function reserve(world: FakeWorld, networkId: string, name: string, ip: string, mac = ''): Promise<void> {
  for (;;) {
    const free = !world.reservations.has(`${networkId}/${name}`) && reservationAt(world, networkId, ip) === undefined;
    if (
      !free ||
      serviceAt(world, networkId, ip) !== undefined ||
      world.addresses.get(`${networkId}/${ip}`)?.state === 'claimed'
    )
      throw new WeftError('ALREADY_EXISTS', `${name} or ${ip} is taken`);
    const host = whoMustAgree(world, networkId, ip);
    if (host !== null) await ask(world, host, networkId, ip, name, '');
    const now = whoMustAgree(world, networkId, ip);
    if (now !== null && now !== host) continue;
    if (reservationAt(world, networkId, ip) !== undefined || world.reservations.has(`${networkId}/${name}`)) continue;
    if (world.addresses.get(`${networkId}/${ip}`)?.state === 'claimed') continue;
    if (serviceAt(world, networkId, ip) !== undefined) continue;
    const fields = { id: world.newId(), networkId, name, ips: [ip], mac, labels: {}, createdAt: '' };
    world.reservations.set(`${networkId}/${name}`, { ...fields, revision: world.bump() });
    world.publish();
    return;
  }
}

/** As `weft reservation rm`. */
export function unreserve(world: FakeWorld, networkId: string, name: string): void {
  world.reservations.delete(`${networkId}/${name}`);
  world.bump();
  world.publish();
}

/** The host's claim of an address that is, or is about to be, held by itself; null where it is neither. */
export async function claimByItself(
  world: FakeWorld,
  claim: { readonly hostId: string; readonly networkId: string; readonly ip: string; readonly ownRecord: boolean },
): Promise<Reservation | 'own' | null> {
  const { hostId, networkId, ip, ownRecord } = claim;
  const key = `${networkId}/${ip}`;
  const reservation = reservationAt(world, networkId, ip);
  if (!ownRecord && reservation === undefined) return null;
  const present = world.addresses.get(key);
  if (present !== undefined && present.hostId !== hostId && reservation !== undefined) {
    await ask(world, present.hostId, networkId, ip, reservation.name, hostId);
    if (world.addresses.has(key)) throw new WeftError('ALREADY_EXISTS', `address ${ip} is held`);
    return await claimByItself(world, claim);
  }
  const held: Omit<Address, 'revision'> = {
    networkId,
    address: ip,
    hostId,
    state: 'held',
    grantorHostId: '',
    reason: '',
  };
  world.addresses.set(key, { ...held, revision: world.bump() });
  world.publish();
  await world.pause();
  return reservation ?? 'own';
}
