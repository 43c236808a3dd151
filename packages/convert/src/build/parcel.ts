import { type Compressor, DIGEST_LENGTH, type Digester, type Lz4Origin } from '@pantala/rafs';

// What passes between the thread that orders and writes and those that digest and compress. Content lies in memory
// that they share, so only numbers are sent.

/** Chunks of one parcel: results for so many have their place. */
export const MAX_PARCEL_CHUNKS = 256;

/** In `stored`: the chunk's digest is known already, so it was not compressed. */
export const NOT_COMPRESSED = 0;

/** Views of the memory of one parcel. */
export interface Slot {
  readonly index: number;
  /** Chunks without gaps. */
  readonly content: Uint8Array;
  /** Each chunk at the same place as in `content` when it has shrunk; empty when nothing is compressed. */
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
  /** As bytes; undefined for zeros. */
  readonly path: Uint8Array | undefined;
  /** In the file. */
  readonly offset: number;
  readonly length: number;
  /** In the slot. */
  readonly at: number;
}

/** Chunks to digest and compress. */
export interface ChunkJob {
  readonly kind: 'chunks';
  readonly id: number;
  readonly slot: number;
  /** Length of each chunk in the slot, one behind the other; negative when it is to be digested only. */
  readonly lengths: Int32Array;
  readonly reads: readonly FileRead[];
}

/** Content to compress as a whole: the first `length` bytes of the slot. The result is `stored[0]`. */
export interface BatchJob {
  readonly kind: 'batch';
  readonly id: number;
  readonly slot: number;
  readonly length: number;
}

export type Job = ChunkJob | BatchJob;

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
  /** Memory of KnownDigests. */
  readonly known: SharedArrayBuffer;
}
