/** The Control service: for users, and for other replicas. */
import type { ControlServer } from '../../gen/weft/v1/control.ts';
import type { Parts } from '../parts.ts';
import { auditMethods } from './audit.ts';
import { containerMethods } from './containers.ts';
import { endpointMethods } from './endpoints.ts';
import { eventMethods } from './events.ts';
import { hostMethods } from './hosts.ts';
import { lookingTwice, makeMethod } from './method.ts';
import { mtuMethods } from './mtu.ts';
import { networkMethods } from './networks.ts';
import { peerMethods } from './peers.ts';
import { policyMethods } from './policies.ts';
import { reservationMethods } from './reservations.ts';
import { routerMethods } from './routers.ts';
import { serviceMethods } from './services.ts';
import { statusMethods } from './status.ts';
import { traceMethods } from './trace.ts';
import { waitMethods } from './wait.ts';

export function controlService(parts: Parts): ControlServer {
  const plain = makeMethod(parts.log, parts.metrics, 'user', 'coordinator');
  const method = lookingTwice(plain, () => parts.store.caughtUp());
  return {
    ...networkMethods(parts, method),
    ...containerMethods(parts, method),
    ...hostMethods(parts, method),
    ...endpointMethods(parts, method),
    ...statusMethods(parts, method),
    ...waitMethods(parts, method),
    ...auditMethods(parts, method),
    ...peerMethods(parts, method),
    ...reservationMethods(parts, method),
    ...serviceMethods(parts, method),
    ...policyMethods(parts, method),
    ...routerMethods(parts, method),
    ...mtuMethods(parts, method),
    ...traceMethods(parts, method),
    ...eventMethods(parts),
  };
}
