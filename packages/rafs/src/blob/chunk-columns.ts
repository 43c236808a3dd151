import { DIGEST_LENGTH } from '../codec/digests.ts';
import type { Chunk } from '../image.ts';

/**
 * Distinct chunks of one blob in the order of their place in the decoded blob, each field an array of its own: a tenth
 * of the memory of objects, and nothing for the garbage collector to look at.
 */
export interface ChunkColumns {
  readonly count: number;
  /** Where each begins in the decoded blob. */
  readonly offsets: Float64Array;
  readonly sizes: Uint32Array;
  /** Where each is stored; see `Chunk` for chunks of batches. */
  readonly storedOffsets: Float64Array;
  readonly storedSizes: Uint32Array;
  /** 1 for those that are compressed. */
  readonly compressed: Uint8Array;
  /** Positions in the blob's chunk information. */
  readonly indexes: Uint32Array;
  /** 32 bytes each. */
  readonly digests: Uint8Array;
}

/** Zeros, still without digests. */
export function newChunkColumns(count: number): Omit<ChunkColumns, 'digests'> {
  return {
    count,
    offsets: new Float64Array(count),
    sizes: new Uint32Array(count),
    storedOffsets: new Float64Array(count),
    storedSizes: new Uint32Array(count),
    compressed: new Uint8Array(count),
    indexes: new Uint32Array(count),
  };
}

export function setChunk(columns: Omit<ChunkColumns, 'digests'>, position: number, chunk: Omit<Chunk, 'digest'>): void {
  columns.offsets[position] = chunk.uncompressedOffset;
  columns.sizes[position] = chunk.uncompressedSize;
  columns.storedOffsets[position] = chunk.compressedOffset;
  columns.storedSizes[position] = chunk.compressedSize;
  columns.compressed[position] = chunk.compressed ? 1 : 0;
  columns.indexes[position] = chunk.index;
}

/** @param chunks distinct ones of one blob, in any order */
export function chunkColumns(chunks: readonly Chunk[]): ChunkColumns {
  const columns = newChunkColumns(chunks.length);
  const digests = new Uint8Array(chunks.length * DIGEST_LENGTH);
  const ordered = chunks.toSorted((a, b) => a.uncompressedOffset - b.uncompressedOffset);
  for (const [position, chunk] of ordered.entries()) {
    setChunk(columns, position, chunk);
    digests.set(chunk.digest, position * DIGEST_LENGTH);
  }
  return { ...columns, digests };
}
