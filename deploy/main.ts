/** install.mjs of the package: `install …` and `uninstall [--purge]`. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WeftError } from '../lib/errors.ts';
import { install } from './install.ts';
import { uninstall } from './uninstall.ts';

const [verb, ...words] = process.argv.slice(2);
const say = (line: string): boolean => process.stdout.write(`weft: ${line}\n`);
try {
  if (process.getuid?.() !== 0) throw new WeftError('PERMISSION_DENIED', `${verb} needs root.`, { hint: 'sudo …' });
  if (verb === 'uninstall') {
    const unknown = words.find((word) => word !== '--purge');
    if (unknown !== undefined)
      throw new WeftError('INVALID_ARGUMENT', `uninstall knows no “${unknown}”.`, {
        hint: 'Usage: uninstall [--purge]',
      });
    const paths = { dockerSocket: '/var/run/docker.sock', pluginSocket: '/run/docker/plugins/weft.sock' };
    await uninstall(paths, words.includes('--purge'), say);
  } else {
    const said = install(dirname(fileURLToPath(import.meta.url)), words);
    for (const line of said) say(line);
    if (said.some((line) => line.startsWith('set live-restore'))) reloadDocker();
  }
} catch (thrown) {
  const error = WeftError.from(thrown);
  process.stderr.write(`${verb}: ${error.message}\n${error.hint === null ? '' : `${error.hint}\n`}`);
  process.exitCode = 1;
}

/** The one thing that is done to a running daemon: dockerd reads daemon.json again (SIGHUP); containers do not notice. */
function reloadDocker(): void {
  if (!existsSync('/run/systemd/system') || words.includes('--root')) return;
  try {
    execFileSync('systemctl', ['reload', 'docker.service'], { stdio: 'ignore' });
    say('dockerd has read it');
  } catch {
    say('dockerd does not run; it will read it when it starts');
  }
}
