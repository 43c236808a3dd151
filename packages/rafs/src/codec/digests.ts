import { hash } from 'node:crypto';
import { blake3 } from '@pantala/base';
import type { Digester } from '../image.ts';

/** Bytes of either digest. */
export const DIGEST_LENGTH = 32;

/** Digest of a chunk's content: 32 bytes. */
export function chunkDigest(digester: Digester, content: Uint8Array): Buffer {
  return digester === 'blake3' ? blake3(content) : sha256(content);
}

/** SHA-256: 32 bytes. */
export function sha256(content: Uint8Array): Buffer {
  return hash('sha256', content, 'buffer');
}
