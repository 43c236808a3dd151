import { type ByteRange, PantalaError } from '@pantala/base';
import { DIGEST_LENGTH } from '../codec/digests.ts';
import { BLOB_FEATURES, type BlobInfo, type Chunk, type RafsImage } from '../image.ts';
import type { Node } from '../tree/node.ts';
import { type ChunkColumns, chunkColumns } from './chunk-columns.ts';
import type { ChunkInformation } from './chunk-information.ts';
import type { DecodeUnit, FetchGroup, UnitChunk } from './decode.ts';
import { CHUNK_INFO_FLAGS, MAX_CHUNK_LENGTH } from './limits.ts';

export interface FetchOptions {
  /** Bytes of one fetch; a single unit may be longer. */
  readonly maxLength: number;
  /** Bytes between two units that are fetched with them, and dropped, rather than asked for one by one. */
  readonly maxGap: number;
  /** Which chunks are wanted, by position; all when it is not said. */
  readonly wanted?: (position: number) => boolean;
}

/** The distinct chunks of an image that lie in each of its blobs, by index of the blob. */
export function chunksByBlob(image: RafsImage): Chunk[][] {
  const found = image.blobs.map(() => new Map<number, Chunk>());
  const waiting: Node[] = [image.root];
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    if (node.kind === 'directory') {
      for (const entry of node.entries.values()) waiting.push(entry);
    } else if (node.kind === 'regular') {
      for (const chunk of node.content) {
        const chunks = found[chunk.blobIndex];
        if (chunks === undefined) {
          throw new PantalaError('data-loss', `a chunk names blob ${chunk.blobIndex} of ${image.blobs.length}`);
        }
        chunks.set(chunk.uncompressedOffset, chunk);
      }
    }
  }
  return found.map((chunks) => [...chunks.values()]);
}

/** Whether the chunks of a blob can be found only with its own chunk information. */
export function needsChunkInformation(blob: BlobInfo): boolean {
  return (blob.features & (BLOB_FEATURES.batch | BLOB_FEATURES.zran)) !== 0;
}

/**
 * The chunks of one blob that an image uses, by their place in the decoded blob, and how to get at the bytes of each.
 * Chunks have positions: 0 for the one that comes first in the decoded blob.
 */
export class ChunkMap {
  readonly blob: BlobInfo;
  /** Chunks. */
  readonly count: number;
  readonly #chunks: ChunkColumns;
  readonly #information: ChunkInformation | undefined;

  /**
   * @param chunks distinct ones of this blob, objects in any order or columns
   * @param information of the blob; may be left out unless `needsChunkInformation`
   * @throws `data-loss` when chunks overlap or lie outside of the blob; `invalid-argument` without needed information;
   *   `unimplemented` for encrypted blobs
   */
  constructor(blob: BlobInfo, chunks: ChunkColumns | readonly Chunk[], information?: ChunkInformation) {
    if ((blob.features & BLOB_FEATURES.encrypted) !== 0) {
      throw new PantalaError('unimplemented', `blob ${blob.id} is encrypted, which Pantala does not read`);
    }
    const contexts = needsChunkInformation(blob);
    if (contexts && information === undefined) {
      throw new PantalaError('invalid-argument', `chunks of blob ${blob.id} are found only with its chunk information`);
    }
    const given = 'offsets' in chunks ? chunks : chunkColumns(chunks);
    this.blob = blob;
    this.count = given.count;
    this.#information = contexts ? information : undefined;
    let free = 0;
    for (let position = 0; position < given.count; position++) free = this.#check(given, position, free);
    this.#chunks = this.#information === undefined ? given : storedAs(given, this.#information);
  }

