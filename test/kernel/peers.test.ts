/** External peers on the kernel's Open vSwitch: Geneve and GRE too. */
import { peerSuite, tunnelsOf } from '../harness/peers.ts';

peerSuite(await tunnelsOf(['h1', 'h2']));
