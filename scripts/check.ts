/** `npm run check`: everything about the code that can be said without running it. Works after `npm ci` alone. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { genIsOld } from './gen-source.ts';
import { ROOT, runProgram, seconds } from './steps.ts';

const BASELINE = 'proto/weft/v1/baseline.binpb';

interface Step {
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
}

const STEPS: readonly Step[] = [
  ...(genIsOld(ROOT) ? [{ name: 'generate', program: process.execPath, args: ['scripts/gen.ts'] }] : []),
  { name: 'types', program: 'tsc', args: ['--noEmit'] },
  { name: 'format', program: 'biome', args: ['check', '--error-on-warnings', '.'] },
  { name: 'lint', program: 'oxlint', args: ['--type-aware', '--deny-warnings'] },
  { name: 'protocol', program: 'buf', args: ['lint'] },
  ...(existsSync(join(ROOT, BASELINE))
    ? [{ name: 'compatibility', program: 'buf', args: ['breaking', '--against', BASELINE] }]
    : []),
  { name: 'imports', program: 'vitest', args: ['run', '--project', 'unit', 'test/unit/imports.test.ts'] },
];

const failed: string[] = [];
for (const { name, program, args } of STEPS) {
  const since = Date.now();
  const { status, output } = await runProgram(program, args, { show: false });
  console.log(`check: ${name.padEnd(13)} ${status === 0 ? 'ok    ' : 'FAILED'} ${seconds(since)}`);
  if (status === 0) continue;
  failed.push(name);
  console.log(output.trimEnd());
}
console.log(failed.length === 0 ? 'check: all well' : `check: failed: ${failed.join(', ')}`);
process.exitCode = failed.length === 0 ? 0 : 1;
