import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { install } from '../../../deploy/install.ts';
import { parseAgentConfig } from '../../../lib/config.ts';
import { codeOf } from '../../../lib/errors.ts';

const DEPLOY = fileURLToPath(new URL('../../../deploy', import.meta.url));
let dir = '';
let root = '';

/** A package with a stand-in for the programs. */
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'weft-install-'));
  root = join(dir, 'root');
  for (const part of ['bin', 'etc']) mkdirSync(join(dir, 'package', part), { recursive: true });
  cpSync(join(DEPLOY, 'systemd'), join(dir, 'package/systemd'), { recursive: true });
  for (const file of ['agent.yaml', 'coordinator.yaml']) cpSync(join(DEPLOY, file), join(dir, 'package/etc', file));
  writeFileSync(join(dir, 'package/bin/weft'), 'version 1');
  mkdirSync(join(dir, 'certs'));
  for (const file of ['ca.crt', 'h7.crt', 'h7.key']) writeFileSync(join(dir, 'certs', file), file);
  chmodSync(join(dir, 'certs/h7.key'), 0o644);
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const run = (...words: string[]): string[] => install(join(dir, 'package'), [...words, '--root', root]);
const agent = ['agent', '--coordinator', '10.0.0.1', '--vtep', '10.0.0.9'];
const text = (path: string): string => readFileSync(join(root, path), 'utf8');

it('puts an agent in place', () => {
  run(...agent, '--certs', join(dir, 'certs'));
  expect(text('opt/weft/bin/weft')).toBe('version 1');
  expect(readlinkSync(join(root, 'usr/local/bin/weft'))).toBe('/opt/weft/bin/weft');
  expect(text('etc/weft/tls/agent.crt')).toBe('h7.crt');
  expect(text('etc/weft/tls/agent.key')).toBe('h7.key');
  expect(statSync(join(root, 'etc/weft/tls/agent.key')).mode & 0o777).toBe(0o600);
  expect(text('etc/weft/agent.yaml')).toContain('\n  vtep: 10.0.0.9\n');
  expect(existsSync(join(root, 'etc/systemd/system/weft-agent.socket'))).toBe(true);
  expect(existsSync(join(root, 'etc/systemd/system/weft-coordinator.service'))).toBe(false);
  expect(JSON.parse(text('etc/docker/daemon.json'))).toEqual({ 'live-restore': true, dns: ['169.254.100.53'] });
});

it.each([
  ['--vtep', '2001:db8::9', { vtep: '2001:db8::9' }],
  ['--underlay', '10.0.0.0/24', { on: '10.0.0.0/24' }],
  ['--underlay', 'eth1', { on: 'eth1' }],
  ['--underlay', '10.0.0.9', { vtep: '10.0.0.9' }],
])('takes %s %s', (flag, value, underlay) => {
  run('agent', '--coordinator', '10.0.0.1', flag, value);
  expect(parseAgentConfig(text('etc/weft/agent.yaml')).underlay).toMatchObject(underlay);
});

it('upgrades programs and keeps configuration and certificates', () => {
  run(...agent, '--certs', join(dir, 'certs'));
  writeFileSync(join(root, 'etc/weft/agent.yaml'), '# mine\n');
  writeFileSync(join(dir, 'package/bin/weft'), 'version 2');
  run('agent');
  expect(text('opt/weft/bin/weft')).toBe('version 2');
  expect(text('etc/weft/agent.yaml')).toBe('# mine\n');
  expect(text('etc/weft/tls/agent.crt')).toBe('h7.crt');
});

it('puts a coordinator in place, without touching Docker', () => {
  run('coordinator', '--certs', join(dir, 'certs'));
  expect(text('etc/weft/coordinator.yaml')).toContain('\netcd: embedded\n');
  expect(existsSync(join(root, 'etc/weft/tls/coordinator.key'))).toBe(true);
  expect(existsSync(join(root, 'etc/docker'))).toBe(false);
});

it.each([
  ['what', []],
  ['the coordinator and VTEP', ['agent']],
  ['a VTEP', ['agent', '--coordinator', '10.0.0.1', '--vtep', 'eth0']],
  ['one underlay', ['agent', '--coordinator', '10.0.0.1', '--vtep', '10.0.0.9', '--underlay', 'eth0']],
  ['an address', ['agent', '--coordinator', ':::', '--vtep', '10.0.0.9']],
])('refuses a command line without %s, and leaves the machine as it was', (_, words) => {
  try {
    run(...words);
    expect.unreachable();
  } catch (error) {
    expect(codeOf(error)).toBe('INVALID_ARGUMENT');
  }
  expect(existsSync(root)).toBe(false);
});

it('refuses a directory of certificates that does not say which is meant', () => {
  writeFileSync(join(dir, 'certs/h8.crt'), '');
  expect(() => run(...agent, '--certs', join(dir, 'certs'))).toThrow(/must hold ca\.crt, agent\.crt and agent\.key/);
  expect(existsSync(root)).toBe(false);
});
