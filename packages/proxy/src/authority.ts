// @peculiar/x509 needs the reflection polyfill in place before it is loaded.
import 'reflect-metadata';
import {
  createPrivateKey,
  type KeyObject,
  X509Certificate as NodeCertificate,
  randomBytes,
  webcrypto,
} from 'node:crypto';
import { mkdir, open, readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { join } from 'node:path';
import { createSecureContext, type SecureContext } from 'node:tls';
import { Lru, PantalaError, SingleFlight } from '@pantala/base';
import * as x509 from '@peculiar/x509';

/** Leaf certificates kept, each with its TLS context (about 100 KiB): more hosts than a node talks to. */
const MAX_LEAVES = 256;
const DAY = 24 * 60 * 60 * 1000;
/** How long leaves are valid. They live in memory only and are made anew a day before their end. */
const LEAF_LIFETIME = 30 * DAY;
const AUTHORITY_LIFETIME = 3650 * DAY;
/** Clocks of clients may be behind. */
const BACKDATE = DAY;

const EC = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

interface Leaf {
  readonly context: SecureContext;
  readonly renewAt: number;
}

/** Signs certificates for the hosts whose TLS the proxy ends. */
export class CertificateAuthority {
  /** PEM; what clients must trust. */
  readonly certificate: string;
  readonly #issuer: x509.X509Certificate;
  readonly #key: webcrypto.CryptoKey;
  readonly #algorithm: webcrypto.EcdsaParams | { name: string; hash: string };
  readonly #leafKeys: webcrypto.CryptoKeyPair;
  readonly #leafKeyPem: string;
  readonly #leaves = new Lru<string, Leaf>(MAX_LEAVES);
  readonly #flights = new SingleFlight<string, SecureContext>();

  private constructor(certificate: string, signing: Signing, leafKeys: webcrypto.CryptoKeyPair, leafKeyPem: string) {
    this.certificate = certificate;
    this.#issuer = new x509.X509Certificate(certificate);
    this.#key = signing.key;
    this.#algorithm = signing.algorithm;
    this.#leafKeys = leafKeys;
    this.#leafKeyPem = leafKeyPem;
  }

  /** @throws `invalid-argument` when certificate and key are not usable or do not belong together */
  static async of(given: { readonly cert: string; readonly key: string }): Promise<CertificateAuthority> {
    const keys = (await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
    const exported = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
    const pem = x509.PemConverter.encode(exported, 'PRIVATE KEY');
    try {
      const key = createPrivateKey(given.key);
      if (!new NodeCertificate(given.cert).checkPrivateKey(key)) {
        throw new PantalaError('invalid-argument', "the authority's certificate and key do not belong together");
      }
      return new CertificateAuthority(given.cert, await signingOf(key), keys, pem);
    } catch (error) {
      if (error instanceof PantalaError) throw error;
      throw new PantalaError('invalid-argument', "the authority's certificate or key is no PEM that can be used", {
        cause: error,
      });
    }
  }

  /** The authority kept in `directory` (`ca.crt`, `ca.key`), made the first time. */
  static async keptIn(directory: string): Promise<CertificateAuthority> {
    const certPath = join(directory, 'ca.crt');
    const keyPath = join(directory, 'ca.key');
    const kept = await Promise.all([readFile(certPath, 'utf8'), readFile(keyPath, 'utf8')]).catch(
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return undefined;
        throw PantalaError.from(error);
      },
    );
    if (kept !== undefined) return CertificateAuthority.of({ cert: kept[0], key: kept[1] });
    const made = await makeAuthority();
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await writeNew(keyPath, made.key, 0o600);
    await writeNew(certPath, made.cert, 0o644);
    return CertificateAuthority.of(made);
  }

  /** A TLS context whose certificate is valid for all of `names` (hosts or IP addresses). */
  async contextFor(names: readonly string[]): Promise<SecureContext> {
    const key = names.join('\n');
    const leaf = this.#leaves.get(key);
    if (leaf !== undefined && leaf.renewAt > Date.now()) return leaf.context;
    return this.#flights.run(key, undefined, async () => {
      const context = await this.#issue(names);
      this.#leaves.set(key, { context, renewAt: Date.now() + LEAF_LIFETIME - DAY });
      return context;
    });
  }

  async #issue(names: readonly string[]): Promise<SecureContext> {
    const now = Date.now();
    const leaf = await x509.X509CertificateGenerator.create({
      serialNumber: serialNumber(),
      // A common name may have 64 characters; clients look at the alternative names.
      subject: [{ CN: [(names[0] ?? '').slice(0, 64)] }],
      issuer: this.#issuer.subject,
      notBefore: new Date(now - BACKDATE),
      notAfter: new Date(now + LEAF_LIFETIME),
      signingAlgorithm: this.#algorithm,
      publicKey: this.#leafKeys.publicKey,
      signingKey: this.#key,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
        new x509.SubjectAlternativeNameExtension(
          names.map((name) => ({ type: isIP(name) === 0 ? 'dns' : 'ip', value: name })),
        ),
        await x509.AuthorityKeyIdentifierExtension.create(this.#issuer.publicKey),
      ],
    });
    return createSecureContext({ cert: `${leaf.toString('pem')}\n${this.certificate}`, key: this.#leafKeyPem });
  }
}

interface Signing {
  readonly key: webcrypto.CryptoKey;
  readonly algorithm: { name: string; hash: string };
}

const CURVES: Readonly<Record<string, { curve: string; hash: string }>> = {
  prime256v1: { curve: 'P-256', hash: 'SHA-256' },
  secp384r1: { curve: 'P-384', hash: 'SHA-384' },
  secp521r1: { curve: 'P-521', hash: 'SHA-512' },
};

async function signingOf(key: KeyObject): Promise<Signing> {
  const { hash, curve } = CURVES[key.asymmetricKeyDetails?.namedCurve ?? ''] ?? { hash: 'SHA-256', curve: undefined };
  if (key.asymmetricKeyType !== 'rsa' && curve === undefined) {
    throw new PantalaError('invalid-argument', `the authority's key is ${key.asymmetricKeyType}; RSA and EC can sign`);
  }
  const algorithm =
    curve === undefined ? { name: 'RSASSA-PKCS1-v1_5', hash } : { name: 'ECDSA', namedCurve: curve, hash };
  const der = key.export({ format: 'der', type: 'pkcs8' });
  return { key: await webcrypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign']), algorithm };
}

async function makeAuthority(): Promise<{ cert: string; key: string }> {
  const keys = (await webcrypto.subtle.generateKey(EC, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
  const now = Date.now();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: [{ CN: ['Pantala interception authority'] }],
    notBefore: new Date(now - BACKDATE),
    notAfter: new Date(now + AUTHORITY_LIFETIME),
    signingAlgorithm: EC,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const key = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  return { cert: `${certificate.toString('pem')}\n`, key: `${x509.PemConverter.encode(key, 'PRIVATE KEY')}\n` };
}

/** 20 positive octets (RFC 5280 §4.1.2.2 allows no more). */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes[0] = ((bytes[0] as number) & 0x7f) | 0x40;
  return bytes.toString('hex');
}

async function writeNew(path: string, text: string, mode: number): Promise<void> {
  await using file = await open(path, 'w', mode);
  await file.chmod(mode);
  await file.writeFile(text);
  await file.sync();
}
