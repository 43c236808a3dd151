import { BLOB_FEATURES } from '../image.ts';
import { malformed } from '../malformed.ts';
import { BATCH_CONTEXT_LENGTH, type BatchContext, readBatchContext, writeBatchContext } from './batch-context.ts';
import { ALIGNMENT, alignUp, CHUNK_INFO_FLAGS, CHUNK_INFO_LENGTH, MAX_CHUNK_LENGTH } from './limits.ts';
import type { MetaHeader } from './meta-header.ts';
import { type RestartPoint, readRestartPoints } from './restart-point.ts';

/**
 * What a blob says about its own chunks, each at its index, as columns: an image may have millions of them.
 * RAFS v6 calls it blob.meta or chunk information.
 */
export interface ChunkInformation {
  readonly count: number;
  /** In the stored blob, bytes. */
  readonly compressedOffset: Float64Array;
  /** Bytes; 0 for chunks of a batch. */
  readonly compressedSize: Uint32Array;
  /** In the decoded blob, bytes. */
  readonly uncompressedOffset: Float64Array;
  readonly uncompressedSize: Uint32Array;
  /** Bits of CHUNK_INFO_FLAGS. */
  readonly flags: Uint8Array;
  /** Index of the batch or restart point that the chunk belongs to. */
  readonly context: Uint32Array;
  /** Where the chunk begins in what that batch or restart point decodes to. */
  readonly contextOffset: Uint32Array;
  readonly batches: readonly BatchContext[];
  readonly restartPoints: readonly RestartPoint[];
}

/** Columns for `count` chunks, all zero. */
export function emptyChunkInformation(count: number): ChunkInformation {
  return {
    count,
    compressedOffset: new Float64Array(count),
    compressedSize: new Uint32Array(count),
    uncompressedOffset: new Float64Array(count),
    uncompressedSize: new Uint32Array(count),
    flags: new Uint8Array(count),
    context: new Uint32Array(count),
    contextOffset: new Uint32Array(count),
    batches: [],
    restartPoints: [],
  };
}

/**
 * The decompressed chunk information: entries, then contexts and dictionaries.
 *
 * @param file as errors are to name it
 * @throws `data-loss` with field and offset in `bytes`
 */
export function decodeChunkInformation(bytes: Uint8Array, header: MetaHeader, file: string): ChunkInformation {
  const { features, entries: count } = header;
  const version = (features & BLOB_FEATURES.chunkInfoV2) === 0 ? 1 : 2;
  const length = count * CHUNK_INFO_LENGTH[version];
  if (bytes.length < length) {
    throw malformed(
      file,
      'ci_entries',
      12,
      `is ${count}, more than the ${bytes.length} bytes of chunk information have`,
    );
  }
  const information = emptyChunkInformation(count);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (version === 1) decodeV1(view, information);
  else decodeV2(view, information);
  checkOrder(information, version, file);
  if ((features & (BLOB_FEATURES.zran | BLOB_FEATURES.batch)) === 0) return information;

  const tables = contextTables(bytes, header, length, file);
  const complete: ChunkInformation =
    (features & BLOB_FEATURES.zran) !== 0
      ? { ...information, restartPoints: readRestartPoints(tables.bytes, header.contextCount, tables.offset, file) }
      : { ...information, batches: readBatches(tables.bytes, header.contextCount, tables.offset, file) };
  checkContexts(complete, file);
  return complete;
}

/** Entries of version 1, or 2 with the contexts of batches behind them. */
export function encodeChunkInformation(information: ChunkInformation, version: 1 | 2): Uint8Array {
  const entries = information.count * CHUNK_INFO_LENGTH[version];
  const bytes = new Uint8Array(entries + information.batches.length * BATCH_CONTEXT_LENGTH);
  const view = new DataView(bytes.buffer);
  if (version === 1) encodeV1(view, information);
  else encodeV2(view, information);
  for (const [index, batch] of information.batches.entries()) {
    writeBatchContext(view, entries + index * BATCH_CONTEXT_LENGTH, batch);
  }
  return bytes;
}

