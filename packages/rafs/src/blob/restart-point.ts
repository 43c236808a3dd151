import { malformed } from '../malformed.ts';
import { MAX_DICTIONARY, MAX_RESTART_LENGTH } from './limits.ts';

/** Bytes of a ZRan context in the chunk information; the dictionaries follow the last one. */
export const RESTART_POINT_LENGTH = 40;

/** Where decoding of an unmodified gzip layer can begin, and how far it goes. RAFS calls it a ZRan context. */
export interface RestartPoint {
  /** Of the first whole byte of input in the stored layer. */
  readonly inputOffset: number;
  readonly inputLength: number;
  /** Bytes that are decoded from there. */
  readonly outputLength: number;
  /** Bits of `byte`, counted from its high end, that belong to the input, before the first whole byte. */
  readonly bits: number;
  readonly byte: number;
  /** The decoded bytes before it, up to 32 KiB; empty at the beginning of a gzip member. */
  readonly dictionary: Uint8Array;
}

/**
 * @param offset of `bytes` in the chunk information, for errors
 * @throws `data-loss`
 */
export function readRestartPoints(bytes: Uint8Array, count: number, offset: number, file: string): RestartPoint[] {
  const tableLength = count * RESTART_POINT_LENGTH;
  if (tableLength > bytes.length) {
    throw malformed(file, 'ci_zran_count', 56, `is ${count}, more contexts than ${bytes.length} bytes have`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const dictionaries = bytes.subarray(tableLength);
  return Array.from({ length: count }, (_, index) => {
    const at = index * RESTART_POINT_LENGTH;
    const refuse = (field: string, fieldOffset: number, reason: string) =>
      malformed(file, `${field} of context ${index}`, offset + at + fieldOffset, reason);
    const inputLength = view.getUint32(at + 24, true);
    const outputLength = view.getUint32(at + 28, true);
    for (const [name, value, field] of [
      ['input length', inputLength, 24],
      ['output length', outputLength, 28],
    ] as const) {
      if (value > MAX_RESTART_LENGTH) throw refuse(name, field, `is ${value}, more than ${MAX_RESTART_LENGTH}`);
    }
    const start = Number(view.getBigUint64(at + 16, true));
    const length = view.getUint32(at + 32, true);
    if (length > MAX_DICTIONARY) throw refuse('dictionary size', 32, `is ${length}, more than ${MAX_DICTIONARY}`);
    if (start + length > dictionaries.length) {
      throw refuse(
        'dictionary offset',
        16,
        `is ${start}: ${length} bytes from there end beyond ${dictionaries.length}`,
      );
    }
    const bits = view.getUint8(at + 37);
    if (bits > 7) throw refuse('bits', 37, `are ${bits}, more than 7`);
    return {
      inputOffset: Number(view.getBigUint64(at, true)),
      inputLength,
      outputLength,
      bits,
      byte: view.getUint8(at + 36),
      dictionary: dictionaries.subarray(start, start + length),
    };
  });
}
