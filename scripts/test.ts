/**
 * `npm test [-- vitest arguments]`: installs what is missing, builds, runs the unit, integration and lab suites one after
 * another. The last lines name what failed and why, and say how many passed.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { runProgram, seconds } from './steps.ts';

/** The part of vitest's JSON report that is counted. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly testResults: readonly ReportFile[];
}

interface ReportFile {
  readonly name: string;
  readonly status: string;
  readonly message: string;
  readonly assertionResults: readonly {
    readonly fullName: string;
    readonly status: string;
    readonly failureMessages: readonly string[] | null;
  }[];
}

interface Count {
  passed: number;
  failed: number;
  skipped: number;
  /** What failed and why, said again at the end, where the tail of a long log shows it. */
  readonly failures: string[];
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
  const total: Count = { passed: 0, failed: 0, skipped: 0, failures: [] };
  const dir = mkdtempSync(join(tmpdir(), 'weft-test-'));
  try {
    for (const suite of suites) await runSuite(suite, join(dir, 'report.json'), total);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  for (const failure of total.failures) console.log(failure);
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
    total.failures.push(...result.testResults.flatMap(failuresOf));
  }
  if (status !== 0 && total.failed === before) {
    total.failed++;
    total.failures.push(`failed: vitest run ${suite.join(' ')} ended with status ${status}`);
  }
}

function failuresOf(file: ReportFile): string[] {
  const name = relative(process.cwd(), file.name);
  if (file.status === 'failed' && file.assertionResults.length === 0) return [`failed: ${name}: ${head(file.message)}`];
  return file.assertionResults
    .filter((test) => test.status === 'failed')
    .map((test) => `failed: ${name}: ${test.fullName}: ${head(test.failureMessages?.join('\n') ?? '')}`);
}

/** The first lines of a message: what was expected and where, without the whole stack. */
function head(message: string): string {
  return message.split('\n').slice(0, 12).join('\n  ');
}

function readReport(path: string): Report | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Report;
  } catch {
    return null;
  }
}
