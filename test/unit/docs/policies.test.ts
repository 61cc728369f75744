/** The examples of docs/policies.md are policies: the CLI reads them, and a coordinator takes them. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { HOLD, MOST } from '../../../agent/policies/name-table.ts';
import { parsePolicies } from '../../../cli/policy-yaml.ts';
import { checkPolicy, MAX_POLICIES, MAX_POLICY_SIZE } from '../../../coordinator/alloc/policies.ts';
import { MAX_EXCEPT, MAX_PEERS, MAX_PORTS, MAX_RULES } from '../../../coordinator/alloc/policy-rules.ts';
import { DEFAULT_ORDER, DEFAULT_TIER, MAX_LEVEL, ORDERS, TIERS } from '../../../lib/policy-order.ts';
import { aNetworkRecord } from '../coordinator/samples.ts';

const page = readFileSync(new URL('../../../docs/policies.md', import.meta.url), 'utf8');
const examples = [...page.matchAll(/^```yaml\n([\s\S]*?)^```/gm)].map(([, text = '']) => text);

test('there are some', () => {
  expect(examples.length).toBeGreaterThan(3);
});

test.each(examples)('%s', (text) => {
  const networkOf = (name: string) => aNetworkRecord(name, { name });
  for (const { network, policy } of parsePolicies(text, 'docs/policies.md')) {
    const made = checkPolicy({ services: new Map(), networkOf }, networkOf(network), policy!);
    expect(made.name).toBe(policy?.name);
  }
});

test('limits and defaults are as the page says', () => {
  expect(page).toContain(
    `more than ${MAX_RULES} rules in a direction, ${MAX_PEERS} peers or ${MAX_PORTS} ports in a rule, ${MAX_EXCEPT} exceptions of a range; an action that changes more than ${MAX_LEVEL} times`,
  );
  expect(page).toContain(`${MAX_POLICIES.toLocaleString('en')} policies in a network`);
  expect(page).toContain(`more than ${MAX_POLICY_SIZE / 1024} KiB`);
  expect(page).toContain(`0 to ${ORDERS - 1}, lower ones first (default ${DEFAULT_ORDER})`);
  const { answer, name, host } = MOST;
  expect(page).toContain(
    `Of one answer the first ${answer} addresses are taken; of a name (or all names below one), in one network, ${name} are held, and of a host ${host.toLocaleString('en')}.`,
  );
  expect(HOLD).toEqual({ least: 60_000, most: 3_600_000 });
  expect(page).toContain('at least a minute and at most an hour');
  expect(page).toContain(
    TIERS.map((tier) => (tier === DEFAULT_TIER ? `\`${tier}\` (default)` : `\`${tier}\``))
      .join(', ')
      .replace(/, ([^,]*)$/, ' or $1'),
  );
});
