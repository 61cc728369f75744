/** Control: services. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';

type Methods = Pick<ControlServer, 'createService' | 'listServices' | 'removeService'>;

export function serviceMethods(_parts: Parts, method: Method): Methods {
  const notYet = method(async () => {
    throw new WeftError('UNIMPLEMENTED', 'This coordinator has no services.');
  });
  return { createService: notYet, listServices: notYet, removeService: notYet };
}
