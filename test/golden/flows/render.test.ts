import { describe, expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import type { BridgeModel } from '../../../agent/flows/model.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { parseCidr, parseIp } from '../../../lib/ip.ts';
import { macOfIp, parseMac } from '../../../lib/mac.ts';

const local = (ofport: number, ip: string, mac = macOfIp(ip)) => ({ ofport, ip: parseIp(ip), mac: parseMac(mac) });

/** Two networks; in the first another host has a block, a given MAC, and an address out of this host's block. */
const MODEL: BridgeModel = {
  tunnel: 1,
  networks: [
    {
      index: 1,
      vni: 4096,
      locals: [local(2, '10.128.0.2'), local(3, '10.128.0.3', '02:42:00:00:00:03')],
      remotes: [
        { vtep: parseIp('192.0.2.2'), blocks: [parseCidr('10.128.0.32/27')], entries: [] },
        {
          vtep: parseIp('192.0.2.3'),
          blocks: [],
          entries: [{ ip: parseIp('10.128.0.9'), mac: parseMac(macOfIp('10.128.0.9')) }],
        },
      ],
    },
    { index: 2, vni: 4097, locals: [local(4, '10.128.16.2')], remotes: [] },
    { index: 3, vni: 4098, locals: [], remotes: [{ vtep: parseIp('192.0.2.2'), blocks: [], entries: [] }] },
  ],
};

const text = (model: BridgeModel): string[] => [...render(model, new Map()).values()].map(formatFlow).sort();

describe('the pipeline', () => {
  it('renders two networks as written down', async () => {
    await expect(`${text(MODEL).join('\n')}\n`).toMatchFileSnapshot('two-networks.flows');
  });

  it('has only the base without networks, and no way in or out without a tunnel', async () => {
    await expect(`${text({ tunnel: 1, networks: [] }).join('\n')}\n`).toMatchFileSnapshot('empty.flows');
    const closed = text({ ...MODEL, tunnel: null });
    expect(closed.filter((line) => line.includes('tun_'))).toEqual([]);
  });

  it('gives no flow to a network without a local endpoint', () => {
    expect(text(MODEL).filter((line) => line.includes('4098') || line.includes('reg0=0x3'))).toEqual([]);
  });

  it('renders again only what changed, with the same result', () => {
    const memo = new Map();
    const first = render(MODEL, memo);
    const more: BridgeModel = {
      ...MODEL,
      networks: MODEL.networks.map((n) =>
        n.index === 2 ? { ...n, locals: [...n.locals, local(5, '10.128.16.3')] } : n,
      ),
    };
    const second = render(more, memo);
    expect([...second.values()].map(formatFlow).sort()).toEqual(text(more));
    const kept = [...first].filter(([key, flow]) => second.get(key) === flow).length;
    expect(kept).toBeGreaterThan(first.size - 9);
  });
});
