import { createHash, type Hash, hash } from 'node:crypto';
import { createRequire } from 'node:module';
import type { Blake3Hasher } from '@napi-rs/blake-hash';
import { PantalaError } from './errors.ts';

/** Algorithms that a content digest may name. Nothing weaker is accepted where bytes are to be trusted. */
export type DigestAlgorithm = 'sha256' | 'sha512';

/** A digest of whole content, as OCI writes it: `sha256:<hex>`. */
export interface ContentDigest {
  readonly algorithm: DigestAlgorithm;
  /** Lower case. */
  readonly hex: string;
}

const HEX_LENGTH: Readonly<Record<DigestAlgorithm, number>> = { sha256: 64, sha512: 128 };

/** @throws `invalid-argument` for another algorithm or a value of the wrong length. */
export function parseContentDigest(text: string): ContentDigest {
  const colon = text.indexOf(':');
  const algorithm = text.slice(0, colon);
  const hex = text.slice(colon + 1);
  if (algorithm !== 'sha256' && algorithm !== 'sha512') {
    throw new PantalaError(
      'invalid-argument',
      `digest "${text.slice(0, 100)}" names no known algorithm; known are sha256 and sha512`,
    );
  }
  if (hex.length !== HEX_LENGTH[algorithm] || !/^[0-9a-f]+$/.test(hex)) {
    throw new PantalaError(
      'invalid-argument',
      `digest "${text.slice(0, 160)}" is not ${HEX_LENGTH[algorithm]} lower-case hex digits`,
    );
  }
  return { algorithm, hex };
}

export function formatContentDigest(digest: ContentDigest): string {
  return `${digest.algorithm}:${digest.hex}`;
}

export function contentHasher(algorithm: DigestAlgorithm): Hash {
  return createHash(algorithm);
}

export function sha256Hex(data: string | Uint8Array): string {
  return hash('sha256', data, 'hex');
}

/** Native code is loaded when it is first needed: commands that hash nothing start without it. */
const require = createRequire(import.meta.url);

/** Used again and again, and asked for text: its buffers would be foreign memory, with a finalizer for every block. */
let hasher: Blake3Hasher | undefined;
let crc32Native: typeof import('@node-rs/crc32').crc32 | undefined;

function newHasher(): Blake3Hasher {
  const native = require('@napi-rs/blake-hash') as typeof import('@napi-rs/blake-hash');
  return new native.Blake3Hasher();
}

/** BLAKE3: 32 bytes. */
export function blake3(data: Uint8Array): Buffer {
  hasher ??= newHasher();
  hasher.reset();
  hasher.update(data);
  return Buffer.from(hasher.digest('hex'), 'hex');
}

/** BLAKE3 of one block: 32 bytes. */
export function blockDigest(block: Uint8Array): Buffer {
  return blake3(block);
}

/**
 * The digest of a whole piece is the BLAKE3 of its blocks' digests in order: whoever has it can check a list of
 * block digests that came from anybody, and with that list each block by itself.
 */
export function pieceDigest(blockDigests: Uint8Array): Buffer {
  return blake3(blockDigests);
}

/** CRC-32 (IEEE), continued from `previous`. */
export function crc32(data: Uint8Array, previous = 0): number {
  crc32Native ??= (require('@node-rs/crc32') as typeof import('@node-rs/crc32')).crc32;
  return crc32Native(data as Buffer, previous);
}

/** Upstream's piece digest on the wire: `crc32:<decimal>`. */
export function formatCrc32(value: number): string {
  return `crc32:${value}`;
}

/** The number in `crc32:<decimal>`; undefined when it is something else. */
export function parseCrc32(text: string): number | undefined {
  const match = /^crc32:(\d{1,10})$/.exec(text);
  if (match === null) return undefined;
  const value = Number(match[1]);
  return value <= 0xffff_ffff ? value : undefined;
}
