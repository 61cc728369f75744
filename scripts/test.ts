/**
 * `npm test [-- vitest arguments]`: installs what is missing, builds, runs the unit, integration and lab suites one after
 * another. The last line says how many passed and failed.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runProgram, seconds } from './steps.ts';

/** The part of vitest's JSON report that is counted. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly testResults: readonly { readonly status: string; readonly assertionResults: readonly unknown[] }[];
}

interface Count {
  passed: number;
  failed: number;
  skipped: number;
}

const args = process.argv.slice(2);
const chosen = args.some((arg) => arg === '--project' || arg.startsWith('--project='));
const unitOnly = args.join(' ').match(/--project[= ]unit\b/) !== null;
const suites: readonly (readonly string[])[] = chosen
  ? [[]]
  : ['unit', 'integration', 'lab'].map((suite) => ['--project', suite]);

process.exitCode = await main();

async function main(): Promise<number> {
  if (!unitOnly) {
    if (process.getuid?.() !== 0) {
      console.error('test: the integration and lab suites start daemons: run them as root, or npm run test:unit');
      return 1;
    }
    if (!(await step('install', 'scripts/install.ts'))) return 1;
  }
  if (!(await step('build', 'scripts/build.ts'))) return 1;
  const total: Count = { passed: 0, failed: 0, skipped: 0 };
  const dir = mkdtempSync(join(tmpdir(), 'weft-test-'));
  try {
    for (const suite of suites) await runSuite(suite, join(dir, 'report.json'), total);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  if (total.skipped > 0) console.log(`${total.skipped} skipped`);
  console.log(`${total.passed} passed, ${total.failed} failed`);
  return total.failed === 0 ? 0 : 1;
}

async function step(name: string, script: string): Promise<boolean> {
  const since = Date.now();
  const { status } = await runProgram(process.execPath, [script], { show: true });
  console.log(`test: ${name} ${status === 0 ? 'ok' : 'FAILED'} ${seconds(since)}`);
  return status === 0;
}

/** A suite that ends badly without a failed test (a file that does not load, a crash) counts as one failure. */
async function runSuite(suite: readonly string[], report: string, total: Count): Promise<void> {
  rmSync(report, { force: true });
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`, '--passWithNoTests'];
  const { status } = await runProgram('vitest', ['run', ...suite, ...reporters, ...args], { show: true });
  const before = total.failed;
  const result = readReport(report);
  if (result !== null) {
    total.passed += result.numPassedTests;
    total.skipped += result.numPendingTests;
    const unloaded = result.testResults.filter((f) => f.status === 'failed' && f.assertionResults.length === 0);
    total.failed += result.numFailedTests + unloaded.length;
  }
  if (status !== 0 && total.failed === before) total.failed++;
}

function readReport(path: string): Report | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Report;
  } catch {
    return null;
  }
}
