/** What this host is: datapath, VTEP, kernel: read once at start; and the version of Open vSwitch. */
import { X509Certificate } from 'node:crypto';
import { access, readFile } from 'node:fs/promises';
import { release } from 'node:os';
import { WeftError } from '../lib/errors.ts';
import type { Host, Probe } from '../lib/model.ts';
import { parseIdentity } from '../lib/rpc.ts';
import { VERSION } from '../lib/version.ts';
import { appctl } from './ovs/appctl.ts';
import type { Wiring } from './wiring.ts';

/** As its certificate says. @throws INVALID_ARGUMENT it is not a host's */
export function hostIdOf(cert: string, file: string): string {
  const identity = parseIdentity(new X509Certificate(cert).subjectAltName);
  if (identity?.kind !== 'host')
    throw new WeftError('INVALID_ARGUMENT', `${file} is not a host's certificate`, {
      hint: 'make one with `weft ca host NAME`',
    });
  return identity.name;
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

/** Version and pid: they change when another ovs-vswitchd runs. @throws when it does not answer */
export async function ovsRun(rundir: string): Promise<string> {
  const pid = await readFile(`${rundir}/ovs-vswitchd.pid`, 'utf8').catch(() => '');
  return `${await ovsVersion(rundir)} ${pid.trim()}`.trim();
}

/** The host's record, without the versions of Docker and Open vSwitch. */
/** @param uplinks interfaces that a vlan network could have */
export const capabilitiesOf = (wiring: Wiring, uplinks: readonly string[]): string[] => [
  ...wiring.encaps.map((encap) => `encap/${encap}`),
  'encap/vlan',
  ...uplinks.map((name) => `uplink/${name}`),
];

export async function hostRecord(o: {
  id: string;
  name: string;
  wiring: Wiring;
  probes: readonly Probe[];
  versions: Readonly<Record<string, string>>;
}): Promise<Host> {
  const kernel = await readFile('/proc/sys/kernel/osrelease', 'utf8').then(
    (text) => text.trim(),
    () => release(),
  );
  const { wiring } = o;
  return {
    id: o.id,
    name: o.name,
    vteps: [{ address: wiring.vtep, encaps: [...wiring.encaps], encrypted: false }],
    datapath: wiring.datapathType,
    versions: { weft: VERSION, kernel, ...o.versions },
    draining: false,
    createdAt: '',
    capabilities: capabilitiesOf(wiring, []),
    underlayMtu: wiring.underlayMtu,
    backend: wiring.backend,
    express: wiring.express,
    probes: [...o.probes],
  };
}

/** Tells the userspace switch a neighbour that the kernel knows (ovs-vswitchd(8), "tnl/neigh/set"). */
export const teacher =
  (rundir: string) =>
  async (hop: { readonly device: string; readonly ip: string }, mac: string): Promise<void> => {
    await appctl(await vswitchdControl(rundir), 'tnl/neigh/set', [hop.device, hop.ip, mac]);
  };
