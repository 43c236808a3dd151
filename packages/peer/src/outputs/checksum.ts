import { createHash } from 'node:crypto';
import { crc32, PantalaError, throwIfAborted } from '@pantala/base';
import type { StoredTask } from '@pantala/store';

/** Bytes read at once: larger reads gain nothing from the page cache. */
const READ_LENGTH = 1024 * 1024;

/** Hex digits of the digests that an order may name, by algorithm. */
const HEX_LENGTHS: ReadonlyMap<string, number> = new Map([
  ['md5', 32],
  ['sha1', 40],
  ['sha256', 64],
  ['sha512', 128],
]);

/**
 * Reads a checksum as orders write it: `md5:…`, `sha1:…`, `sha256:…`, `sha512:…` in hex, `crc32:<decimal>`.
 *
 * @throws `invalid-argument`
 */
export function checkChecksum(text: string): void {
  const [algorithm = '', value = ''] = text.split(':', 2);
  const length = HEX_LENGTHS.get(algorithm);
  if (algorithm === 'crc32' ? /^\d{1,10}$/.test(value) : length === value.length && /^[0-9a-f]+$/i.test(value)) return;
  throw new PantalaError(
    'invalid-argument',
    `digest "${text.slice(0, 160)}" is none of md5, sha1, sha256, sha512 in hex or crc32 in decimal digits`,
  );
}

/**
 * Compares complete content with a checksum.
 *
 * @throws `data-loss` when it differs
 */
export async function verifyChecksum(task: StoredTask, checksum: string, signal: AbortSignal): Promise<void> {
  const [algorithm = '', expected = ''] = checksum.toLowerCase().split(':', 2);
  const actual = algorithm === 'crc32' ? await crcOf(task, signal) : await hashOf(task, algorithm, signal);
  if (actual === expected) return;
  throw new PantalaError('data-loss', `the content has ${algorithm}:${actual}, not ${algorithm}:${expected}`);
}

async function hashOf(task: StoredTask, algorithm: string, signal: AbortSignal): Promise<string> {
  const hash = createHash(algorithm);
  for await (const part of parts(task, signal)) hash.update(part);
  return hash.digest('hex');
}

async function crcOf(task: StoredTask, signal: AbortSignal): Promise<string> {
  let value = 0;
  for await (const part of parts(task, signal)) value = crc32(part, value);
  return String(value);
}

async function* parts(task: StoredTask, signal: AbortSignal): AsyncGenerator<Buffer> {
  const { contentLength } = task.description;
  for (let start = 0; start < contentLength; start += READ_LENGTH) {
    throwIfAborted(signal);
    yield await task.read({ start, end: Math.min(start + READ_LENGTH, contentLength) });
  }
}
