import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { afterAll, expect, it } from 'vitest';
import { agentConfig, coordinatorConfig, writeConfig } from '../../../cli/lab/config.ts';
import { removeContext, writeContext } from '../../../cli/lab/context.ts';
import { labPaths, nodePaths } from '../../../cli/lab/paths.ts';
import { emptyPlan, grow } from '../../../cli/lab/plan.ts';
import { parseAgentConfig, parseCoordinatorConfig } from '../../../lib/config.ts';

const dir = mkdtempSync(`${tmpdir()}/weft-lab-config-`);
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const tls = { ca: '/t/ca.crt', cert: '/t/h1.crt', key: '/t/h1.key' };
const plan = grow(emptyPlan('a', 0), { hosts: 1, bare: 0, coordinators: 2, etcdMembers: 1 }, () => '00000000000000aa');
const host = plan.hosts[0]!;
const node = { ...nodePaths('a', 'h1'), state: dir };

it('is what agent and coordinator read', () => {
  const agent = readFileSync(
    writeConfig(`${dir}/agent.yaml`, agentConfig(plan, host, node, tls), 'coordinators'),
    'utf8',
  );
  expect(parseAgentConfig(agent)).toMatchObject({
    name: 'h1',
    coordinators: ['198.18.15.1:7470', '198.18.15.2:7470'],
    heal: true,
  });
  const file = writeConfig(`${dir}/coordinator.yaml`, coordinatorConfig(plan, 1, node, tls), 'etcd');
  expect(parseCoordinatorConfig(readFileSync(file, 'utf8'))).toMatchObject({
    listen: ['198.18.15.1:7470'],
    etcd: { endpoints: ['http://198.18.15.101:2379'] },
  });
});

it('keeps what somebody changed by hand, and follows the lab as it grows', () => {
  const file = writeConfig(`${dir}/edited.yaml`, agentConfig(plan, host, node, tls), 'coordinators');
  writeFileSync(file, readFileSync(file, 'utf8').replace('heal: true', 'heal: false # a test'));
  const grown = grow(plan, { hosts: 1, bare: 0, coordinators: 3, etcdMembers: 1 }, () => '');
  writeConfig(file, agentConfig(grown, host, node, tls), 'coordinators');
  const text = readFileSync(file, 'utf8');
  expect(text).toContain('heal: false # a test');
  expect(parseAgentConfig(text)).toMatchObject({ heal: false, coordinators: { length: 3 } });
});

it('has a context file that only its own lab removes', () => {
  const file = `${dir}/context.json`;
  writeContext(file, labPaths('a'), plan);
  removeContext(file, 'b');
  expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({
    lab: 'a',
    coordinators: ['198.18.15.1:7470', '198.18.15.2:7470'],
  });
  removeContext(file, 'a');
  removeContext(file, 'a');
  expect(() => readFileSync(file)).toThrow(expect.objectContaining({ code: 'ENOENT' }));
});
