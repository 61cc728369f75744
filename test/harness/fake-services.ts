/** Services of the mesh in memory, as far as addresses are concerned. */
import { Service } from '../../gen/weft/v1/types.ts';
import { WeftError } from '../../lib/errors.ts';
import type { FakeWorld } from './fake-mesh.ts';
import { ask, reservationAt, serviceAt, whoMustAgree } from './fake-reservations.ts';

/** @throws ALREADY_EXISTS */
export function refuseService(world: FakeWorld, networkId: string, ip: string): void {
  const service = serviceAt(world, networkId, ip);
  if (service !== undefined)
    throw new WeftError('ALREADY_EXISTS', `address ${ip} is the address of service ${service.name}`);
}

function refuseTaken(world: FakeWorld, networkId: string, name: string, ip: string): void {
  refuseService(world, networkId, ip);
  const named = world.services.has(`${networkId}/${name}`);
  const claimed = world.addresses.get(`${networkId}/${ip}`)?.state === 'claimed';
  if (named || claimed || reservationAt(world, networkId, ip) !== undefined)
    throw new WeftError('ALREADY_EXISTS', `${name} or ${ip} is taken`);
}

/** As `weft service create --ip`. */
export async function serve(world: FakeWorld, networkId: string, name: string, ip: string): Promise<void> {
  for (;;) {
    refuseTaken(world, networkId, name, ip);
    const host = whoMustAgree(world, networkId, ip);
    if (host !== null) await ask(world, host, networkId, ip, `service ${name}`, '');
    const now = whoMustAgree(world, networkId, ip);
    if (now !== null && now !== host) continue;
    refuseTaken(world, networkId, name, ip);
    const fields = { id: world.newId(), networkId, name, ips: [ip], selector: { app: name } };
    world.services.set(`${networkId}/${name}`, Service.fromPartial({ ...fields, revision: world.bump() }));
    world.publish();
    return;
  }
}

/** As `weft service rm`. */
export function unserve(world: FakeWorld, networkId: string, name: string): void {
  world.services.delete(`${networkId}/${name}`);
  world.bump();
  world.publish();
}
