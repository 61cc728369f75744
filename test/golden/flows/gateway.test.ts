import { describe, expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import type { BridgeModel } from '../../../agent/flows/model.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { parseCidr } from '../../../lib/addr.ts';
import { parseIp } from '../../../lib/ip.ts';
import { parseIp6 } from '../../../lib/ip6.ts';
import { localPort, network } from '../../harness/flow-models.ts';

const reached = (ofport: number, ip: string, transit: string) => ({
  ...localPort(ofport, ip, ''),
  transit: parseIp(transit),
});

/** Networks with the same addresses; the first leads out. */
const MODEL: BridgeModel = {
  maxMeters: 65_536,
  tunnels: { kind: 'ovs', ports: { vxlan: 1 } },
  gateway: 9,
  networks: [
    network({
      index: 1,
      ipv6: true,
      remotes: [],
      egress: {
        ip: parseIp('10.1.0.1'),
        ip6: parseIp6('fd00:1::1'),
        subnets: [parseCidr('10.1.0.0/24'), parseCidr('fd00:1::/64')],
      },
      locals: [{ ...reached(2, '10.1.0.2', '169.254.70.1'), ip6: parseIp6('fd00:1::2') }],
    }),
    network({ index: 2, ipv6: false, remotes: [], locals: [reached(3, '10.1.0.2', '169.254.70.2')] }),
    network({ index: 3, ipv6: false, remotes: [], locals: [localPort(4, '10.1.0.2', '')] }),
    network({
      index: 4,
      encap: 'vlan',
      ipv6: false,
      remotes: [],
      uplink: { port: 7, tag: 100 },
      locals: [reached(5, '10.1.0.2', '169.254.70.3')],
    }),
  ],
};
const flowsOf = (model: BridgeModel): string[] => [...render(model, new Map()).values()].map(formatFlow).sort();

describe('the way to the host', () => {
  it('is there for endpoints of overlays that have a transit address, each by its own', async () => {
    const without = new Set(flowsOf({ ...MODEL, gateway: null }));
    const more = flowsOf(MODEL).filter((f) => !without.has(f));
    await expect(`${more.join('\n')}\n`).toMatchFileSnapshot('gateway.flows');
  });

  it('is not there without its link', () => {
    const { gateway: _, ...unconnected } = MODEL;
    expect(flowsOf({ ...MODEL, gateway: null })).toEqual(flowsOf(unconnected));
  });
});
