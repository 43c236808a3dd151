import type { ByteString } from '@pantala/base';
import type { Chunk } from '@pantala/rafs';
import { type Extent, endOf } from './file-on-disk.ts';
import { type FileRead, MAX_PARCEL_CHUNKS, type Slot } from './parcel.ts';

/** A chunk that waits for its place in the blob. */
export interface WaitingChunk {
  /** Of its file. */
  readonly list: Chunk[];
  /** Where in the list. */
  readonly at: number;
  readonly length: number;
  /** For chunks of nothing but zeros, whose content is nowhere: how many of them follow each other. */
  readonly zeros: number;
  /** May go into a batch. */
  readonly small: boolean;
  /** Those of a lower rank come first in the blob, where chunks do not keep the order in which they came. */
  readonly rank: number;
}

/** Chunks that are gathered in a slot, until workers get them. */
export class OpenParcel {
  readonly slot: Slot;
  readonly chunks: WaitingChunk[] = [];
  /** Of those that are not zeros; negative when they are to be digested only. */
  readonly lengths: number[] = [];
  readonly reads: FileRead[] = [];
  /** Bytes of the slot. */
  filled = 0;

  constructor(slot: Slot) {
    this.slot = slot;
  }

  hasRoom(length: number): boolean {
    return this.filled + length <= this.slot.content.length && this.chunks.length < MAX_PARCEL_CHUNKS;
  }

  /** A chunk whose content is in the slot, or will be read. */
  add(chunk: WaitingChunk): void {
    this.chunks.push(chunk);
    this.lengths.push(chunk.small ? -chunk.length : chunk.length);
    this.filled += chunk.length;
  }

  addZeros(chunk: WaitingChunk): void {
    this.chunks.push(chunk);
  }

  /**
   * What a worker reads for the chunk that is added next.
   *
   * @param chunk where it lies in its file
   * @param data of the file
   * @param first index of the first of `data` that does not end before the chunk
   */
  read(path: ByteString, chunk: Extent, data: readonly Extent[], first: number): void {
    const end = endOf(chunk);
    let at = chunk.offset;
    for (let index = first; index < data.length; index++) {
      const extent = data[index] as Extent;
      if (extent.offset >= end) break;
      const from = Math.max(at, extent.offset);
      this.#read(HOLE, at, from, chunk);
      at = Math.min(end, endOf(extent));
      this.#read(path, from, at, chunk);
    }
    this.#read(HOLE, at, end, chunk);
  }

  #read(path: ByteString, from: number, to: number, chunk: Extent): void {
    if (from < to) this.reads.push({ path, offset: from, length: to - from, at: this.filled + from - chunk.offset });
  }
}

/** In the place of a path. */
const HOLE = '';
