import { compressorCode, compressorOf } from '../codec/algorithms.ts';
import type { Compressor } from '../image.ts';
import { malformed } from '../malformed.ts';
import { MAX_CHUNK_INFORMATION, MAX_CHUNKS } from './limits.ts';

/** Bytes of the header, which follows the chunk information in the blob. */
export const META_HEADER_LENGTH = 4096;

const MAGIC = 0xb10b_b10b;

/** Bits that a reader must understand; the others are hints. */
const INCOMPATIBLE_FEATURES = 0xffff;
const KNOWN_FEATURES = 0xfff;

/** The header of a blob's chunk information (RAFS v6: blob.meta.header). */
export interface MetaHeader {
  /** Bits of BLOB_FEATURES. */
  readonly features: number;
  readonly compressor: Compressor;
  /** Chunks of the blob. */
  readonly entries: number;
  /** Of the chunk information in the blob. */
  readonly offset: number;
  readonly compressedSize: number;
  readonly uncompressedSize: number;
  /** Of the contexts of batches or restart points in the decompressed chunk information; 0 without. */
  readonly contextOffset: number;
  /** Bytes of contexts and dictionaries. */
  readonly contextSize: number;
  readonly contextCount: number;
}

export function encodeMetaHeader(header: MetaHeader): Uint8Array {
  const bytes = new Uint8Array(META_HEADER_LENGTH);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, header.features, true);
  view.setUint32(8, compressorCode(header.compressor), true);
  view.setUint32(12, header.entries, true);
  view.setBigUint64(16, BigInt(header.offset), true);
  view.setBigUint64(24, BigInt(header.compressedSize), true);
  view.setBigUint64(32, BigInt(header.uncompressedSize), true);
  view.setBigUint64(40, BigInt(header.contextOffset), true);
  view.setBigUint64(48, BigInt(header.contextSize), true);
  view.setUint32(56, header.contextCount, true);
  view.setUint32(META_HEADER_LENGTH - 4, MAGIC, true);
  return bytes;
}

/** Whether a blob's last bytes, at least four, end like a header. */
export function endsLikeMetaHeader(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return bytes.length >= 4 && view.getUint32(bytes.length - 4, true) === MAGIC;
}

/**
 * @param bytes 4096 of them
 * @param offset of the header in the file, for errors
 * @throws `data-loss`
 */
export function decodeMetaHeader(bytes: Uint8Array, offset: number, file: string): MetaHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, META_HEADER_LENGTH);
  const refuse = (field: string, at: number, reason: string) => malformed(file, field, offset + at, reason);
  for (const at of [0, META_HEADER_LENGTH - 4]) {
    const magic = view.getUint32(at, true);
    if (magic !== MAGIC)
      throw refuse('magic of the chunk information', at, `is 0x${magic.toString(16)}, not 0x${MAGIC.toString(16)}`);
  }
  const features = view.getUint32(4, true);
  if ((features & INCOMPATIBLE_FEATURES & ~KNOWN_FEATURES) !== 0) {
    throw refuse('features', 4, `are 0x${features.toString(16)}, which has unknown bits`);
  }
  const code = view.getUint32(8, true);
  const compressor = compressorOf(code);
  if (compressor === undefined) throw refuse('ci_compressor', 8, `is ${code}, which is none`);
  const entries = view.getUint32(12, true);
  if (entries > MAX_CHUNKS) throw refuse('ci_entries', 12, `is ${entries}, more than ${MAX_CHUNKS}`);
  const wide = (field: string, at: number, limit: number) => {
    const value = Number(view.getBigUint64(at, true));
    if (value > limit) throw refuse(field, at, `is ${value}, more than ${limit}`);
    return value;
  };
  return {
    features,
    compressor,
    entries,
    offset: wide('ci_offset', 16, Number.MAX_SAFE_INTEGER),
    compressedSize: wide('ci_compressed_size', 24, MAX_CHUNK_INFORMATION),
    uncompressedSize: wide('ci_uncompressed_size', 32, MAX_CHUNK_INFORMATION),
    contextOffset: wide('ci_zran_offset', 40, MAX_CHUNK_INFORMATION),
    contextSize: wide('ci_zran_size', 48, MAX_CHUNK_INFORMATION),
    contextCount: view.getUint32(56, true),
  };
}
