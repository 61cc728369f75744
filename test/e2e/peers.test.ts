/** External peers of the lab's networks, in each encapsulation that its hosts can carry. */
import { peerSuite, tunnelsOf } from '../harness/peers.ts';

peerSuite(await tunnelsOf(['h1', 'h2']));
