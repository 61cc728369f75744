/**
 * `npm run test:all`: npm test, with everything that is repeated as often as it ever is, then the lab's tests that concern Docker once more, on hosts with Docker 26.1 (of Debian 13)
 * instead of this machine's.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT, runProgram, seconds } from './steps.ts';

/** Those in which dockerd's version can make a difference. */
const DOCKER_TESTS = ['reach', 'docker', 'attach', 'connect', 'autonomy', 'crash', 'drift', 'allocate'] as const;

process.exitCode = await main();

async function main(): Promise<number> {
  process.env['WEFT_TEST_FULL'] = '1';
  const own = await test('npm test', []);
  const files = DOCKER_TESTS.map((name) => `test/e2e/${name}.test.ts`).filter((file) => existsSync(join(ROOT, file)));
  const root = await dockerRoot();
  if (root !== null) process.env['WEFT_TEST_DOCKER_ROOT'] = root;
  const other = root !== null && (await test('Docker 26.1', ['--project', 'lab', ...files]));
  console.log(`test:all: npm test ${word(own)}, Docker 26.1 ${word(other)}`);
  return own && other ? 0 : 1;
}

const word = (ok: boolean): string => (ok ? 'ok' : 'FAILED');

async function test(what: string, args: readonly string[]): Promise<boolean> {
  const since = Date.now();
  const { status } = await runProgram(process.execPath, ['scripts/test.ts', ...args], { show: true });
  console.log(`test:all: ${what} ${word(status === 0)} ${seconds(since)}`);
  return status === 0;
}

/** Directory of Debian 13's root file system, or null when it could not be made: the script has said why. */
async function dockerRoot(): Promise<string | null> {
  const script = promisify(execFile)(process.execPath, ['scripts/docker-root.ts'], { cwd: ROOT });
  script.child.stderr?.pipe(process.stderr);
  return script.then(
    ({ stdout }) => stdout.trim(),
    () => null,
  );
}
