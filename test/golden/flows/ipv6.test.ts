import { expect, it } from 'vitest';
import { render } from '../../../agent/flows/memo.ts';
import { formatFlow } from '../../../agent/openflow/format.ts';
import { IPV6_MODEL } from '../../harness/flow-models.ts';

const flows = [...render(IPV6_MODEL, new Map()).values()].map(formatFlow).sort();

it('renders IPv6 beside IPv4, and alone, as written down', async () => {
  await expect(`${flows.join('\n')}\n`).toMatchFileSnapshot('ipv6.flows');
});

it('adds flows to the host of an endpoint only', () => {
  const [first, second] = IPV6_MODEL.networks;
  const one = { ...first!, locals: first!.locals.slice(0, 1) };
  const fewer = [...render({ ...IPV6_MODEL, networks: [one, second!] }, new Map()).keys()];
  // Port security 12 + 4, answers 4 + 2 and what goes before them 2 + 1, delivery 2, classification 1.
  expect(flows.length - fewer.length).toBeLessThanOrEqual(32);
});

it('hands solicitations to who has the address where the datapath cannot answer them', async () => {
  const relayed = [...render({ ...IPV6_MODEL, relaysNd: true }, new Map()).values()].map(formatFlow).sort();
  expect(relayed.filter((f) => /nd_reserved|nd_options_type/.test(f))).toEqual([]);
  const questions = relayed.filter((f) => f.includes('icmp_type=135') && f.includes('table=8'));
  await expect(`${questions.join('\n')}\n`).toMatchFileSnapshot('ipv6-relayed.flows');
});
