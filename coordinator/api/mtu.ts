/** Control: what sizes get through between hosts. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';

export function mtuMethods(_parts: Parts, method: Method): Pick<ControlServer, 'probeMtu'> {
  return {
    probeMtu: method(async () => {
      throw new WeftError('UNIMPLEMENTED', 'Probing of sizes is not there yet.');
    }),
  };
}
