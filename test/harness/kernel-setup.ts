/** The lab of the kernel's datapath: two hosts and one coordinator, as the guest has one processor. */
import { weftJson } from './lab.ts';
import { setup } from './lab-setup.ts';

export default async function setupKernel(): Promise<() => Promise<void>> {
  const down = await setup('--hosts', '2', '--coordinators', '1');
  const hosts = await weftJson<{ name: string; datapath: string }[]>('host', 'ls');
  const other = hosts.filter((host) => host.datapath !== 'system').map((host) => `${host.name}: ${host.datapath}`);
  if (other.length === 0) return down;
  await down();
  throw new Error(`not on the kernel's datapath: ${other.join(', ')}; run these tests by npm run test:kernel`);
}
