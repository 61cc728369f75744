/** Where a destination MAC is: here, or behind another host. Pure. */
import { MAC_PREFIX } from '../../lib/mac.ts';
import type { Action, Flow } from '../openflow/flow.ts';
import { flow, is, masked, set } from './build.ts';
import type { Entry, LocalPort, NetworkModel, Remote } from './model.ts';
import { PRIORITY, REG, SIDE } from './pipeline.ts';
import { delivery } from './policies.ts';

export const l2Local = (n: NetworkModel, port: LocalPort): Flow =>
  flow(
    'l2',
    n.index,
    PRIORITY.local,
    [is(REG.network, n.index), is('eth_dst', port.mac)],
    [set(REG.out, port.ofport), delivery(n)],
  );

export const l2Entry = (n: NetworkModel, e: Pick<Entry, 'mac'>, out: readonly Action[]): Flow =>
  flow('l2', n.index, PRIORITY.entry, [is(REG.network, n.index), is(REG.side, SIDE.local), is('eth_dst', e.mac)], out);

export function l2Block(n: NetworkModel, block: Remote['blocks'][number], out: readonly Action[]): Flow {
  const bits = BigInt(32 - block.prefix);
  const mask = ((1n << 48n) - 1n) & ~((1n << bits) - 1n);
  const mac = (BigInt(MAC_PREFIX) << 32n) | BigInt(block.base);
  const match = [
    is(REG.network, n.index),
    is(REG.side, SIDE.local),
    bits === 0n ? is('eth_dst', mac) : masked('eth_dst', mac, mask),
  ];
  return flow('l2', n.index, PRIORITY.block + block.prefix, match, out);
}
