/** The units as systemd reads them. Nothing is started: systemd-analyze needs no running systemd. */
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { exec } from '../../../lib/exec.ts';

const UNITS = fileURLToPath(new URL('../../../deploy/systemd', import.meta.url));
const installed = await exec('systemd-analyze', ['--version']).then(
  (r) => r.code === 0,
  () => false,
);
const unit = (name: string): string => readFileSync(join(UNITS, name), 'utf8');

describe.skipIf(!installed)('systemd-analyze', () => {
  let root = '';
  beforeAll(() => {
    // A root of its own: the programs are where the units look for them, and the machine's own units do not matter.
    root = mkdtempSync(join(tmpdir(), 'weft-units-'));
    for (const dir of ['opt/weft/bin', 'etc/systemd/system', 'lib/systemd'])
      mkdirSync(join(root, dir), { recursive: true });
    writeFileSync(join(root, 'opt/weft/bin/weft'), '#!/bin/sh\n', { mode: 0o755 });
    cpSync('/lib/systemd/system', join(root, 'lib/systemd/system'), { recursive: true, verbatimSymlinks: true });
    cpSync(UNITS, join(root, 'etc/systemd/system'), { recursive: true });
  });
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  it('finds nothing to say about the units', async () => {
    const files = readdirSync(UNITS).map((name) => join(root, 'etc/systemd/system', name));
    expect(files).toHaveLength(3);
    const r = await exec('systemd-analyze', ['verify', '--man=no', `--root=${root}`, ...files]);
    expect(r.stdout + r.stderr).toBe('');
    expect(r.code).toBe(0);
  });

  it('finds a mistake when there is one', async () => {
    const broken = join(root, 'etc/systemd/system/weft-broken.service');
    writeFileSync(broken, unit('weft-coordinator.service').replace('KillMode=mixed', 'KillMode=mixd'));
    const r = await exec('systemd-analyze', ['verify', '--man=no', `--root=${root}`, broken]);
    rmSync(broken);
    expect(r.stderr).toMatch(/kill mode/i);
  });
});

describe('units', () => {
  it('let Docker wait for the agent', () => {
    const socket = unit('weft-agent.socket');
    for (const line of ['ListenStream=/run/docker/plugins/weft.sock', 'SocketMode=0600', 'Before=docker.service'])
      expect(socket.split('\n')).toContain(line);
    const agent = unit('weft-agent.service').split('\n');
    for (const line of ['Before=docker.service', 'Requires=weft-agent.socket', 'Restart=always'])
      expect(agent).toContain(line);
  });
  it('let the agent load and pin the kernel side', () => {
    const agent = unit('weft-agent.service');
    const set = /^CapabilityBoundingSet=(.*)$/m.exec(agent)?.[1]?.split(' ') ?? [];
    expect(set).toEqual(expect.arrayContaining(['CAP_NET_ADMIN', 'CAP_SYS_ADMIN']));
    // Each would make /sys/fs/bpf read-only, or bpf(2) fail.
    expect(agent).not.toMatch(
      /^(ProtectKernelTunables=yes|ProtectSystem=strict|SystemCallFilter=|RestrictNamespaces=)/m,
    );
  });
});
