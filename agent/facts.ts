/** What this host is: datapath, VTEP, kernel: read once at start; and the version of Open vSwitch. */
import { access, readFile } from 'node:fs/promises';
import { release } from 'node:os';
import { exec } from '../lib/exec.ts';
import type { Host } from '../lib/model.ts';
import { VERSION } from '../lib/version.ts';
import { appctl } from './ovs/appctl.ts';

/** "auto": the kernel's own datapath where the kernel has one, else the userspace one. */
export async function datapathType(configured: 'auto' | 'system' | 'netdev'): Promise<'system' | 'netdev'> {
  if (configured !== 'auto') return configured;
  const module = await access('/sys/module/openvswitch').then(
    () => true,
    () => false,
  );
  return module ? 'system' : 'netdev';
}

/** MTU of the interface that has the address; 0 = unknown. */
export async function underlayMtu(vtep: string): Promise<number> {
  const r = await exec('ip', ['-j', 'addr', 'show', 'to', `${vtep}/32`]);
  if (r.code !== 0 || r.stdout.trim() === '') return 0;
  const items = JSON.parse(r.stdout) as { mtu?: number; addr_info?: unknown[] }[];
  return items.find((i) => (i.addr_info?.length ?? 0) > 0)?.mtu ?? 0;
}

/** Control socket of the running ovs-vswitchd: with its pid in the name, or as `--unixctl` says where that is not there. */
export async function vswitchdControl(rundir: string): Promise<string> {
  const plain = `${rundir}/ovs-vswitchd.ctl`;
  const pid = await readFile(`${rundir}/ovs-vswitchd.pid`, 'utf8').catch(() => '');
  const named = `${rundir}/ovs-vswitchd.${pid.trim()}.ctl`;
  return access(named).then(
    () => named,
    () => plain,
  );
}

/** Version of the running ovs-vswitchd. `ovs_version` in the database is often not written. @throws when it does not answer */
export async function ovsVersion(rundir: string): Promise<string> {
  const text = await appctl(await vswitchdControl(rundir), 'version', []);
  return /\d+(\.\d+)+/.exec(text)?.[0] ?? '';
}

/** The host's record, without the versions of Docker and Open vSwitch. */
export async function hostRecord(o: {
  id: string;
  name: string;
  vtep: string;
  datapath: string;
  underlayMtu: number;
}): Promise<Host> {
  const kernel = await readFile('/proc/sys/kernel/osrelease', 'utf8').then(
    (text) => text.trim(),
    () => release(),
  );
  return {
    id: o.id,
    name: o.name,
    vteps: [{ address: o.vtep, encaps: ['vxlan'], encrypted: false }],
    datapath: o.datapath,
    versions: { weft: VERSION, kernel },
    draining: false,
    createdAt: '',
    capabilities: ['encap/vxlan'],
    underlayMtu: o.underlayMtu,
    backend: 'ovs-tunnel',
    express: false,
    probes: [],
  };
}
