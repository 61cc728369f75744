/** The checksum probe in a real Open vSwitch: right with userspace TSO, found wrong without it, and nothing of it stays. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startOvs, type TestOvs } from '../../harness/ovs.ts';

const PROCESS = fileURLToPath(new URL('../../harness/checksum-process.ts', import.meta.url));

const EACH = ['TCP over IPv4', 'TCP over IPv6', 'UDP over IPv4', 'UDP over IPv6'];
const ALL = { plain: EACH, rewritten: EACH };

describe('checksum probe', () => {
  let ovs: TestOvs;
  beforeAll(async () => {
    ovs = await startOvs({ vswitchd: false });
    await ovs.vsctl('--no-wait', 'set', 'Open_vSwitch', '.', 'other_config:userspace-tso-enable=true');
    await ovs.start('ovs-vswitchd');
  });
  afterAll(async () => {
    await ovs[Symbol.asyncDispose]();
  });
  const probe = async (...version: string[]): Promise<Record<string, unknown>> =>
    JSON.parse(await ovs.exec(process.execPath, PROCESS, ovs.dir, join(ovs.dir, 'probe.json'), ...version)) as Record<
      string,
      unknown
    >;
  const nothingStays = async (): Promise<void> => {
    expect((await ovs.vsctl('list-br')).trim()).toBe('');
    const links = JSON.parse(await ovs.exec('ip', '-j', 'link')) as { ifname: string }[];
    expect(links.map((link) => link.ifname).filter((name) => name.startsWith('weft'))).toEqual([]);
    const machines = readdirSync('/proc').filter((pid) => {
      try {
        return /^\d+$/.test(pid) && readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('probe/checksum.pl\0');
      } catch {
        return false; // ended meanwhile
      }
    });
    expect(machines).toEqual([]);
  };

  it('finds nothing wrong where segments are taken as they are', async () => {
    expect(await probe()).toMatchObject({ wrong: { plain: [] } });
    await nothingStays();
  });

  it('removes what a probe that was cut short has left', async () => {
    await ovs.vsctl('add-br', 'weft-probe', '--', 'set', 'bridge', 'weft-probe', 'datapath_type=netdev');
    await ovs.vsctl('add-port', 'weft-probe', 'weft-probe-c');
    expect(await probe()).toMatchObject({ wrong: { plain: [] } });
    await nothingStays();
  });

  it('asks once for a version', async () => {
    expect(await probe('3.1')).toMatchObject({ wrong: { plain: [] } });
    const kept = readFileSync(join(ovs.dir, 'probe.json'), 'utf8');
    expect(await probe('3.1')).toMatchObject({ wrong: { plain: [] } });
    expect(readFileSync(join(ovs.dir, 'probe.json'), 'utf8')).toBe(kept);
    expect(await probe('3.2')).toMatchObject({ wrong: { plain: [] } });
    expect(readFileSync(join(ovs.dir, 'probe.json'), 'utf8')).not.toBe(kept);
  });

  it('finds what is wrong where they are not', async () => {
    await ovs.vsctl('set', 'Open_vSwitch', '.', 'other_config:userspace-tso-enable=false');
    await ovs.kill('ovs-vswitchd');
    await ovs.start('ovs-vswitchd');
    const found = await probe();
    expect(found['wrong']).toEqual(ALL);
    expect(found['seen']).toBeGreaterThan(0);
    expect(await probe('3.1-off')).toMatchObject({ wrong: ALL });
    await nothingStays();
  });
});
