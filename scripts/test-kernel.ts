/**
 * `npm run test:kernel [-- vitest arguments]`: the datapath tests on the kernel's Open vSwitch (datapath_type=system). A kernel
 * without openvswitch boots a guest that has it, and the tests run there; else they run right here.
 */
import { existsSync } from 'node:fs';
import { ensureImage } from '../cli/lab/image.ts';
import { installPackages } from '../cli/lab/packages.ts';
import { WeftError } from '../lib/errors.ts';
import { prepareGuest } from './guest/prepare.ts';
import { runInGuest } from './guest/run.ts';
import { runProgram, seconds } from './steps.ts';

process.exitCode = await main().catch((thrown: unknown) => {
  const error = WeftError.from(thrown);
  console.error(`test:kernel: ${error.message}${error.hint === null ? '' : `\n${error.hint}`}`);
  return 1;
});

async function main(): Promise<number> {
  const since = Date.now();
  const say = (line: string): void => console.log(`test:kernel: ${line}`);
  const here = existsSync('/sys/module/openvswitch');
  await (here ? installPackages(say) : prepareGuest(say));
  // Once, out here, where both are done ten times as fast.
  const built = await runProgram(process.execPath, ['scripts/build.ts'], { show: true });
  if (built.status !== 0) return built.status;
  await ensureImage(say);
  say(here ? 'this kernel has openvswitch' : `booting the guest ${seconds(since)}`);
  const args = ['run', '--project', 'kernel', ...process.argv.slice(2)];
  const { status } = here
    ? await runProgram('vitest', args, { show: true })
    : await runInGuest(['vitest', ...args], {
        timeoutMs: 1_800_000,
        env: process.stdout.isTTY ? { FORCE_COLOR: '1' } : {},
        onStdout: (chunk) => process.stdout.write(chunk),
        onStderr: (chunk) => process.stderr.write(chunk),
      });
  say(`${status === 0 ? 'ok' : 'FAILED'} ${seconds(since)}`);
  return status;
}
