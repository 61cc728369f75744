import { existsSync, readdirSync } from 'node:fs';
import { installPackages, type Need, which } from '../../cli/lab/packages.ts';
import { WeftError } from '../../lib/errors.ts';

/** The guest's kernel with its modules, and the iptables that this kernel (no nf_tables) can serve. */
const NEEDS: readonly Need[] = [
  { name: 'user-mode-linux', files: ['linux.uml'] },
  { name: 'iptables', files: ['xtables-legacy-multi'] },
];
const MODULES = '/usr/lib/uml/modules';

/**
 * Installs what a guest and a lab in it need. The guest sees this machine's files: there is nothing to build.
 * @throws FAILED_PRECONDITION when this machine cannot have a guest.
 */
export async function prepareGuest(say: (line: string) => void): Promise<void> {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw impossible(`User-Mode Linux runs on Linux on x86-64, not on ${process.platform} on ${process.arch}`);
  }
  if (process.getuid?.() !== 0) throw new WeftError('FAILED_PRECONDITION', 'A guest is started by root only.');
  await installPackages(say);
  if (which('linux.uml') === null || which('xtables-legacy-multi') === null) {
    await installPackages(say, NEEDS).catch((error: unknown) => {
      throw impossible(`Debian’s package user-mode-linux cannot be installed (${WeftError.from(error).message})`);
    });
  }
  const kernels = existsSync(MODULES) ? readdirSync(MODULES) : [];
  const able = kernels.some((kernel) => existsSync(`${MODULES}/${kernel}/kernel/net/openvswitch/openvswitch.ko`));
  if (!able) throw impossible(`the kernel of user-mode-linux has no openvswitch below ${MODULES}`);
}

const impossible = (why: string): WeftError =>
  new WeftError('FAILED_PRECONDITION', `There can be no guest on this machine: ${why}.`, {
    hint: 'On a machine whose own kernel has openvswitch, npm run test:kernel needs no guest.',
  });
