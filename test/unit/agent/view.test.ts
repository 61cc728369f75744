import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { EMPTY_DRAFT, withCatalogue, withNetwork, withoutInterest } from '../../../agent/view.ts';
import { decodeView, encodeView } from '../../../agent/viewstore.ts';
import { Catalogue, NetworkUpdate } from '../../../gen/weft/v1/session.ts';

const at = (number: number, epoch = 1n) => ({ epoch, number: BigInt(number) });
const network = (id: string) => ({ id, name: id, vni: 4096 });
const catalogue = (o: object) => Catalogue.fromPartial(o);
const update = (o: object) => NetworkUpdate.fromPartial({ networkId: 'n1', ...o });
const block = (cidr: string, hostId = 'h1') => ({ networkId: 'n1', cidr, hostId });

describe('the view', () => {
  it('takes a complete catalogue as it is and chains increments to it', () => {
    let d = withCatalogue(
      EMPTY_DRAFT,
      catalogue({ complete: true, revision: at(5), networks: [network('a'), network('b')] }),
    );
    d = withCatalogue(d, catalogue({ basedOn: at(5), revision: at(9), networks: [network('c')], removed: ['a'] }));
    expect([...d.view.networks.keys()]).toEqual(['b', 'c']);
    expect(d.view.revision).toEqual(at(9));
  });

  it('ends the session on a gap', () => {
    const d = withCatalogue(EMPTY_DRAFT, catalogue({ complete: true, revision: at(5) }));
    expect(() => withCatalogue(d, catalogue({ basedOn: at(6), revision: at(9) }))).toThrow(/does not follow/);
    expect(() => withNetwork(d, update({ basedOn: at(5), revision: at(9) }))).toThrow(/does not follow/);
    expect(() => withCatalogue(EMPTY_DRAFT, catalogue({ basedOn: at(0), revision: at(1) }))).toThrow(/does not follow/);
  });

  it('replaces a network on a complete update and forgets it without interest', () => {
    let d = withNetwork(EMPTY_DRAFT, update({ complete: true, revision: at(3), blocks: [block('10.0.0.0/28')] }));
    d = withNetwork(d, update({ complete: true, revision: at(4), blocks: [block('10.0.0.16/28')] }));
    expect([...(d.view.interests.get('n1')?.blocks.keys() ?? [])]).toEqual(['10.0.0.16/28']);
    expect(withoutInterest(d, 'n1').view.interests.size).toBe(0);
  });

  it('ends equal however the same changes are cut into increments', () => {
    const op = fc.record({ cidr: fc.constantFrom('10.0.0.0/28', '10.0.0.16/28', '10.0.0.32/28'), gone: fc.boolean() });
    fc.assert(
      fc.property(fc.array(fc.array(op, { maxLength: 5 }), { maxLength: 20 }), (batches) => {
        const model = new Set<string>();
        let d = withNetwork(EMPTY_DRAFT, update({ complete: true, revision: at(1) }));
        let n = 1;
        for (const batch of batches) {
          const before = new Set(model);
          for (const { cidr, gone } of batch) {
            if (gone) model.delete(cidr);
            else model.add(cidr);
          }
          const blocks = [...model].filter((c) => !before.has(c)).map((c) => block(c));
          const removedBlocks = [...before].filter((c) => !model.has(c));
          d = withNetwork(d, update({ basedOn: at(n), revision: at(n + 1), blocks, removedBlocks }));
          n++;
        }
        expect(new Set(d.view.interests.get('n1')?.blocks.keys())).toEqual(model);
      }),
    );
  });

  it('comes back from disk as it was', () => {
    let d = withCatalogue(EMPTY_DRAFT, catalogue({ complete: true, revision: at(5), networks: [network('n1')] }));
    d = withNetwork(
      d,
      update({
        complete: true,
        revision: at(6),
        blocks: [block('10.0.0.0/28')],
        peers: [{ hostId: 'h1', name: 'one', vteps: [{ address: '192.0.2.1', encaps: ['vxlan'] }] }],
        endpoints: [{ id: 'e', networkId: 'n1', hostId: 'h1', ips: ['10.0.0.2'], mac: '02:58:0a:00:00:02' }],
      }),
    );
    expect(decodeView(encodeView(d.view))).toEqual(d.view);
  });
});
