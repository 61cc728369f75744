/**
 * The mesh's own certificates (RFC 5280): ECDSA P-256, identity in one URI SAN, `weft://host/ID`, `weft://coordinator/NAME` or
 * `weft://user/NAME`. Clients check a fixed DNS SAN by role, so that no address need be in a certificate.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPair,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import * as der from './der.ts';
import { WeftError } from './errors.ts';
import { parseIp } from './ip.ts';

/** DNS SANs that stand for a role: what a client of that role's server checks. */
export const COORDINATOR_DNS = 'coordinator.weft';
export const AGENT_DNS = 'agent.weft';

/** A certificate and its key, PEM. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** What one end of mutual TLS needs, PEM. */
export interface TlsMaterial extends KeyPair {
  readonly ca: string;
}

/** Paths of the same. */
export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface Ca extends KeyPair {
  readonly name: string;
}

export interface CertificateRequest {
  readonly ca: Ca;
  /** Common name; for people, never for a decision. */
  readonly subject: string;
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  /** IPv4 addresses. */
  readonly ips?: readonly string[];
  readonly server?: boolean;
  readonly client?: boolean;
  readonly days?: number;
}

const DEFAULT_DAYS = 3650;
const DAY_MS = 86_400_000;
const ECDSA_SHA256 = der.sequence(der.oid('1.2.840.10045.4.3.2'));
const EMPTY = Buffer.alloc(0);

/** A new self-signed certificate authority. */
export async function createCa(options: { name: string; days?: number }): Promise<Ca> {
  const keys = await newKeys();
  const cert = build({
    issuer: options.name,
    subject: options.name,
    days: options.days ?? DEFAULT_DAYS,
    publicKey: keys.spki,
    signingKey: keys.key,
    extensions: [
      extension('2.5.29.19', der.sequence(der.boolean(true), der.integer(Buffer.from([0]))), true),
      // keyCertSign, cRLSign
      extension('2.5.29.15', der.bits(Buffer.from([0x06]), 1), true),
      extension('2.5.29.14', der.octets(keyId(keys.spki))),
    ],
  });
  return { name: options.name, cert, key: keys.key };
}

/** A certificate with a new key, signed by `ca`. */
export async function issueCertificate(request: CertificateRequest): Promise<TlsMaterial> {
  const keys = await newKeys();
  const caSpki = createPublicKey(request.ca.cert).export({ type: 'spki', format: 'der' });
  const usages = [
    request.server === true ? der.oid('1.3.6.1.5.5.7.3.1') : EMPTY,
    request.client === true ? der.oid('1.3.6.1.5.5.7.3.2') : EMPTY,
  ];
  const names = [
    ...(request.uris ?? []).map((uri) => der.implicit(6, ascii(uri))),
    ...(request.dnsNames ?? []).map((name) => der.implicit(2, ascii(name))),
    ...(request.ips ?? []).map((ip) => der.implicit(7, ipBytes(ip))),
  ];
  const extensions = [
    extension('2.5.29.19', der.sequence(), true),
    // digitalSignature
    extension('2.5.29.15', der.bits(Buffer.from([0x80]), 7), true),
    extension('2.5.29.37', der.sequence(...usages)),
    extension('2.5.29.14', der.octets(keyId(keys.spki))),
    extension('2.5.29.35', der.sequence(der.implicit(0, keyId(caSpki)))),
  ];
  if (names.length > 0) extensions.push(extension('2.5.29.17', der.sequence(...names)));
  const cert = build({
    issuer: request.ca.name,
    subject: request.subject,
    days: request.days ?? DEFAULT_DAYS,
    publicKey: keys.spki,
    signingKey: request.ca.key,
    extensions,
  });
  return { ca: request.ca.cert, cert, key: keys.key };
}

/** For an agent: both ends, since its socket may later be served on the network too. @param id 16 hex digits */
export const issueHost = (ca: Ca, id: string, name = id): Promise<TlsMaterial> =>
  issueCertificate({
    ca,
    subject: name,
    uris: [`weft://host/${id}`],
    dnsNames: [AGENT_DNS],
    server: true,
    client: true,
  });

/** For a coordinator: it serves, and calls the other coordinators and etcd. */
export const issueCoordinator = (ca: Ca, name: string, ips: readonly string[] = []): Promise<TlsMaterial> =>
  issueCertificate({
    ca,
    subject: name,
    uris: [`weft://coordinator/${name}`],
    dnsNames: [COORDINATOR_DNS],
    ips,
    server: true,
    client: true,
  });

export const issueUser = (ca: Ca, name: string): Promise<TlsMaterial> =>
  issueCertificate({ ca, subject: name, uris: [`weft://user/${name}`], client: true });

/** A host id: 16 lower-case hex digits. */
export const newHostId = (): string => randomBytes(8).toString('hex');

