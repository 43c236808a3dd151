import { BLOB_FEATURES, type BlobInfo, type Chunk } from '../image.ts';
import { CHUNK_FLAGS, setUint64 } from './format.ts';
import { type BootstrapReader, refuse } from './reader.ts';

/** Fields of an entry of the chunk table, with their offset in it. */
export const CHUNK_FIELDS = {
  digest: 0,
  blob_index: 32,
  flags: 36,
  compressed_size: 40,
  uncompressed_size: 44,
  compressed_offset: 48,
  uncompressed_offset: 56,
  file_offset: 64,
  index: 72,
  crc32: 76,
} as const;

export type ChunkField = keyof typeof CHUNK_FIELDS;

const KNOWN_CHUNK_FLAGS = CHUNK_FLAGS.compressed | CHUNK_FLAGS.batched | CHUNK_FLAGS.hasCrc32c;

/** What stands in an entry besides the digest. */
export type ChunkFacts = Omit<Chunk, 'digest'>;

/** @throws `data-loss` when it names no blob, or has unknown flags; all else is left to `chunkFault` */
export function readChunkFacts(reader: BootstrapReader, offset: number, blobs: readonly BlobInfo[]): ChunkFacts {
  const blobIndex = reader.u32(offset + CHUNK_FIELDS.blob_index);
  const blob = blobs[blobIndex];
  if (blob === undefined) {
    const fact = `is ${blobIndex}, but there are ${blobs.length} blobs`;
    return refuse('blob_index', offset + CHUNK_FIELDS.blob_index, fact);
  }
  const flags = reader.u32(offset + CHUNK_FIELDS.flags);
  if ((flags & ~KNOWN_CHUNK_FLAGS) !== 0) {
    const fact = `is 0x${flags.toString(16)}, with bits that RAFS v6 does not have`;
    refuse('flags', offset + CHUNK_FIELDS.flags, fact);
  }
  const compressedSize = reader.u32(offset + CHUNK_FIELDS.compressed_size);
  const inBatches = (blob.features & BLOB_FEATURES.batch) !== 0;
  return {
    blobIndex,
    index: reader.u32(offset + CHUNK_FIELDS.index),
    compressedOffset: reader.u64(offset + CHUNK_FIELDS.compressed_offset),
    compressedSize,
    uncompressedOffset: reader.u64(offset + CHUNK_FIELDS.uncompressed_offset),
    uncompressedSize: reader.u32(offset + CHUNK_FIELDS.uncompressed_size),
    compressed: (flags & CHUNK_FLAGS.compressed) !== 0,
    // The real builder marks them by their size alone.
    batched: (flags & CHUNK_FLAGS.batched) !== 0 || (inBatches && compressedSize === 0),
    crc32c: (flags & CHUNK_FLAGS.hasCrc32c) === 0 ? undefined : reader.u32(offset + CHUNK_FIELDS.crc32),
  };
}

export interface ChunkFault {
  readonly field: ChunkField;
  readonly fact: string;
}

