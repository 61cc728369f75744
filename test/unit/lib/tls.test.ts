import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  type Ca,
  createCa,
  issueCertificate,
  issueCoordinator,
  issueHost,
  issueUser,
  newHostId,
  readCa,
  readTls,
  writeKeyPair,
} from '../../../lib/tls.ts';

let ca: Ca;
let dir: string;
beforeAll(async () => {
  ca = await createCa({ name: 'weft test' });
  dir = await mkdtemp(join(tmpdir(), 'weft-tls-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

test('the CA is a CA and signs itself', () => {
  const cert = new X509Certificate(ca.cert);
  expect(cert.ca).toBe(true);
  expect(cert.subject).toBe('CN=weft test');
  expect(cert.checkIssued(cert)).toBe(true);
  expect(cert.verify(cert.publicKey)).toBe(true);
});

test('a host certificate is signed by the CA and carries its identity', async () => {
  const id = newHostId();
  expect(id).toMatch(/^[0-9a-f]{16}$/);
  const host = await issueHost(ca, id, 'h1');
  const cert = new X509Certificate(host.cert);
  expect(cert.ca).toBe(false);
  expect(cert.subjectAltName).toBe(`URI:weft://host/${id}, DNS:agent.weft`);
  expect(cert.checkIssued(new X509Certificate(ca.cert))).toBe(true);
  expect(cert.verify(new X509Certificate(ca.cert).publicKey)).toBe(true);
  expect(cert.keyUsage).toEqual(['1.3.6.1.5.5.7.3.1', '1.3.6.1.5.5.7.3.2']);
});

test('coordinator and user certificates', async () => {
  const coordinator = new X509Certificate((await issueCoordinator(ca, 'coord1', ['10.0.0.1'])).cert);
  expect(coordinator.subjectAltName).toBe('URI:weft://coordinator/coord1, DNS:coordinator.weft, IP Address:10.0.0.1');
  const user = new X509Certificate((await issueUser(ca, 'admin')).cert);
  expect(user.subjectAltName).toBe('URI:weft://user/admin');
  expect(user.keyUsage).toEqual(['1.3.6.1.5.5.7.3.2']);
});

test('times past 2049 are written as GeneralizedTime', async () => {
  const pair = await issueCertificate({ ca, subject: 'late', days: 40 * 365, client: true });
  expect(new X509Certificate(pair.cert).validToDate.getUTCFullYear()).toBeGreaterThan(2050);
});

test('what cannot be a name is refused', async () => {
  await expect(issueCertificate({ ca, subject: 'x', uris: ['weft://user/é'], client: true })).rejects.toMatchObject({
    code: 'INVALID_ARGUMENT',
  });
});

test('files: keys are private, the CA can be read back, a foreign key is refused', async () => {
  await writeKeyPair(dir, 'ca', ca);
  const user = await issueUser(ca, 'admin');
  const paths = await writeKeyPair(dir, 'admin', user);
  expect((await stat(paths.key)).mode & 0o777).toBe(0o600);
  expect((await stat(paths.cert)).mode & 0o777).toBe(0o644);
  expect(await readCa(dir)).toEqual(ca);
  const files = { ca: join(dir, 'ca.crt'), ...paths };
  expect(await readTls(files)).toEqual(user);
  await expect(readTls({ ...files, key: join(dir, 'ca.key') })).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
  await expect(readTls({ ...files, key: join(dir, 'none.key') })).rejects.toMatchObject({ code: 'NOT_FOUND' });
});
