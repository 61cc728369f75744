import { hostname } from 'node:os';
import { expect, test } from 'vitest';
import { loadAgentConfig, parseAgentConfig, parseCoordinatorConfig } from '../../../lib/config.ts';
import { WeftError } from '../../../lib/errors.ts';

const MINIMAL = 'name: h1\ncoordinators: [10.0.0.1]\nunderlay: {vtep: 192.0.2.1}\n';

const message = (parse: () => unknown): string => {
  try {
    parse();
  } catch (error) {
    expect(error).toMatchObject({ code: 'INVALID_ARGUMENT' });
    return WeftError.from(error).message;
  }
  return 'accepted';
};

test('an agent’s defaults', () => {
  expect(parseAgentConfig(MINIMAL)).toEqual({
    name: 'h1',
    coordinators: ['10.0.0.1:7470'],
    tls: { ca: '/etc/weft/tls/ca.crt', cert: '/etc/weft/tls/agent.crt', key: '/etc/weft/tls/agent.key' },
    stateDir: '/var/lib/weft',
    runDir: '/run/weft',
    pluginSocket: '/run/docker/plugins/weft.sock',
    agentSocket: '/run/weft/agent.sock',
    dockerSocket: '/var/run/docker.sock',
    ovs: { db: '/var/run/openvswitch/db.sock', rundir: '/var/run/openvswitch' },
    datapath: 'auto',
    underlay: { vtep: '192.0.2.1', mtu: null, shape: null },
    metrics: '127.0.0.1:7472',
    resolvConf: '/etc/resolv.conf',
    log: { level: 'info', file: null },
    heal: true,
    backend: 'auto',
    express: true,
    bpfDir: '/sys/fs/bpf/weft',
    tunnel: { ttl: 64, dscp: 'inherit', checksum: false },
    vxlanPort: 4789,
    genevePort: 6081,
  });
});

test('the underlay by address, CIDR or interface', () => {
  const of = (underlay: string) => parseAgentConfig(`name: h1\ncoordinators: a\nunderlay: ${underlay}\n`).underlay;
  const none = { mtu: null, shape: null };
  expect(of('192.0.2.1')).toEqual({ vtep: '192.0.2.1', ...none });
  expect(of('"2001:DB8::0:1"')).toEqual({ vtep: '2001:db8::1', ...none });
  expect(of('192.0.2.0/24')).toEqual({ on: '192.0.2.0/24', ...none });
  expect(of('{on: eth1, mtu: 9000}')).toEqual({ ...none, on: 'eth1', mtu: 9000 });
  expect(() => of('{on: eth1, vtep: 192.0.2.1}')).toThrow(/either vtep or on/);
});

test('the rate that the underlay is shaped to: the file’s, or the flag’s', () => {
  const of = (underlay: string, shape?: string) =>
    parseAgentConfig(`name: h1\ncoordinators: a\nunderlay: ${underlay}\n`, 'f', { shape }).underlay;
  expect(of('{vtep: 192.0.2.1, shape: 950mbit}')).toEqual({ vtep: '192.0.2.1', mtu: null, shape: 950_000_000 });
  expect(of('{on: eth1, shape: none}').shape).toBe(null);
  expect(of('{on: eth1, shape: null}').shape).toBe(null);
  expect(of('eth1', '1gbit')).toEqual({ on: 'eth1', mtu: null, shape: 1e9 });
  expect(of('{vtep: 192.0.2.1, mtu: 1400, shape: 1gbit}', 'none')).toEqual({
    vtep: '192.0.2.1',
    mtu: 1400,
    shape: null,
  });
  for (const text of ['950', '999kbit', '101gbit', 'fast'])
    expect(message(() => of(`{on: eth1, shape: ${text}}`))).toMatch(/^f: underlay\.shape must be a rate from 1mbit/);
  expect(message(() => of('eth1', '900kbit'))).toBe(
    '--shape-underlay takes a rate from 1mbit to 100gbit, not "900kbit".',
  );
});

test('the agent’s socket is in its run directory', () => {
  expect(parseAgentConfig(`${MINIMAL}runDir: /x\n`).agentSocket).toBe('/x/agent.sock');
  expect(parseAgentConfig(`${MINIMAL}runDir: /x\nagentSocket: /y.sock\nmetrics: null\n`)).toMatchObject({
    agentSocket: '/y.sock',
    metrics: null,
  });
});

test('a coordinator’s defaults and overrides', () => {
  expect(parseCoordinatorConfig('name: c1\netcd: embedded\n')).toMatchObject({
    listen: ['0.0.0.0:7470'],
    advertise: `${hostname()}:7470`,
    metrics: '127.0.0.1:7471',
    etcd: 'embedded',
  });
  const text = 'listen: [10.0.0.1:17470]\netcd: embedded\n';
  expect(parseCoordinatorConfig(text, 'f', { etcd: { endpoints: ['http://a:2379'] } })).toMatchObject({
    advertise: '10.0.0.1:17470',
    etcd: { endpoints: ['http://a:2379'], tls: null },
  });
});

test('one address may stand without a list', () => {
  expect(parseCoordinatorConfig('listen: 10.0.0.1\netcd: embedded\n').listen).toEqual(['10.0.0.1:7470']);
});

test.each([
  ['', 'f: coordinators is missing; underlay is missing.'],
  [`${MINIMAL}heel: true\n`, 'f: unknown key heel.'],
  [`${MINIMAL}heal: "yes"\n`, 'f: heal must be true or false, and is "yes".'],
  [`${MINIMAL}log: {level: loud}\n`, 'f: log.level must be trace, debug, info, warn or error, and is "loud".'],
  [`${MINIMAL}vxlanPort: 70000\n`, 'f: vxlanPort must be a port number from 1 to 65535, and is 70000.'],
  [
    'name: h1\ncoordinators: [a]\nunderlay: {vtep: 1.2.3}\n',
    'f: underlay.vtep must be an IPv4 or IPv6 address, and is "1.2.3".',
  ],
  [
    'name: h1\ncoordinators: ["a:b"]\nunderlay: {vtep: 1.2.3.4, x: 1}\n',
    'f: coordinators.0 must be an address host:port, and is "a:b"; unknown key underlay.x.',
  ],
  [
    'name: h1\ncoordinators: []\nunderlay: {vtep: 1.2.3.4}\n',
    'f: coordinators must be at least one address, and is [].',
  ],
  ['- a', 'f must be a map of keys and values.'],
  [`${MINIMAL}name: h2\n`, expect.stringContaining('f is not YAML: Map keys must be unique at line 4')],
])('agent.yaml %j', (text, expected) => {
  expect(message(() => parseAgentConfig(text, 'f'))).toEqual(expected);
});

test.each([
  ['', 'f: etcd is missing.'],
  [
    'etcd: local',
    'f: etcd must be "embedded", or a map with endpoints (URLs such as http://192.0.2.1:2379) and tls, and is "local".',
  ],
])('coordinator.yaml %j', (text, expected) => {
  expect(message(() => parseCoordinatorConfig(text, 'f'))).toBe(expected);
});

test('a file that is not there is named', async () => {
  await expect(loadAgentConfig('/nonexistent/agent.yaml')).rejects.toMatchObject({
    code: 'NOT_FOUND',
    message: expect.stringContaining('/nonexistent/agent.yaml'),
  });
});
