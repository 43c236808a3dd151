import { constants, gunzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { PantalaError } from '@pantala/base';
import { exportedZstd } from '@pantala/linux';
import type { Compressor } from '../image.ts';
import { type Lz4Origin, lz4Library } from './lz4.ts';

/** Level of zstd: its own default, which is also that of nydus-image. */
const ZSTD_LEVEL = 3;

export interface CompressionOptions {
  /** Which LZ4 is used; without it the better one that is there. */
  readonly lz4?: Lz4Origin;
}

/**
 * Compresses `content` into `target`: bytes written, or 0 when the result has no room there. Content that does not
 * shrink is stored as it is, so `target` need not be longer than `content`.
 *
 * @throws `invalid-argument` for gzip, which is only read
 */
export function compressInto(
  compressor: Compressor,
  content: Uint8Array,
  target: Uint8Array,
  options: CompressionOptions = {},
): number {
  switch (compressor) {
    case 'none':
      return 0;
    case 'lz4_block':
      return lz4Library(options.lz4).compress(content, target);
    case 'zstd': {
      const zstd = exportedZstd();
      if (typeof zstd !== 'string') return zstd.compress(content, target, ZSTD_LEVEL);
      const frame = zstdCompressSync(content, { params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } });
      if (frame.length > target.length) return 0;
      target.set(frame);
      return frame.length;
    }
    case 'gzip':
      throw new PantalaError('invalid-argument', 'gzip is only read; compress with none, lz4_block or zstd');
  }
}

/** The compressed bytes, or undefined when `content` does not shrink and is to be stored as it is. */
export function compressed(
  compressor: Compressor,
  content: Uint8Array,
  options: CompressionOptions = {},
): Uint8Array | undefined {
  if (compressor === 'none') return undefined;
  const target = new Uint8Array(content.length);
  const length = compressInto(compressor, content, target, options);
  return length === 0 || length >= content.length ? undefined : target.subarray(0, length);
}

/**
 * Fills `target`, whose length is what the content must have: no byte more is ever written.
 *
 * @throws `data-loss` when `stored` is damaged or its content has another length
 */
export function decompressInto(
  compressor: Compressor,
  stored: Uint8Array,
  target: Uint8Array,
  options: CompressionOptions = {},
): void {
  const length = decompressedLength(compressor, stored, target, options);
  if (length === target.length) return;
  const found = length < 0 ? 'no such data or more than that' : `${length}`;
  throw new PantalaError(
    'data-loss',
    `${compressor} data of ${stored.length} bytes has not ${target.length} bytes of content but ${found}`,
  );
}

/** A new buffer with the content. @throws `data-loss` when `stored` is damaged or its content has another length */
export function decompress(compressor: Compressor, stored: Uint8Array, length: number): Uint8Array {
  const target = new Uint8Array(length);
  decompressInto(compressor, stored, target);
  return target;
}

/** Bytes written into `target`, negative when `stored` is damaged or has too much. */
function decompressedLength(
  compressor: Compressor,
  stored: Uint8Array,
  target: Uint8Array,
  options: CompressionOptions,
): number {
  switch (compressor) {
    case 'none':
      if (stored.length > target.length) return -1;
      target.set(stored);
      return stored.length;
    case 'lz4_block':
      return lz4Library(options.lz4).decompress(stored, target);
    case 'zstd': {
      const zstd = exportedZstd();
      if (typeof zstd !== 'string') return zstd.decompress(stored, target);
      return written(() => zstdDecompressSync(stored, { maxOutputLength: atLeastOne(target.length) }), target);
    }
    case 'gzip':
      return written(() => gunzipSync(stored, { maxOutputLength: atLeastOne(target.length) }), target);
  }
}

/** node:zlib takes no bound of 0. */
function atLeastOne(length: number): number {
  return Math.max(1, length);
}

function written(decode: () => Uint8Array, target: Uint8Array): number {
  try {
    const content = decode();
    if (content.length > target.length) return -1;
    target.set(content);
    return content.length;
  } catch {
    return -1;
  }
}