  /** Where a chunk lies in the decoded blob. */
  rangeOf(position: number): ByteRange {
    const start = this.#chunks.offsets[position];
    if (start === undefined) throw new PantalaError('out-of-range', `there is no chunk ${position} of ${this.count}`);
    return { start, end: start + (this.#chunks.sizes[position] as number) };
  }

  /** Digest of a chunk's content. */
  digestOf(position: number): Uint8Array {
    return this.#chunks.digests.subarray(position * DIGEST_LENGTH, (position + 1) * DIGEST_LENGTH);
  }

  /** Positions from `start` up to, not including, `end` of the chunks that touch `range` of the decoded blob. */
  positionsIn(range: ByteRange): ByteRange {
    let start = this.#firstFrom(range.start);
    if (start > 0 && this.rangeOf(start - 1).end > range.start) start -= 1;
    return { start, end: Math.max(start, this.#firstFrom(range.end)) };
  }

  /**
   * What must be fetched of the stored blob for the chunks that touch `range` of the decoded blob, in the order of the
   * stored blob. Batches and restart points come whole, with all of their chunks.
   */
  fetchGroups(range: ByteRange, options: FetchOptions): FetchGroup[] {
    const { start, end } = this.positionsIn(range);
    const units: DecodeUnit[] = [];
    for (let position = start; position < end; position++) {
      if (options.wanted?.(position) === false) continue;
      const { unit, last } = this.#unitOf(position);
      units.push(unit);
      position = last;
    }
    units.sort((a, b) => a.range.start - b.range.start);
    return grouped(units, options);
  }

  /** @returns where the chunk ends in the decoded blob */
  #check(chunks: ChunkColumns, position: number, free: number): number {
    const offset = chunks.offsets[position] as number;
    const size = chunks.sizes[position] as number;
    const index = chunks.indexes[position] as number;
    if (size === 0 || size > MAX_CHUNK_LENGTH) this.#refuse(index, `has ${size} bytes, not 1 to ${MAX_CHUNK_LENGTH}`);
    if (offset < free) {
      this.#refuse(index, `begins at ${offset} of the decoded blob, before ${free}, where the one before ends`);
    }
    const end = offset + size;
    if (end > this.blob.uncompressedSize) {
      this.#refuse(index, `ends at ${end}, beyond the ${this.blob.uncompressedSize} bytes of the decoded blob`);
    }
    const information = this.#information;
    if (information === undefined) {
      const storedSize = chunks.storedSizes[position] as number;
      if (storedSize > MAX_CHUNK_LENGTH) this.#refuse(index, `has ${storedSize} stored bytes`);
      if (chunks.compressed[position] === 0 && storedSize !== size) {
        this.#refuse(index, `is not compressed but has ${storedSize} stored bytes for ${size}`);
      }
    } else if (information.uncompressedOffset[index] !== offset || information.uncompressedSize[index] !== size) {
      this.#refuse(index, 'is another one in the blob itself: bootstrap and blob do not belong together');
    }
    return end;
  }

  #refuse(index: number, what: string): never {
    throw new PantalaError('data-loss', `blob ${this.blob.id}: chunk ${index} ${what}`, {
      details: { blob: this.blob.id, chunk: index },
    });
  }

  /** The first position at or behind an offset of the decoded blob. */
  #firstFrom(offset: number): number {
    let low = 0;
    let high = this.count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#chunks.offsets[middle] as number) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** What is decoded as one with a chunk, and the last position in it. */
  #unitOf(position: number): { unit: DecodeUnit; last: number } {
    const flags = this.#flagsOf(position);
    if ((flags & (CHUNK_INFO_FLAGS.batch | CHUNK_INFO_FLAGS.zran)) !== 0) return this.#contextOf(position, flags);
    const start = this.#chunks.storedOffsets[position] as number;
    const compressed = this.#chunks.compressed[position] === 1;
    const unit: DecodeUnit = {
      range: { start, end: start + (this.#chunks.storedSizes[position] as number) },
      compressor: compressed ? this.blob.compressor : 'none',
      restart: undefined,
      size: this.#chunks.sizes[position] as number,
      digester: this.blob.digester,
      chunks: [this.#chunkAt(position, 0)],
    };
    return { unit, last: position };
  }

  #flagsOf(position: number): number {
    return this.#information?.flags[this.#chunks.indexes[position] as number] ?? 0;
  }

  #contextOf(position: number, flags: number): { unit: DecodeUnit; last: number } {
    const information = this.#information as ChunkInformation;
    const context = this.#contextIndex(position);
    const kind = flags & (CHUNK_INFO_FLAGS.batch | CHUNK_INFO_FLAGS.zran);
    const same = (other: number) =>
      other >= 0 && other < this.count && (this.#flagsOf(other) & kind) !== 0 && this.#contextIndex(other) === context;
    let first = position;
    while (same(first - 1)) first -= 1;
    let last = position;
    while (same(last + 1)) last += 1;
    const chunks: UnitChunk[] = [];
    for (let member = first; member <= last; member++) {
      chunks.push(this.#chunkAt(member, information.contextOffset[this.#chunks.indexes[member] as number] as number));
    }
    const { digester } = this.blob;
    const restart = information.restartPoints[context];
    if ((kind & CHUNK_INFO_FLAGS.zran) !== 0 && restart !== undefined) {
      const range = { start: restart.inputOffset, end: restart.inputOffset + restart.inputLength };
      return { unit: { range, compressor: 'gzip', restart, size: restart.outputLength, digester, chunks }, last };
    }
    const batch = information.batches[context];
    if (batch === undefined) throw new PantalaError('data-loss', `blob ${this.blob.id}: there is no batch ${context}`);
    const start = this.#chunks.storedOffsets[position] as number;
    const range = { start, end: start + batch.compressedSize };
    const stored = batch.compressedSize === batch.uncompressedSize;
    const compressor = stored ? 'none' : this.blob.compressor;
    return { unit: { range, compressor, restart: undefined, size: batch.uncompressedSize, digester, chunks }, last };
  }

  #contextIndex(position: number): number {
    return this.#information?.context[this.#chunks.indexes[position] as number] as number;
  }

  #chunkAt(position: number, at: number): UnitChunk {
    return {
      position,
      offset: this.#chunks.offsets[position] as number,
      size: this.#chunks.sizes[position] as number,
      at,
      digest: this.digestOf(position).slice(),
    };
  }
}

/** With batches the bootstrap of nydus-image says neither where a chunk is stored nor that it is compressed. */
function storedAs(chunks: ChunkColumns, information: ChunkInformation): ChunkColumns {
  const storedOffsets = new Float64Array(chunks.count);
  const storedSizes = new Uint32Array(chunks.count);
  const compressed = new Uint8Array(chunks.count);
  for (const [position, index] of chunks.indexes.entries()) {
    storedOffsets[position] = information.compressedOffset[index] as number;
    storedSizes[position] = information.compressedSize[index] as number;
    compressed[position] = ((information.flags[index] as number) & CHUNK_INFO_FLAGS.compressed) === 0 ? 0 : 1;
  }
  return { ...chunks, storedOffsets, storedSizes, compressed };
}

/** Neighbours in the stored blob are fetched together. */
function grouped(units: readonly DecodeUnit[], options: FetchOptions): FetchGroup[] {
  const groups: { range: { start: number; end: number }; units: DecodeUnit[] }[] = [];
  for (const unit of units) {
    const group = groups.at(-1);
    const fits =
      group !== undefined &&
      unit.range.start - group.range.end <= options.maxGap &&
      unit.range.end - group.range.start <= options.maxLength;
    if (fits) {
      group.units.push(unit);
      group.range.end = Math.max(group.range.end, unit.range.end);
    } else {
      groups.push({ range: { ...unit.range }, units: [unit] });
    }
  }
  return groups;
}
