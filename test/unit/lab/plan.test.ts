import { describe, expect, it } from 'vitest';
import { labName, labPaths } from '../../../cli/lab/paths.ts';
import {
  coordinatorAddress,
  emptyPlan,
  etcdAddress,
  grow,
  hostAddress,
  MAX_HOSTS,
  networkOf,
  rootAddress,
  SUBNETS,
} from '../../../cli/lab/plan.ts';

const wanted = (hosts: number, bare = 0, coordinators = 1, etcdMembers = 1) => ({
  hosts,
  bare,
  coordinators,
  etcdMembers,
});
const ids = () => {
  let next = 0;
  return () => (next++).toString(16).padStart(16, '0');
};

describe('the plan of a lab', () => {
  it('grows, and never renames or drops what is there', () => {
    const id = ids();
    const first = grow(emptyPlan('a', 0), wanted(2, 1), id);
    expect(first.hosts.map((host) => [host.name, host.bare])).toEqual([
      ['h1', false],
      ['h2', false],
      ['h3', true],
    ]);
    expect(grow(first, wanted(1, 0), id)).toEqual(first);
    const second = grow(first, wanted(3, 1, 2, 3), id);
    expect(second.hosts.slice(0, 3)).toEqual(first.hosts);
    expect(second.hosts[3]).toMatchObject({ name: 'h4', bare: false });
    expect(second.coordinators.map((member) => member.name)).toEqual(['coord1', 'coord2']);
    expect(second.etcd.length).toBe(3);
    expect(() => grow(first, wanted(MAX_HOSTS + 1), id)).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
  });

  it('keeps where its Docker comes from', () => {
    const id = ids();
    const first = grow(emptyPlan('a', 0), { ...wanted(1), dockerRoot: '/other' }, id);
    expect(first.dockerRoot).toBe('/other');
    expect(grow(first, wanted(2), id).dockerRoot).toBe('/other');
    expect(grow(first, { ...wanted(2), dockerRoot: '/other' }, id).hosts.length).toBe(2);
    const refused = expect.objectContaining({ code: 'FAILED_PRECONDITION', hint: 'weft lab down --name a' });
    expect(() => grow(first, { ...wanted(2), dockerRoot: '/third' }, id)).toThrow(refused);
    expect(() => grow(grow(emptyPlan('a', 0), wanted(1), id), { ...wanted(1), dockerRoot: '/other' }, id)).toThrow(
      refused,
    );
  });

  it('gives every machine of every lab an address of its own', () => {
    const seen = new Set<string>();
    const id = ids();
    for (const subnet of [0, 1, SUBNETS - 1]) {
      const plan = grow(emptyPlan('a', subnet), wanted(600, 0, 9, 9), id);
      const all = [
        networkOf(subnet),
        rootAddress(plan),
        ...plan.hosts.map((host) => hostAddress(plan, host)),
        ...plan.coordinators.map((member) => coordinatorAddress(plan, member.index)),
        ...plan.etcd.map((member) => etcdAddress(plan, member.index)),
      ];
      for (const address of all) {
        expect(address).toMatch(/^198\.1[89]\.\d+\.\d+$/);
        expect(seen.has(address)).toBe(false);
        seen.add(address);
      }
    }
    expect(networkOf(SUBNETS - 1)).toBe('198.19.240.0');
  });
});

describe('names', () => {
  it('come from the flag, then from WEFT_LAB, then are weft', () => {
    expect(labName('a', { WEFT_LAB: 'b' })).toBe('a');
    expect(labName(undefined, { WEFT_LAB: 'b' })).toBe('b');
    expect(labName(undefined, { WEFT_LAB: '' })).toBe('weft');
    for (const bad of ['', 'A', 'a b', '../x', '-a', 'a'.repeat(25)]) {
      expect(() => labName(bad, {})).toThrow(expect.objectContaining({ code: 'INVALID_ARGUMENT' }));
    }
  });

  it('of links fit the kernel, and differ', () => {
    const links = ['weft', 'a'.repeat(12), 'a'.repeat(13), 'a'.repeat(24)].map((name) => labPaths(name).rootLink);
    expect(links.every((link) => link.length <= 15)).toBe(true);
    expect(new Set(links).size).toBe(links.length);
  });
});