/** What is wrong with a chunk of `blob`, for reader and writer alike. */
export function chunkFault(
  chunk: ChunkFacts,
  blob: BlobInfo,
  image: { readonly chunkSize: number; readonly blockSize: number },
): ChunkFault | undefined {
  const { compressedSize, uncompressedSize, compressedOffset, uncompressedOffset } = chunk;
  if (chunk.index >= blob.chunkCount) {
    return { field: 'index', fact: `is ${chunk.index}, but the blob has ${blob.chunkCount} chunks` };
  }
  if (uncompressedSize === 0 || uncompressedSize > image.chunkSize) {
    return { field: 'uncompressed_size', fact: `is ${uncompressedSize}: chunks have 1 to ${image.chunkSize} bytes` };
  }
  if (uncompressedOffset % image.blockSize !== 0) {
    return { field: 'uncompressed_offset', fact: `is ${uncompressedOffset}, not a multiple of ${image.blockSize}` };
  }
  if (uncompressedOffset + uncompressedSize > blob.uncompressedSize) {
    return {
      field: 'uncompressed_offset',
      fact: `is ${uncompressedOffset}: the chunk would end behind the blob's end`,
    };
  }
  if (compressedOffset + compressedSize > blob.compressedSize) {
    return { field: 'compressed_offset', fact: `is ${compressedOffset}: the chunk would end behind the blob's end` };
  }
  if (chunk.batched !== (compressedSize === 0 && (blob.features & BLOB_FEATURES.batch) !== 0)) {
    return { field: 'flags', fact: 'and size contradict each other about a batch' };
  }
  // Only version 1 of the chunk information has no flag for it: there the size alone says whether it is compressed.
  const v2 = (blob.features & BLOB_FEATURES.chunkInfoV2) !== 0;
  const sound = chunk.compressed
    ? v2 || (compressedSize > 0 && compressedSize < uncompressedSize)
    : chunk.batched || compressedSize === uncompressedSize;
  if (!sound) {
    const how = chunk.compressed ? 'compressed' : 'stored as it is';
    return { field: 'compressed_size', fact: `is ${compressedSize} of ${uncompressedSize}, but the chunk is ${how}` };
  }
  return undefined;
}

/** In the order of a whole number of 52 bits for each. */
function sortedBy<Item>(items: readonly Item[], key: (item: Item) => number): Item[] {
  const keys = Float64Array.from(items, key);
  let ascending = true;
  for (let index = 1; ascending && index < keys.length; index++) ascending = keys[index]! >= keys[index - 1]!;
  if (ascending) return [...items];
  const order = Uint32Array.from(items, (_, index) => index).sort((a, b) => keys[a]! - keys[b]!);
  return Array.from(order, (index) => items[index] as Item);
}

/** In the order of the table: by digest, then by blob and index. */
export function sortedChunks(chunks: readonly Chunk[]): Chunk[] {
  const sorted = sortedBy(chunks, (chunk) => beginOf(chunk.digest));
  for (let first = 0, next = 1; first < sorted.length; first = next++) {
    const begin = beginOf((sorted[first] as Chunk).digest);
    while (next < sorted.length && beginOf((sorted[next] as Chunk).digest) === begin) next++;
    if (next - first === 1) continue;
    for (const [index, chunk] of sorted.slice(first, next).sort(compareChunks).entries()) sorted[first + index] = chunk;
  }
  return sorted;
}

function compareChunks(a: Chunk, b: Chunk): number {
  return Buffer.compare(a.digest, b.digest) || a.blobIndex - b.blobIndex || a.index - b.index;
}

/** Its first six bytes as a number: that decides nearly always, and is cheap to compare. */
function beginOf(digest: Uint8Array): number {
  let begin = 0;
  for (let index = 0; index < 6; index++) begin = begin * 256 + (digest[index] as number);
  return begin;
}

export function writeChunk(bytes: Buffer, view: DataView, offset: number, chunk: Chunk): void {
  const { crc32c } = chunk;
  const flags = (chunk.compressed ? CHUNK_FLAGS.compressed : 0) | (crc32c === undefined ? 0 : CHUNK_FLAGS.hasCrc32c);
  bytes.set(chunk.digest, offset + CHUNK_FIELDS.digest);
  view.setUint32(offset + CHUNK_FIELDS.blob_index, chunk.blobIndex, true);
  view.setUint32(offset + CHUNK_FIELDS.flags, flags, true);
  view.setUint32(offset + CHUNK_FIELDS.compressed_size, chunk.compressedSize, true);
  view.setUint32(offset + CHUNK_FIELDS.uncompressed_size, chunk.uncompressedSize, true);
  setUint64(view, offset + CHUNK_FIELDS.compressed_offset, chunk.compressedOffset);
  setUint64(view, offset + CHUNK_FIELDS.uncompressed_offset, chunk.uncompressedOffset);
  view.setUint32(offset + CHUNK_FIELDS.index, chunk.index, true);
  view.setUint32(offset + CHUNK_FIELDS.crc32, crc32c ?? 0, true);
}
