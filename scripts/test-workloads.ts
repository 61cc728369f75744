/**
 * `npm run test:workloads [-- vitest arguments]`: Spark, HDFS and Cassandra over three hosts of a lab, beside the same on one plain
 * bridge of Docker's. Installs and builds what is missing (the image once, from Debian, PyPI and Maven's archive); shows the times at
 * its end and keeps them in bench/results/workloads.json. About 10 GB of disk, 6 GB of memory.
 */
import { table } from '../bench/figures.ts';
import { readResults } from '../test/workloads/times.ts';
import { runProgram, seconds } from './steps.ts';

process.exitCode = await main();

async function main(): Promise<number> {
  if (process.getuid?.() !== 0) {
    console.error('test:workloads: it starts daemons: run it as root');
    return 1;
  }
  const since = Date.now();
  for (const script of ['scripts/install.ts', 'scripts/build.ts']) {
    const { status } = await runProgram(process.execPath, [script], { show: true });
    if (status !== 0) return status;
  }
  // Ctrl-C reaches vitest too, which then takes its lab down: we wait for that.
  const wait = (): void => {};
  process.on('SIGINT', wait).on('SIGTERM', wait);
  const args = ['run', '--project', 'workloads', ...process.argv.slice(2)];
  const { status } = await runProgram('vitest', args, { show: true });
  console.log(`\n${figures()}\n`);
  console.log(`test:workloads: ${status === 0 ? 'ok' : 'FAILED'} ${seconds(since)}`);
  return status;
}

/** The figures of the file: of this run, or of an earlier one where this run left a workload out. */
function figures(): string {
  const rows = Object.entries(readResults()).flatMap(([workload, { figures: measured }]) =>
    Object.entries(measured).map(([name, { weft, bridge, ratio }]) => [
      `${workload}: ${name}`,
      weft.join(' '),
      bridge.join(' '),
      ratio ?? '',
    ]),
  );
  return table(['seconds', 'Weft', 'bridge', 'ratio'], rows);
}
