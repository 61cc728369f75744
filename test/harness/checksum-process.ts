/** Tries checksums in the namespace that it runs in: node checksum-process.ts OVS-DIR FILE. Prints what it found as JSON. */

import { OvsDriver } from '../../agent/ovs/driver.ts';
import { Ovsdb } from '../../agent/ovs/ovsdb.ts';
import { probeChecksums, tryChecksums } from '../../agent/probe/checksum.ts';
import { makeLog } from '../../lib/log.ts';

const [dir = '', file = '', version = ''] = process.argv.slice(2);
const db = new Ovsdb({ path: `${dir}/db.sock` });
db.start();
await db.ready();
const probe = { ovs: new OvsDriver(db), rundir: dir, file, version: async () => version, log: makeLog('agent') };
const started = performance.now();
const found = version === '' ? await tryChecksums(probe) : { wrong: await probeChecksums(probe) };
process.stdout.write(JSON.stringify({ ...found, ms: performance.now() - started }));
db.close();
