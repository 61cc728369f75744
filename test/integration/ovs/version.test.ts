import { afterEach, beforeEach, expect, it } from 'vitest';
import { ovsVersion } from '../../../agent/facts.ts';
import { Ovsdb } from '../../../agent/ovs/ovsdb.ts';
import { Versions } from '../../../agent/versions.ts';
import { silentLog } from '../../../lib/log.ts';
import { startOvs, type TestOvs, until } from '../../harness/ovs.ts';

let ovs: TestOvs;
beforeEach(async () => {
  ovs = await startOvs({ vswitchd: false });
});
afterEach(async () => {
  await ovs[Symbol.asyncDispose]();
});

it('of ovs-vswitchd is known as soon as it runs, though the database was there before', async () => {
  const db = new Ovsdb({ path: ovs.dbSock });
  let asked = 0;
  const read = (): Promise<string> => {
    asked++;
    return ovsVersion(ovs.dir);
  };
  const versions = new Versions({ read: { ovs: read }, changed: () => undefined, log: silentLog(), retryMs: 20 });
  db.onUp(() => versions.look('ovs'));
  db.start();
  await until('it has been asked', () => asked > 1);
  expect(versions.known).toEqual({});
  await ovs.start('ovs-vswitchd');
  await until('it is known', () => versions.known['ovs'] !== undefined);
  expect(await ovs.exec('ovs-vswitchd', '--version')).toContain(versions.known['ovs']);
  versions.close();
  db.close();
});
