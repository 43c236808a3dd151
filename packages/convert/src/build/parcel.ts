import type { ByteString } from '@pantala/base';
import { type Compressor, DIGEST_LENGTH, type Digester, type Lz4Origin } from '@pantala/rafs';

// What passes between the thread that orders and writes and those that digest and compress. Content lies in memory
// that they share, so only numbers are sent.

/** Chunks of one parcel: results for so many have their place. */
export const MAX_PARCEL_CHUNKS = 1024;

/** In `stored`: the chunk's digest is known already, so it was not compressed. */
export const NOT_COMPRESSED = 0;

/** Views of the memory of one parcel. */
export interface Slot {
  readonly index: number;
  /** Chunks without gaps. */
  readonly content: Uint8Array;
  /** Those that have shrunk, without gaps; empty when nothing is compressed. */
  readonly compressed: Uint8Array;
  /** One digest after another. */
  readonly digests: Uint8Array;
  /** Stored length of each chunk: its own when it is to be written as it is; or NOT_COMPRESSED. */
  readonly stored: Uint32Array;
}

export interface SlotLayout {
  /** Bytes of content. */
  readonly length: number;
  readonly compresses: boolean;
}

const RESULTS_LENGTH = MAX_PARCEL_CHUNKS * (DIGEST_LENGTH + 4);

export function slotMemory({ length, compresses }: SlotLayout): SharedArrayBuffer {
  return new SharedArrayBuffer(RESULTS_LENGTH + (compresses ? 2 : 1) * length);
}

export function slotOf(index: number, memory: SharedArrayBuffer, { length, compresses }: SlotLayout): Slot {
  const digests = 4 * MAX_PARCEL_CHUNKS;
  return {
    index,
    stored: new Uint32Array(memory, 0, MAX_PARCEL_CHUNKS),
    digests: new Uint8Array(memory, digests, MAX_PARCEL_CHUNKS * DIGEST_LENGTH),
    content: new Uint8Array(memory, RESULTS_LENGTH, length),
    compressed: new Uint8Array(memory, RESULTS_LENGTH + length, compresses ? length : 0),
  };
}

/** Bytes of a file that the worker reads into the slot. */
export interface FileRead {
  /** Empty for zeros. */
  readonly path: ByteString;
  /** In the file. */
  readonly offset: number;
  readonly length: number;
  /** In the slot. */
  readonly at: number;
}

/** Many of them in one string and one array: objects cost more to send than files to read. */
export interface PackedReads {
  /** Between NULs, which no path has. */
  readonly paths: string;
  /** Offset, length and place in the slot of each. */
  readonly numbers: Float64Array;
}

const NUMBERS_OF_READ = 3;

export function packReads(reads: readonly FileRead[]): PackedReads {
  const numbers = new Float64Array(reads.length * NUMBERS_OF_READ);
  for (const [index, { offset, length, at }] of reads.entries())
    numbers.set([offset, length, at], index * NUMBERS_OF_READ);
  return { paths: reads.map(({ path }) => path).join('\0'), numbers };
}

export function* unpackReads({ paths, numbers }: PackedReads): Generator<FileRead, void, undefined> {
  if (numbers.length === 0) return;
  for (const [index, path] of paths.split('\0').entries()) {
    const [offset, length, at] = numbers.subarray(index * NUMBERS_OF_READ) as unknown as [number, number, number];
    yield { path, offset, length, at };
  }
}

/** Chunks to digest and compress. */
export interface ChunkJob {
  readonly kind: 'chunks';
  readonly slot: number;
  /** Of the build, whose known digests are meant. */
  readonly seat: number;
  /** Length of each chunk in the slot, one behind the other; negative when it is to be digested only. */
  readonly lengths: Int32Array;
  readonly reads: PackedReads;
}

/** Content to compress as a whole: the first `length` bytes of the slot. The result is `stored[0]`. */
export interface BatchJob {
  readonly kind: 'batch';
  readonly slot: number;
  readonly length: number;
}

export type Job = ChunkJob | BatchJob;

export interface JobRequest {
  readonly id: number;
  readonly job: Job;
}

/** How a job ended. The error is one of PantalaError, field by field: classes do not pass between threads. */
export interface JobEnd {
  readonly id: number;
  readonly error?: { readonly code: string; readonly message: string };
}

export interface WorkerSetup {
  readonly memories: readonly SharedArrayBuffer[];
  readonly layout: SlotLayout;
  readonly compressor: Compressor;
  readonly digester: Digester;
  readonly lz4: Lz4Origin | undefined;
  /** Memory of the KnownDigests of each seat. */
  readonly known: readonly SharedArrayBuffer[];
}
