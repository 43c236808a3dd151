import { type ByteRange, PantalaError } from '@pantala/base';
import { type ChunkMap, chunkDigest, type DecodeUnit, decodeUnit, needsChunkInformation } from '@pantala/rafs';
import type { ChunkGroup, ChunkLayout, DecodedChunk } from './chunk-layout.ts';

/** The layout that a RAFS v6 image gives a blob. */
export class RafsLayout implements ChunkLayout {
  readonly #map: ChunkMap;
  /** By chunk, and the first chunk of each group; undefined where every chunk is a group of its own. */
  readonly #groups: { readonly ofChunk: Uint32Array; readonly first: Uint32Array } | undefined;

  constructor(map: ChunkMap) {
    this.#map = map;
    this.#groups = needsChunkInformation(map.blob) ? groupsOf(map) : undefined;
  }

  get blobId(): string {
    return this.#map.blob.id;
  }

  get size(): number {
    return this.#map.blob.uncompressedSize;
  }

  get chunkCount(): number {
    return this.#map.count;
  }

  get groupCount(): number {
    return this.#groups?.first.length ?? this.#map.count;
  }

  touching(range: ByteRange): { first: number; count: number } {
    const { start, end } = this.#map.positionsIn(range);
    return { first: start, count: end - start };
  }

  rangeOf(chunk: number): ByteRange {
    return this.#map.rangeOf(chunk);
  }

  digestOf(chunk: number): Uint8Array {
    return this.#map.digestOf(chunk);
  }

  groupOf(chunk: number): number {
    return this.#groups?.ofChunk[chunk] ?? chunk;
  }

  group(index: number): ChunkGroup {
    const { range, chunks } = this.unitOf(index);
    return { first: this.#groups?.first[index] ?? index, count: chunks.length, stored: range };
  }

  matches(chunk: number, content: Uint8Array): boolean {
    return chunkDigest(this.#map.blob.digester, content).equals(this.digestOf(chunk));
  }

  async decode(group: number, stored: Uint8Array): Promise<readonly DecodedChunk[]> {
    const chunks: DecodedChunk[] = [];
    for (const { position, content } of decodeUnit(this.unitOf(group), stored))
      chunks.push({ index: position, content });
    return chunks;
  }

  unitOf(group: number): DecodeUnit {
    return unitAt(this.#map, this.#groups?.first[group] ?? group);
  }
}

function groupsOf(map: ChunkMap): { ofChunk: Uint32Array; first: Uint32Array } {
  const ofChunk = new Uint32Array(map.count);
  const first: number[] = [];
  for (let chunk = 0; chunk < map.count; ) {
    const { length } = unitAt(map, chunk).chunks;
    ofChunk.fill(first.length, chunk, chunk + length);
    first.push(chunk);
    chunk += length;
  }
  return { ofChunk, first: Uint32Array.from(first) };
}

function unitAt(map: ChunkMap, chunk: number): DecodeUnit {
  const { start } = map.rangeOf(chunk);
  const [group] = map.fetchGroups({ start, end: start + 1 }, { maxLength: 0, maxGap: 0 });
  const unit = group?.units[0];
  if (unit === undefined) throw new PantalaError('internal', `chunk ${chunk} of ${map.count} belongs to nothing`);
  return unit;
}
