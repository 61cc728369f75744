/** The kernel side as it was built with this agent. */
import { fileURLToPath } from 'node:url';
import { BpfDriver } from './driver.ts';
import { BpfHelper } from './helper.ts';

/** @param directory where maps and programs are pinned */
export function kernelDriver(directory: string): BpfDriver {
  // From a clone the sources are run, and the build is beside them.
  const built = import.meta.url.endsWith('.ts') ? '../../dist/datapath/' : './datapath/';
  const file = (name: string): string => fileURLToPath(new URL(built + name, import.meta.url));
  return new BpfDriver({ helper: new BpfHelper([file('weft-bpf')]), object: file('weft.bpf.o'), pins: directory });
}
