/** Looks for peers in the namespace that it runs in: node neighbours-process.ts OWN VTEP…. Prints what is missing, a line at each change. */
import { Neighbours } from '../../agent/link/neighbours.ts';
import { makeLog } from '../../lib/log.ts';

const [own = '', ...vteps] = process.argv.slice(2);
const neighbours = new Neighbours({
  own,
  teach: null,
  onMissing: (missing) => process.stdout.write(`${JSON.stringify(Object.fromEntries(missing))}\n`),
  log: makeLog('agent'),
  refreshMs: 500,
  settleMs: 1_500,
});
await neighbours.start();
const started = performance.now();
await neighbours.resolve(vteps);
await neighbours.resolve(vteps);
process.stdout.write(`resolved ${performance.now() - started}\n`);
process.stdin.on('end', () => process.exit(0)).resume();
