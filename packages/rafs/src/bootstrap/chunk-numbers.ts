import type { BlobInfo } from '../image.ts';

/** Entries of arrays for each chunk that there is. */
const DENSE_FACTOR = 4;

interface BlobNumbers {
  /** Number + 1 by the chunk's index; 0 where there is none. */
  readonly dense: Uint32Array;
  readonly sparse: Map<number, number>;
}

/**
 * Numbers of chunks by their blob and their index in it. Most images have nearly all chunks of a blob: an array then is
 * several times faster than a map, which would be too large for a blob that says to have millions and shows a few.
 */
export class ChunkNumbers {
  readonly #blobs: readonly BlobNumbers[];

  /** `expected` is about how many chunks will come in all. */
  constructor(blobs: readonly BlobInfo[], expected: number) {
    let room = expected * DENSE_FACTOR;
    this.#blobs = blobs.map(({ chunkCount }) => {
      const length = chunkCount <= room ? chunkCount : 0;
      room -= length;
      return { dense: new Uint32Array(length), sparse: new Map() };
    });
  }

  /** -1 when there is none. */
  get(blobIndex: number, index: number): number {
    const blob = this.#blobs[blobIndex];
    if (blob === undefined) return -1;
    return index < blob.dense.length ? (blob.dense[index] as number) - 1 : (blob.sparse.get(index) ?? -1);
  }

  /** Of a blob that there is. */
  set(blobIndex: number, index: number, number: number): void {
    const { dense, sparse } = this.#blobs[blobIndex] as BlobNumbers;
    if (index < dense.length) dense[index] = number + 1;
    else sparse.set(index, number);
  }

  /** The numbers of a blob's chunks, mostly by their indexes. */
  ofBlob(blobIndex: number): Uint32Array {
    const { dense, sparse } = this.#blobs[blobIndex] as BlobNumbers;
    const numbers = new Uint32Array(dense.length + sparse.size);
    let count = 0;
    for (let index = 0; index < dense.length; index++) {
      const next = dense[index] as number;
      if (next !== 0) numbers[count++] = next - 1;
    }
    for (const number of sparse.values()) numbers[count++] = number;
    return numbers.subarray(0, count);
  }
}
