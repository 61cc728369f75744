/** Routers, as far as the coordinator knows of any: one of before there were routers has none. */
import type { Router } from '../gen/weft/v1/types.ts';
import { WeftError } from '../lib/errors.ts';
import type { Mesh } from './client.ts';

export async function routersOf(mesh: Pick<Mesh, 'call'>): Promise<Router[]> {
  try {
    return (await mesh.call('listRouters', { project: '' })).routers;
  } catch (error) {
    if (WeftError.from(error).code === 'UNIMPLEMENTED') return [];
    throw error;
  }
}
