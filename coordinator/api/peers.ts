/** Control: VTEPs that are not Weft hosts. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import { WeftError } from '../../lib/errors.ts';
import type { Parts } from '../parts.ts';
import type { Method } from './method.ts';

type Methods = Pick<ControlServer, 'addPeer' | 'listPeers' | 'removePeer'>;

export function peerMethods(_parts: Parts, method: Method): Methods {
  const refuse = async (): Promise<never> => {
    throw new WeftError('UNIMPLEMENTED', 'External peers are not there yet.');
  };
  return { addPeer: method(refuse), listPeers: method(refuse), removePeer: method(refuse) };
}
