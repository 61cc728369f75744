import { existsSync } from 'node:fs';
import {
  type Ca,
  createCa,
  issueCoordinator,
  issueHost,
  issueUser,
  readCa,
  type TlsFiles,
  type TlsMaterial,
  writeKeyPair,
} from '../../lib/tls.ts';
import type { LabPaths } from './paths.ts';
import { coordinatorAddress, type LabPlan } from './plan.ts';

/** The lab's certificates: one authority per lab, a pair for each host, coordinator and for the user of the CLI. */
export const USER = 'admin';

/** Files of one end, by its name: h1, coord1, admin. */
export const tlsFiles = (lab: LabPaths, name: string): TlsFiles => ({
  ca: `${lab.tls}/ca.crt`,
  cert: `${lab.tls}/${name}.crt`,
  key: `${lab.tls}/${name}.key`,
});

/** Makes what is missing; what is there stays valid. */
export async function ensureCerts(lab: LabPaths, plan: LabPlan): Promise<void> {
  const ca = await ensureCa(lab);
  const ensure = async (name: string, issue: () => Promise<TlsMaterial>): Promise<void> => {
    // The certificate is written last, so it stands for both.
    if (!existsSync(tlsFiles(lab, name).cert)) await writeKeyPair(lab.tls, name, await issue());
  };
  await Promise.all([
    ensure(USER, () => issueUser(ca, USER)),
    ...plan.coordinators.map((member) =>
      ensure(member.name, () => issueCoordinator(ca, member.name, [coordinatorAddress(plan, member.index)])),
    ),
    ...plan.hosts
      .filter((host) => !host.bare)
      .map((host) => ensure(host.name, () => issueHost(ca, host.id, host.name))),
  ]);
}

async function ensureCa(lab: LabPaths): Promise<Ca> {
  if (existsSync(`${lab.tls}/ca.crt`)) return readCa(lab.tls);
  const ca = await createCa({ name: `weft lab ${lab.name}` });
  await writeKeyPair(lab.tls, 'ca', ca);
  return ca;
}
