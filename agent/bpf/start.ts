/** The kernel side as it was built with this agent: one object or the other. */
import { fileURLToPath } from 'node:url';
import { BpfDriver } from './driver.ts';
import { SERVICE_MAPS } from './encode.ts';
import { BpfHelper } from './helper.ts';
import type { BpfSide } from './model.ts';

/** @param directory where maps and programs are pinned */
export function kernelDriver(directory: string, side: BpfSide): BpfDriver {
  // From a clone the sources are run, and the build is beside them.
  const built = import.meta.url.endsWith('.ts') ? '../../dist/datapath/' : './datapath/';
  const file = (name: string): string => fileURLToPath(new URL(built + name, import.meta.url));
  const helper = new BpfHelper([file('weft-bpf')]);
  if (side === 'forward') return new BpfDriver({ helper, object: file('weft.bpf.o'), pins: directory });
  return new BpfDriver({ helper, object: file('services.bpf.o'), maps: SERVICE_MAPS, pins: directory });
}