const TWO_32 = 2 ** 32;

// Both versions keep two numbers of 64 bits; JavaScript's bit operations have 32, so each is read in halves.

function decodeV1(view: DataView, information: ChunkInformation): void {
  for (let index = 0, at = 0; index < information.count; index++, at += CHUNK_INFO_LENGTH[1]) {
    const decoded = view.getUint32(at, true);
    const decodedHigh = view.getUint32(at + 4, true);
    const stored = view.getUint32(at + 8, true);
    const storedHigh = view.getUint32(at + 12, true);
    const uncompressedSize = ((((decoded >>> 8) & 0xf) << 20) | (decodedHigh >>> 12)) + 1;
    const compressedSize = ((((storedHigh >>> 8) & 0xf) << 20) | (storedHigh >>> 12)) + 1;
    information.uncompressedOffset[index] = (decodedHigh & 0xfff) * TWO_32 + ((decoded & 0xffff_f000) >>> 0);
    information.uncompressedSize[index] = uncompressedSize;
    information.compressedOffset[index] = (storedHigh & 0xff) * TWO_32 + stored;
    information.compressedSize[index] = compressedSize;
    // There is no flag for it: what did not shrink is stored as it is.
    information.flags[index] = compressedSize === uncompressedSize ? 0 : CHUNK_INFO_FLAGS.compressed;
  }
}

function encodeV1(view: DataView, information: ChunkInformation): void {
  for (let index = 0, at = 0; index < information.count; index++, at += CHUNK_INFO_LENGTH[1]) {
    const offset = information.uncompressedOffset[index] as number;
    const size = (information.uncompressedSize[index] as number) - 1;
    const storedOffset = information.compressedOffset[index] as number;
    const storedSize = (information.compressedSize[index] as number) - 1;
    view.setUint32(at, ((offset % TWO_32) | (((size >>> 20) & 0xf) << 8)) >>> 0, true);
    view.setUint32(at + 4, (((size & 0xf_ffff) << 12) | Math.floor(offset / TWO_32)) >>> 0, true);
    view.setUint32(at + 8, storedOffset % TWO_32, true);
    view.setUint32(
      at + 12,
      (((storedSize & 0xf_ffff) << 12) | (((storedSize >>> 20) & 0xf) << 8) | Math.floor(storedOffset / TWO_32)) >>> 0,
      true,
    );
  }
}

function decodeV2(view: DataView, information: ChunkInformation): void {
  for (let index = 0, at = 0; index < information.count; index++, at += CHUNK_INFO_LENGTH[2]) {
    const sizeAndFlags = view.getUint32(at + 4, true);
    const storedHigh = view.getUint32(at + 12, true);
    information.uncompressedOffset[index] = view.getUint32(at, true) * ALIGNMENT;
    information.uncompressedSize[index] = (sizeAndFlags & 0xff_ffff) + 1;
    information.flags[index] = sizeAndFlags >>> 24;
    information.compressedOffset[index] = (storedHigh & 0xff) * TWO_32 + view.getUint32(at + 8, true);
    information.compressedSize[index] = storedHigh >>> 8;
    information.contextOffset[index] = view.getUint32(at + 16, true);
    information.context[index] = view.getUint32(at + 20, true);
  }
}

function encodeV2(view: DataView, information: ChunkInformation): void {
  for (let index = 0, at = 0; index < information.count; index++, at += CHUNK_INFO_LENGTH[2]) {
    const storedOffset = information.compressedOffset[index] as number;
    const size = (information.uncompressedSize[index] as number) - 1;
    view.setUint32(at, (information.uncompressedOffset[index] as number) / ALIGNMENT, true);
    view.setUint32(at + 4, (((information.flags[index] as number) << 24) | size) >>> 0, true);
    view.setUint32(at + 8, storedOffset % TWO_32, true);
    view.setUint32(
      at + 12,
      (((information.compressedSize[index] as number) << 8) | Math.floor(storedOffset / TWO_32)) >>> 0,
      true,
    );
    view.setUint32(at + 16, information.contextOffset[index] as number, true);
    view.setUint32(at + 20, information.context[index] as number, true);
  }
}