/** Writes NAME.crt (0644) and NAME.key (0600) into `dir`, which is made (0755) when missing. */
export async function writeKeyPair(dir: string, name: string, pair: KeyPair): Promise<{ cert: string; key: string }> {
  const paths = { cert: join(dir, `${name}.crt`), key: join(dir, `${name}.key`) };
  await writePrivate(paths.key, pair.key, 0o600);
  await writePrivate(paths.cert, pair.cert, 0o644);
  return paths;
}

/** Reads a CA that `writeKeyPair` wrote. @throws NOT_FOUND when it is not there. */
export async function readCa(dir: string, name = 'ca'): Promise<Ca> {
  const [cert, key] = await Promise.all([readPem(join(dir, `${name}.crt`)), readPem(join(dir, `${name}.key`))]);
  return { name: commonName(cert), cert, key };
}

/** Reads the three files of one end. @throws NOT_FOUND, naming the file; INVALID_ARGUMENT when one holds something else. */
export async function readTls(files: TlsFiles): Promise<TlsMaterial> {
  const [ca, cert, key] = await Promise.all([readPem(files.ca), readPem(files.cert), readPem(files.key)]);
  try {
    if (!createPublicKey(createPrivateKey(key)).equals(createPublicKey(cert)))
      throw new WeftError('INVALID_ARGUMENT', `The key ${files.key} does not belong to the certificate ${files.cert}.`);
    createPublicKey(ca);
  } catch (error) {
    if (error instanceof WeftError) throw error;
    throw new WeftError('INVALID_ARGUMENT', `${files.cert}, ${files.key} or ${files.ca} is not PEM.`, { cause: error });
  }
  return { ca, cert, key };
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    throw new WeftError('NOT_FOUND', `The certificate file ${path} cannot be read: ${(error as Error).message}.`, {
      hint: 'weft ca init writes certificates',
      cause: error,
    });
  }
}

/** Whole or not at all, and never readable by others for a moment. */
async function writePrivate(path: string, text: string, mode: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  const temporary = `${path}.${randomBytes(4).toString('hex')}`;
  await writeFile(temporary, text, { mode });
  await chmod(temporary, mode);
  await rename(temporary, path);
}

async function newKeys(): Promise<{ spki: Buffer; key: string }> {
  const { publicKey, privateKey } = await promisify(generateKeyPair)('ec', { namedCurve: 'P-256' });
  return {
    spki: publicKey.export({ type: 'spki', format: 'der' }),
    key: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  };
}

function build(c: {
  issuer: string;
  subject: string;
  days: number;
  publicKey: Buffer;
  signingKey: string;
  extensions: readonly Buffer[];
}): string {
  const now = Date.now();
  const serial = randomBytes(16);
  serial[0] = ((serial[0] ?? 0) & 0x7f) | 0x40;
  const tbs = der.sequence(
    der.explicit(0, der.integer(Buffer.from([2]))),
    der.integer(serial),
    ECDSA_SHA256,
    distinguishedName(c.issuer),
    // An hour back: clocks of other hosts may be behind.
    der.sequence(der.time(new Date(now - 3_600_000)), der.time(new Date(now + c.days * DAY_MS))),
    distinguishedName(c.subject),
    c.publicKey,
    der.explicit(3, der.sequence(...c.extensions)),
  );
  const signature = sign('sha256', tbs, { key: c.signingKey, dsaEncoding: 'der' });
  const base64 = der.sequence(tbs, ECDSA_SHA256, der.bits(signature)).toString('base64');
  return `-----BEGIN CERTIFICATE-----\n${base64.replaceAll(/.{1,64}/g, '$&\n')}-----END CERTIFICATE-----\n`;
}

const distinguishedName = (commonName: string): Buffer =>
  der.sequence(der.setOf(der.sequence(der.oid('2.5.4.3'), der.utf8(commonName))));

const extension = (id: string, value: Buffer, critical = false): Buffer =>
  der.sequence(der.oid(id), critical ? der.boolean(true) : EMPTY, der.octets(value));

/** RFC 5280 §4.2.1.2, method 1: SHA-1 of the key's bit string, which ends an EC SubjectPublicKeyInfo (65 bytes). */
const keyId = (spki: Buffer): Buffer => createHash('sha1').update(spki.subarray(-65)).digest();

function ascii(text: string): Buffer {
  if (!/^[\x21-\x7e]+$/.test(text))
    throw new WeftError('INVALID_ARGUMENT', `${JSON.stringify(text)} cannot be a name in a certificate.`);
  return Buffer.from(text, 'latin1');
}

function ipBytes(text: string): Buffer {
  parseIp(text);
  return Buffer.from(text.split('.').map(Number));
}

/** CN of a certificate of ours (one attribute, no escapes). */
const commonName = (cert: string): string => new X509Certificate(cert).subject.replace(/^CN=/, '');
