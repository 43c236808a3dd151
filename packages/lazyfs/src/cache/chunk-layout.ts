import type { ByteRange } from '@pantala/base';
import type { DecodeUnit } from '@pantala/rafs';

/** Chunks that can only be fetched and decoded together: a single chunk, a batch, what one ZRan context covers. */
export interface ChunkGroup {
  /** The chunks, by their position in the decoded blob. */
  readonly first: number;
  readonly count: number;
  /** Where their bytes lie in the stored blob. */
  readonly stored: ByteRange;
}

/** A chunk whose content was checked against its digest. */
export interface DecodedChunk {
  readonly index: number;
  readonly content: Uint8Array;
}

/**
 * How a stored blob becomes a decoded one. Chunks are numbered by their place in the decoded blob, groups by their
 * first chunk; neither has gaps but the filling up to the next multiple of 4096.
 */
export interface ChunkLayout {
  /** 64 hex digits. */
  readonly blobId: string;
  /** Bytes of the decoded blob. */
  readonly size: number;
  readonly chunkCount: number;
  readonly groupCount: number;
  /** The chunks that touch `range` of the decoded blob; `count` is 0 when none does. */
  touching(range: ByteRange): { readonly first: number; readonly count: number };
  /** The chunk's bytes in the decoded blob, without filling. */
  rangeOf(chunk: number): ByteRange;
  /** 32 bytes, of the chunk's content. */
  digestOf(chunk: number): Uint8Array;
  groupOf(chunk: number): number;
  group(index: number): ChunkGroup;
  /** Whether `content` is the chunk's. */
  matches(chunk: number, content: Uint8Array): boolean;
  /**
   * The chunks of a group out of its stored bytes, each checked against its digest.
   *
   * @throws `data-loss` when a byte is wrong
   */
  decode(group: number, stored: Uint8Array): Promise<readonly DecodedChunk[]>;
  /** The same as data, for another thread; left out where a layout knows no such thing. */
  unitOf?(group: number): DecodeUnit;
}
