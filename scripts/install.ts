import { installPackages } from '../cli/lab/packages.ts';
import { WeftError } from '../lib/errors.ts';

/** Installs the Debian packages that the lab needs and that are missing; no service is started. */
try {
  const installed = await installPackages((line) => console.error(`install: ${line}`));
  console.error(installed.length === 0 ? 'install: nothing to do' : `install: installed ${installed.join(' ')}`);
} catch (thrown) {
  const error = WeftError.from(thrown);
  console.error(`install: ${error.message}${error.hint === null ? '' : `\n${error.hint}`}`);
  process.exitCode = 1;
}
