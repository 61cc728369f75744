import { expect, test } from 'vitest';
import { hostLink, slowLink } from '../../../agent/link/names.ts';
import { kernelSide } from '../../../agent/plan/kernel.ts';
import { formatIp6 } from '../../../lib/ip6.ts';
import { formatMac } from '../../../lib/mac.ts';
import { IPV6_MODEL } from '../../harness/flow-models.ts';
import { EXPRESS_WIRING } from '../../harness/wiring.ts';

test('the kernel side knows alias MACs, their blocks, and both addresses of a port', () => {
  const { model } = kernelSide(IPV6_MODEL.networks, EXPRESS_WIRING, (link) => link.length);
  const fdb = model.fdb.map((e) => ({
    index: e.index,
    mac: formatMac(e.mac),
    rewrite: e.place.kind === 'local' && e.place.rewrite !== null ? formatMac(e.place.rewrite) : null,
  }));
  expect(fdb).toContainEqual({ index: 1, mac: '02:59:00:00:00:02', rewrite: '02:58:0a:80:00:02' });
  expect(fdb).toContainEqual({ index: 1, mac: '02:59:00:00:00:03', rewrite: '02:42:00:00:00:03' });
  // Without IPv4 the alias is the MAC.
  expect(fdb.filter((e) => e.index === 2)).toEqual([{ index: 2, mac: '02:59:00:00:00:02', rewrite: null }]);
  const blocks = model.blocks.map((b) => `${b.index} ${formatMac(b.mac)}/${b.bits}`);
  expect(blocks).toEqual(['1 02:58:0a:80:00:20/43', '1 02:59:00:00:00:40/42', '2 02:59:00:00:00:40/42']);
  const [port] = model.ports;
  expect(port).toMatchObject({ ifindex: hostLink('2'.repeat(64)).length, slow: slowLink('2'.repeat(64)).length });
  expect([port?.ip6, port?.linkLocal].map((ip) => (ip == null ? null : formatIp6(ip)))).toEqual([
    'fd00::2',
    'fe80::58:aff:fe80:2',
  ]);
});
