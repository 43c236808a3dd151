import { type ChunkColumns, chunkColumns, newChunkColumns, setChunk } from '../blob/chunk-columns.ts';
import { DIGEST_LENGTH } from '../codec/digests.ts';
import type { BlobInfo, Chunk } from '../image.ts';
import { ChunkNumbers } from './chunk-numbers.ts';
import { CHUNK_FIELDS, chunkFault, readChunkFacts } from './chunk-table.ts';
import { CHUNK_ENTRY_LENGTH } from './format.ts';
import { type BootstrapReader, refuse } from './reader.ts';
import type { Superblock } from './superblock.ts';

/** The chunks of an image's blobs, each with a number. */
export interface ImageChunks {
  /** -1 when there is none. */
  find(blobIndex: number, index: number): number;
  /** In the decoded blob. */
  offsetOf(number: number): number;
  /** Of the content, bytes. */
  sizeOf(number: number): number;
  /** Marks one that belongs to a file. */
  use(number: number): void;
  /** One and the same for a number. */
  chunk(number: number): Chunk;
  /** Those of a blob that were marked. */
  used(blobIndex: number): ChunkColumns;
}

/** Chunks as the bootstrap's table lists them; their numbers are positions in the table. */
export class ListedChunks implements ImageChunks {
  readonly #reader: BootstrapReader;
  readonly #blobs: readonly BlobInfo[];
  readonly #begin: number;
  readonly #numbers: ChunkNumbers;
  /** All of the table, in its order; the digests stay where they are. */
  readonly #columns: Omit<ChunkColumns, 'digests'>;
  readonly #used: Uint8Array;
  /** Numbers by blob, in the order of the decoded one. */
  readonly #ordered: readonly Uint32Array[];
  readonly #chunks = new Map<number, Chunk>();

  /** @throws `data-loss` for a table with entries that cannot be */
  constructor(reader: BootstrapReader, superblock: Superblock, blobs: readonly BlobInfo[]) {
    const { offset: begin, entries } = superblock.chunkTable;
    this.#reader = reader;
    this.#blobs = blobs;
    this.#begin = begin;
    this.#numbers = new ChunkNumbers(blobs, entries);
    this.#columns = newChunkColumns(entries);
    this.#used = new Uint8Array(entries);
    for (let number = 0; number < entries; number++) this.#read(number, superblock);
    this.#ordered = blobs.map((_, blobIndex) => this.#order(this.#numbers.ofBlob(blobIndex)));
  }

  #read(number: number, superblock: Superblock): void {
    const at = this.#at(number);
    const facts = readChunkFacts(this.#reader, at, this.#blobs);
    const fault = chunkFault(facts, this.#blobs[facts.blobIndex] as BlobInfo, superblock);
    if (fault !== undefined) refuse(fault.field, at + CHUNK_FIELDS[fault.field], fault.fact);
    if (this.#numbers.get(facts.blobIndex, facts.index) >= 0) {
      refuse('index', at + CHUNK_FIELDS.index, `is ${facts.index}, which another chunk of the blob has too`);
    }
    this.#numbers.set(facts.blobIndex, facts.index, number);
    setChunk(this.#columns, number, facts);
  }

  /** The chunks of a blob in the order of its decoded bytes, of which no two may share any. */
  #order(numbers: Uint32Array): Uint32Array {
    const { offsets, sizes } = this.#columns;
    // By their indexes, which is that order wherever a builder writes one chunk after the other.
    let ordered = numbers;
    let end = 0;
    for (let position = 0; position < ordered.length; position++) {
      const number = ordered[position] as number;
      const begin = offsets[number] as number;
      if (begin < end) {
        if (ordered !== numbers) {
          const at = this.#at(number) + CHUNK_FIELDS.uncompressed_offset;
          refuse('uncompressed_offset', at, `is ${begin}, inside another chunk`);
        }
        ordered = numbers.toSorted((a, b) => (offsets[a] as number) - (offsets[b] as number));
        [position, end] = [-1, 0];
        continue;
      }
      end = begin + (sizes[number] as number);
    }
    return ordered;
  }

  #at(number: number): number {
    return this.#begin + number * CHUNK_ENTRY_LENGTH;
  }

  find(blobIndex: number, index: number): number {
    return this.#numbers.get(blobIndex, index);
  }

  offsetOf(number: number): number {
    return this.#columns.offsets[number] as number;
  }

  sizeOf(number: number): number {
    return this.#columns.sizes[number] as number;
  }

  use(number: number): void {
    this.#used[number] = 1;
  }

  chunk(number: number): Chunk {
    let chunk = this.#chunks.get(number);
    if (chunk === undefined) {
      const at = this.#at(number);
      const digest = this.#reader.slice(at + CHUNK_FIELDS.digest, DIGEST_LENGTH);
      chunk = { digest, ...readChunkFacts(this.#reader, at, this.#blobs) };
      this.#chunks.set(number, chunk);
    }
    return chunk;
  }

  used(blobIndex: number): ChunkColumns {
    const all = this.#columns;
    const numbers = (this.#ordered[blobIndex] as Uint32Array).filter((number) => this.#used[number] === 1);
    const columns = newChunkColumns(numbers.length);
    const digests = new Uint8Array(numbers.length * DIGEST_LENGTH);
    for (let position = 0; position < numbers.length; position++) {
      const number = numbers[position] as number;
      columns.offsets[position] = all.offsets[number] as number;
      columns.sizes[position] = all.sizes[number] as number;
      columns.storedOffsets[position] = all.storedOffsets[number] as number;
      columns.storedSizes[position] = all.storedSizes[number] as number;
      columns.compressed[position] = all.compressed[number] as number;
      columns.indexes[position] = all.indexes[number] as number;
      this.#reader.copy(digests, position * DIGEST_LENGTH, this.#at(number) + CHUNK_FIELDS.digest, DIGEST_LENGTH);
    }
    return { ...columns, digests };
  }
}

/** Chunks of an image whose blobs are tars: nothing lists them, files name them; in the order in which they do. */
export class TarChunks implements ImageChunks {
  readonly #numbers: ChunkNumbers;
  readonly #chunks: Chunk[] = [];

  constructor(blobs: readonly BlobInfo[]) {
    this.#numbers = new ChunkNumbers(blobs, 0);
  }

  add(chunk: Chunk): number {
    const number = this.#chunks.push(chunk) - 1;
    this.#numbers.set(chunk.blobIndex, chunk.index, number);
    return number;
  }

  find(blobIndex: number, index: number): number {
    return this.#numbers.get(blobIndex, index);
  }

  offsetOf(number: number): number {
    return this.chunk(number).uncompressedOffset;
  }

  sizeOf(number: number): number {
    return this.chunk(number).uncompressedSize;
  }

  /** Whatever is there was named by a file. */
  use(): void {}

  chunk(number: number): Chunk {
    return this.#chunks[number] as Chunk;
  }

  used(blobIndex: number): ChunkColumns {
    const byOffset = new Map<number, Chunk>();
    for (const chunk of this.#chunks) {
      if (chunk.blobIndex === blobIndex) byOffset.set(chunk.uncompressedOffset, chunk);
    }
    return chunkColumns([...byOffset.values()]);
  }
}