/** Chunks follow each other in the decoded blob, each at the next multiple of 4096 or later. */
function checkOrder(information: ChunkInformation, version: 1 | 2, file: string): void {
  let free = 0;
  for (let index = 0; index < information.count; index++) {
    const offset = information.uncompressedOffset[index] as number;
    const size = information.uncompressedSize[index] as number;
    const at = index * CHUNK_INFO_LENGTH[version];
    if (offset < free) {
      throw malformed(
        file,
        `uncompressed offset of chunk ${index}`,
        at,
        `is ${offset}, before ${free}, where the one before it ends`,
      );
    }
    const flags = information.flags[index] as number;
    if ((flags & ~CHUNK_INFO_FLAGS.all) !== 0) {
      throw malformed(file, `flags of chunk ${index}`, at + 7, `are 0x${flags.toString(16)}, which has unknown bits`);
    }
    const storedSize = information.compressedSize[index] as number;
    const inContext = (flags & (CHUNK_INFO_FLAGS.batch | CHUNK_INFO_FLAGS.zran)) !== 0;
    if (!inContext && (storedSize === 0 || storedSize > MAX_CHUNK_LENGTH)) {
      throw malformed(
        file,
        `compressed size of chunk ${index}`,
        at + 8,
        `is ${storedSize}, not 1 to ${MAX_CHUNK_LENGTH}`,
      );
    }
    free = alignUp(offset + size, ALIGNMENT);
  }
}

function contextTables(
  bytes: Uint8Array,
  header: MetaHeader,
  entriesLength: number,
  file: string,
): { bytes: Uint8Array; offset: number } {
  const { contextOffset, contextSize } = header;
  if (contextOffset !== entriesLength) {
    throw malformed(file, 'ci_zran_offset', 40, `is ${contextOffset}, not ${entriesLength}, where the entries end`);
  }
  if (contextOffset + contextSize > bytes.length) {
    throw malformed(
      file,
      'ci_zran_size',
      48,
      `is ${contextSize}, more than the ${bytes.length - contextOffset} bytes that are left`,
    );
  }
  return { bytes: bytes.subarray(contextOffset, contextOffset + contextSize), offset: contextOffset };
}

function readBatches(bytes: Uint8Array, count: number, offset: number, file: string): BatchContext[] {
  if (count * BATCH_CONTEXT_LENGTH > bytes.length) {
    throw malformed(file, 'ci_zran_count', 56, `is ${count}, more batches than ${bytes.length} bytes have`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: count }, (_, index) => {
    return readBatchContext(view, index * BATCH_CONTEXT_LENGTH, { index, offset, file });
  });
}

/** Every chunk of a batch or restart point lies inside of what that decodes to. */
function checkContexts(information: ChunkInformation, file: string): void {
  const { batches, restartPoints } = information;
  for (let index = 0; index < information.count; index++) {
    const flags = information.flags[index] as number;
    const at = index * CHUNK_INFO_LENGTH[2] + 16;
    const context = information.context[index] as number;
    let size: number | undefined;
    if ((flags & CHUNK_INFO_FLAGS.batch) !== 0) size = batches[context]?.uncompressedSize;
    else if ((flags & CHUNK_INFO_FLAGS.zran) !== 0) size = restartPoints[context]?.outputLength;
    else continue;
    if (size === undefined) {
      throw malformed(
        file,
        `context of chunk ${index}`,
        at + 4,
        `is ${context}, of ${batches.length + restartPoints.length}`,
      );
    }
    const end = (information.contextOffset[index] as number) + (information.uncompressedSize[index] as number);
    if (end > size) {
      throw malformed(file, `offset of chunk ${index} in its context`, at, `makes it end at ${end}, beyond ${size}`);
    }
  }
}
