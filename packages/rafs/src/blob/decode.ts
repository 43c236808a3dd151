import { type ByteRange, PantalaError } from '@pantala/base';
import { decompress } from '../codec/compression.ts';
import { chunkDigest } from '../codec/digests.ts';
import type { Compressor, Digester } from '../image.ts';
import { decodeFrom, type Restart } from './restart.ts';

/** A chunk within what is decoded as one. */
export interface UnitChunk {
  /** Position in the blob's ChunkMap. */
  readonly position: number;
  /** In the decoded blob, bytes. */
  readonly offset: number;
  readonly size: number;
  /** Where it begins in the decoded unit. */
  readonly at: number;
  /** Of its content, 32 bytes. */
  readonly digest: Uint8Array;
}

/** Stored bytes that are decoded as one: a chunk, a batch, or all from a restart point on. Travels between threads. */
export interface DecodeUnit {
  /** In the stored blob. */
  readonly range: ByteRange;
  /** `none` when the bytes are stored as they are. */
  readonly compressor: Compressor;
  /** For gzip that is begun in the middle. */
  readonly restart: Restart | undefined;
  /** Bytes that it decodes to. */
  readonly size: number;
  readonly digester: Digester;
  readonly chunks: readonly UnitChunk[];
}

/** Stored bytes that are fetched as one. */
export interface FetchGroup {
  /** In the stored blob. */
  readonly range: ByteRange;
  readonly units: readonly DecodeUnit[];
}

/** A chunk whose content has its digest. */
export interface DecodedChunk extends UnitChunk {
  readonly content: Uint8Array;
}

/**
 * The chunks of a group, each checked against its digest, one after another: a caller that writes each away has one
 * unit in memory. Contents may share memory with `stored` and with each other.
 *
 * @param stored the bytes of `group.range`
 * @throws `data-loss` when the bytes are too few, damaged, or not those of the digest
 */
export function* decodeGroup(group: FetchGroup, stored: Uint8Array): Generator<DecodedChunk, void, undefined> {
  const length = group.range.end - group.range.start;
  if (stored.length !== length) {
    throw new PantalaError('data-loss', `${stored.length} bytes came for the ${length} from ${group.range.start} on`);
  }
  for (const unit of group.units) {
    const start = unit.range.start - group.range.start;
    yield* decodeUnit(unit, stored.subarray(start, start + unit.range.end - unit.range.start));
  }
}

/** The same for one unit. @param stored the bytes of `unit.range` */
export function* decodeUnit(unit: DecodeUnit, stored: Uint8Array): Generator<DecodedChunk, void, undefined> {
  const decoded = contentOf(unit, stored);
  for (const chunk of unit.chunks) {
    const content = decoded.subarray(chunk.at, chunk.at + chunk.size);
    if (!chunkDigest(unit.digester, content).equals(chunk.digest)) {
      throw new PantalaError(
        'data-loss',
        `the chunk at offset ${chunk.offset} of the decoded blob, stored at ${unit.range.start} to ${unit.range.end}, has not the content of its digest`,
        { details: { offset: chunk.offset, storedOffset: unit.range.start } },
      );
    }
    yield { ...chunk, content };
  }
}

function contentOf(unit: DecodeUnit, stored: Uint8Array): Uint8Array {
  try {
    if (unit.restart !== undefined) return decodeFrom(unit.restart, stored, unit.size);
    if (unit.compressor === 'none' && stored.length === unit.size) return stored;
    return decompress(unit.compressor, stored, unit.size);
  } catch (error) {
    const cause = PantalaError.from(error);
    throw new PantalaError(cause.code, `stored bytes ${unit.range.start} to ${unit.range.end}: ${cause.message}`, {
      cause,
    });
  }
}
