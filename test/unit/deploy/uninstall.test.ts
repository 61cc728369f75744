/** Links that `uninstall` removes: Weft's, a pair once, and nobody else's. */
import { expect, it } from 'vitest';
import { ownLinks } from '../../../deploy/uninstall.ts';

it('names each pair by one end, whichever is here', () => {
  const id = '0123456789ab';
  expect(
    ownLinks(['lo', 'eth0', 'weft-vxlan', 'weft-to', 'weft-tk', `wfo${id}`, `wfk${id}`, `wft${id}`, `wfc${id}`]),
  ).toEqual(['weft-vxlan', 'weft-tk', `wfk${id}`, `wft${id}`]);
  expect(ownLinks([`wfc${id}`, 'weft-to'])).toEqual([`wfc${id}`, 'weft-to']);
});

it('leaves alone what only looks like it', () => {
  expect(ownLinks(['br-weft', 'wft0', 'wftabc', 'weft0', 'docker0', 'vethwft'])).toEqual([]);
});
