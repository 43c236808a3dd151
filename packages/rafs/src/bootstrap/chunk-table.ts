import { BLOB_FEATURES, type BlobInfo, type Chunk } from '../image.ts';
import { CHUNK_ENTRY_LENGTH, CHUNK_FLAGS, setUint64 } from './format.ts';
import { type BootstrapReader, refuse } from './reader.ts';
import type { Superblock } from './superblock.ts';

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

export const DIGEST_LENGTH = 32;

/**
 * Chunks by their blob and their index in it. Most images have nearly all chunks of a blob: an array then is several
 * times faster than a map, which would be too large for a blob that says to have millions and shows a few.
 */
export class ChunkIndex {
  readonly #blobs: readonly BlobChunks[];

  /** `expected` is about how many chunks will come in all. */
  constructor(blobs: readonly BlobInfo[], expected: number) {
    let room = expected * DENSE_FACTOR;
    this.#blobs = blobs.map(({ chunkCount }) => {
      const length = chunkCount <= room ? chunkCount : 0;
      room -= length;
      return { dense: Array.from({ length }, () => undefined), sparse: new Map() };
    });
  }

  get(blobIndex: number, index: number): Chunk | undefined {
    const blob = this.#blobs[blobIndex];
    if (blob === undefined) return undefined;
    return index < blob.dense.length ? blob.dense[index] : blob.sparse.get(index);
  }

  /** Of a blob that there is. */
  set(chunk: Chunk): void {
    const { dense, sparse } = this.#blobs[chunk.blobIndex] as BlobChunks;
    if (chunk.index < dense.length) dense[chunk.index] = chunk;
    else sparse.set(chunk.index, chunk);
  }
}

interface BlobChunks {
  readonly dense: (Chunk | undefined)[];
  readonly sparse: Map<number, Chunk>;
}

/** Entries of arrays for each chunk that there is. */
const DENSE_FACTOR = 4;

export function readChunks(reader: BootstrapReader, superblock: Superblock, blobs: readonly BlobInfo[]): ChunkIndex {
  const chunks = new ChunkIndex(blobs, superblock.chunkTable.entries);
  const { offset: begin, entries } = superblock.chunkTable;
  const offsets: number[][] = blobs.map(() => []);
  for (let entry = 0; entry < entries; entry++) {
    const offset = begin + entry * CHUNK_ENTRY_LENGTH;
    const chunk = readChunk(reader, offset, blobs);
    const fault = chunkFault(chunk, blobs[chunk.blobIndex] as BlobInfo, superblock);
    if (fault !== undefined) refuse(fault.field, offset + CHUNK_FIELDS[fault.field], fault.fact);
    if (chunks.get(chunk.blobIndex, chunk.index) !== undefined) {
      refuse('index', offset + CHUNK_FIELDS.index, `is ${chunk.index}, which another chunk of the blob has too`);
    }
    chunks.set(chunk);
    (offsets[chunk.blobIndex] as number[]).push(entry);
  }
  for (const ofBlob of offsets) checkApart(reader, begin, ofBlob);
  return chunks;
}

function readChunk(reader: BootstrapReader, offset: number, blobs: readonly BlobInfo[]): Chunk {
  const at = (field: ChunkField): number => offset + CHUNK_FIELDS[field];
  const blobIndex = reader.u32(at('blob_index'));
  const blob = blobs[blobIndex];
  if (blob === undefined) {
    return refuse('blob_index', at('blob_index'), `is ${blobIndex}, but there are ${blobs.length} blobs`);
  }
  const flags = reader.u32(at('flags'));
  if ((flags & ~(CHUNK_FLAGS.compressed | CHUNK_FLAGS.batched | CHUNK_FLAGS.hasCrc32c)) !== 0) {
    refuse('flags', at('flags'), `is 0x${flags.toString(16)}, with bits that RAFS v6 does not have`);
  }
  const compressedSize = reader.u32(at('compressed_size'));
  const inBatches = (blob.features & BLOB_FEATURES.batch) !== 0;
  return {
    digest: reader.slice(offset, DIGEST_LENGTH),
    blobIndex,
    index: reader.u32(at('index')),
    compressedOffset: reader.u64(at('compressed_offset')),
    compressedSize,
    uncompressedOffset: reader.u64(at('uncompressed_offset')),
    uncompressedSize: reader.u32(at('uncompressed_size')),
    compressed: (flags & CHUNK_FLAGS.compressed) !== 0,
    // The real builder marks them by their size alone.
    batched: (flags & CHUNK_FLAGS.batched) !== 0 || (inBatches && compressedSize === 0),
    crc32c: (flags & CHUNK_FLAGS.hasCrc32c) === 0 ? undefined : reader.u32(at('crc32')),
  };
}

export interface ChunkFault {
  readonly field: ChunkField;
  readonly fact: string;
}

/** What is wrong with a chunk of `blob`, for reader and writer alike. */
export function chunkFault(
  chunk: Chunk,
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

/** Chunks of one blob may not share bytes of the decoded blob. */
function checkApart(reader: BootstrapReader, table: number, entries: readonly number[]): void {
  const at = (entry: number, field: ChunkField): number => table + entry * CHUNK_ENTRY_LENGTH + CHUNK_FIELDS[field];
  const sorted = sortedBy(entries, (entry) => reader.u64(at(entry, 'uncompressed_offset')));
  let end = 0;
  for (const entry of sorted) {
    const begin = reader.u64(at(entry, 'uncompressed_offset'));
    if (begin < end)
      refuse('uncompressed_offset', at(entry, 'uncompressed_offset'), `is ${begin}, inside another chunk`);
    end = begin + reader.u32(at(entry, 'uncompressed_size'));
  }
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
