/** Brings up the lab of the workloads, three hosts with an agent and one without, with their image on each; and removes it. */
import { basename } from 'node:path';
import { ensureWorkloadsImage, IMPORT_CHANGES, WORKLOADS_IMAGE } from '../../scripts/workloads-image.ts';
import { docker, weftOk } from '../harness/lab.ts';
import { setup } from '../harness/lab-setup.ts';
import { BRIDGE_SITE, clear, NETWORK, WEFT_SITE } from './sites.ts';

export default async (): Promise<() => Promise<void>> => {
  const tar = await ensureWorkloadsImage((line) => console.log(`workloads: ${line}`));
  const down = await setup('--hosts', '3', '--bare', '1');
  try {
    await Promise.all(['h1', 'h2', 'h3', 'h4'].map((host) => importImage(host, tar)));
    // A lab that was there before may have the network, and what an interrupted run left.
    for (const site of [WEFT_SITE, BRIDGE_SITE]) await clear(site);
    const networks = JSON.parse(await weftOk('network', 'ls', '--json')) as { name: string }[];
    if (!networks.some(({ name }) => name === NETWORK)) await weftOk('network', 'create', NETWORK);
    await weftOk('wait');
    if ((await docker('h4', 'network', 'ls', '-q', '--filter', `name=^${NETWORK}$`)) === '') {
      await docker('h4', 'network', 'create', NETWORK);
    }
  } catch (error) {
    await down();
    throw error;
  }
  return down;
};

/** A lab that was there before may have the image of another recipe. */
async function importImage(host: string, tar: string): Promise<void> {
  const label = `weft.made-of=${basename(tar)}`;
  if ((await docker(host, 'image', 'ls', '-q', '--filter', `label=${label}`, WORKLOADS_IMAGE)) !== '') return;
  const changes = [...IMPORT_CHANGES, `LABEL ${label}`].flatMap((change) => ['--change', change]);
  await docker(host, 'import', ...changes, tar, WORKLOADS_IMAGE);
}
