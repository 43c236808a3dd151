import { malformed } from '../malformed.ts';
import { MAX_CHUNK_LENGTH } from './limits.ts';

/** Bytes of a batch context in the chunk information. */
export const BATCH_CONTEXT_LENGTH = 40;

/** Small chunks that are compressed together, without the gaps that align them in the decoded blob. */
export interface BatchContext {
  /** Bytes in the stored blob; as many as `uncompressedSize` when the batch is stored as it is. */
  readonly compressedSize: number;
  /** Bytes of all its chunks. */
  readonly uncompressedSize: number;
}

/** @throws `data-loss` */
export function readBatchContext(
  view: DataView,
  at: number,
  place: { readonly index: number; readonly offset: number; readonly file: string },
): BatchContext {
  const compressedSize = view.getUint32(at, true);
  const uncompressedSize = view.getUint32(at + 4, true);
  for (const [name, value, field] of [
    ['compressed size', compressedSize, 0],
    ['uncompressed size', uncompressedSize, 4],
  ] as const) {
    if (value === 0 || value > MAX_CHUNK_LENGTH) {
      throw malformed(
        place.file,
        `${name} of batch ${place.index}`,
        place.offset + at + field,
        `is ${value}, not 1 to ${MAX_CHUNK_LENGTH}`,
      );
    }
  }
  return { compressedSize, uncompressedSize };
}

export function writeBatchContext(view: DataView, at: number, batch: BatchContext): void {
  view.setUint32(at, batch.compressedSize, true);
  view.setUint32(at + 4, batch.uncompressedSize, true);
}
