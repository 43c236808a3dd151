import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { BlobInfo, Chunk, Compressor, StoredBlob } from '../../../src/index.ts';
import { compressorOf } from '../../../src/index.ts';

const ROOT = join(import.meta.dirname, '../../fixtures');

export function fixture(...path: string[]): Buffer {
  return readFileSync(join(ROOT, ...path));
}

export function storedBlob(bytes: Uint8Array, name = 'fixture'): StoredBlob {
  return { name, size: bytes.length, read: async ({ start, end }) => bytes.subarray(start, end) };
}

/** Blob table and chunk table of a bootstrap, read as their layout says and no more. */
export function tablesOf(bootstrap: Buffer): { blobs: BlobInfo[]; chunks: Chunk[] } {
  const extension = 1152;
  const blobsAt = Number(bootstrap.readBigUInt64LE(extension + 8));
  const blobsSize = bootstrap.readUInt32LE(extension + 16);
  const chunksAt = Number(bootstrap.readBigUInt64LE(extension + 24));
  const chunksSize = Number(bootstrap.readBigUInt64LE(extension + 32));
  const blobs = Array.from({ length: blobsSize / 256 }, (_, i) => blobAt(bootstrap.subarray(blobsAt + 256 * i)));
  const chunks = Array.from({ length: chunksSize / 80 }, (_, i) => chunkAt(bootstrap.subarray(chunksAt + 80 * i)));
  return { blobs, chunks };
}

function blobAt(bytes: Buffer): BlobInfo {
  const wide = (at: number) => Number(bytes.readBigUInt64LE(at));
  return {
    id: bytes.toString('latin1', 0, 64),
    chunkSize: bytes.readUInt32LE(68),
    chunkCount: bytes.readUInt32LE(72),
    compressor: compressorOf(bytes.readUInt32LE(76)) as Compressor,
    digester: bytes.readUInt32LE(80) === 0 ? 'blake3' : 'sha256',
    features: bytes.readUInt32LE(84),
    compressedSize: wide(88),
    uncompressedSize: wide(96),
    chunkInfo: {
      compressor: compressorOf(bytes.readUInt32LE(108)) as Compressor,
      offset: wide(112),
      compressedSize: wide(120),
      uncompressedSize: wide(128),
    },
    tocSize: bytes.readUInt32LE(104),
    tocDigest: bytes.subarray(136, 168),
    metaDigest: bytes.subarray(168, 200),
    metaSize: wide(200),
  };
}

function chunkAt(bytes: Buffer): Chunk {
  const flags = bytes.readUInt32LE(36);
  const wide = (at: number) => Number(bytes.readBigUInt64LE(at));
  return {
    digest: bytes.subarray(0, 32),
    blobIndex: bytes.readUInt32LE(32),
    index: bytes.readUInt32LE(72),
    compressedOffset: wide(48),
    compressedSize: bytes.readUInt32LE(40),
    uncompressedOffset: wide(56),
    uncompressedSize: bytes.readUInt32LE(44),
    compressed: (flags & 1) !== 0,
    batched: (flags & 8) !== 0,
    crc32c: (flags & 16) === 0 ? undefined : bytes.readUInt32LE(76),
  };
}
