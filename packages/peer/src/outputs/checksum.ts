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
 * Passes bytes on and compares them with a checksum when they end.
 *
 * @throws `data-loss` when they differ
 */
export async function* verified<B extends Uint8Array>(chunks: AsyncIterable<B>, checksum: string): AsyncGenerator<B> {
  const [algorithm = '', expected = ''] = checksum.toLowerCase().split(':', 2);
  const summer: Summer = algorithm === 'crc32' ? new Crc32() : createHash(algorithm);
  for await (const chunk of chunks) {
    summer.update(chunk);
    yield chunk;
  }
  const actual = summer.digest('hex');
  if (actual === expected) return;
  throw new PantalaError('data-loss', `the content has ${algorithm}:${actual}, not ${algorithm}:${expected}`);
}

/** Compares complete content with a checksum. @throws `data-loss` when it differs */
export async function verifyChecksum(task: StoredTask, checksum: string, signal: AbortSignal): Promise<void> {
  for await (const _ of verified(parts(task, signal), checksum));
}

/** The part of a hash's interface that is needed here. */
interface Summer {
  update(data: Uint8Array): unknown;
  digest(encoding: 'hex'): string;
}

/** Its value is in decimal digits, as orders write it. */
class Crc32 implements Summer {
  #value = 0;

  update(data: Uint8Array): void {
    this.#value = crc32(data, this.#value);
  }

  digest(_encoding: 'hex'): string {
    return String(this.#value);
  }
}

async function* parts(task: StoredTask, signal: AbortSignal): AsyncGenerator<Buffer> {
  const { contentLength } = task.description;
  for (let start = 0; start < contentLength; start += READ_LENGTH) {
    throwIfAborted(signal);
    yield await task.read({ start, end: Math.min(start + READ_LENGTH, contentLength) });
  }
}
