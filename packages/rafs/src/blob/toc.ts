import type { Compressor } from '../image.ts';
import { malformed } from '../malformed.ts';

/** Bytes of an entry of the table of contents. */
export const TOC_ENTRY_LENGTH = 128;

/** Entries of one table; blobs have five sections. */
export const MAX_TOC_ENTRIES = 32;

const FLAGS: ReadonlyMap<number, Compressor> = new Map([
  [1, 'none'],
  [2, 'zstd'],
  [4, 'lz4_block'],
]);
const COMPRESSOR_MASK = 0xf;
const NAME_LENGTH = 16;

/** A section of a blob. */
export interface TocEntry {
  /** One of SECTIONS, or a name of a later version. */
  readonly name: string;
  readonly compressor: Compressor;
  /** SHA-256 of the decompressed section; of the section as it is for `image.blob`. */
  readonly digest: Uint8Array;
  /** In the stored blob; older builders say for `image.blob`, which begins at 0, where it ends. */
  readonly offset: number;
  readonly compressedSize: number;
  readonly uncompressedSize: number;
}

export function encodeToc(entries: readonly TocEntry[]): Uint8Array {
  const bytes = Buffer.alloc(entries.length * TOC_ENTRY_LENGTH);
  for (const [index, entry] of entries.entries()) {
    const at = index * TOC_ENTRY_LENGTH;
    const flag = [...FLAGS].find(([, compressor]) => compressor === entry.compressor);
    bytes.writeUInt32LE(flag?.[0] ?? 0, at);
    bytes.write(entry.name, at + 8, 'latin1');
    bytes.set(entry.digest, at + 24);
    bytes.writeBigUInt64LE(BigInt(entry.offset), at + 56);
    bytes.writeBigUInt64LE(BigInt(entry.compressedSize), at + 64);
    bytes.writeBigUInt64LE(BigInt(entry.uncompressedSize), at + 72);
  }
  return bytes;
}

/**
 * @param offset of the table in the file, which it says all sections lie before; for errors, too
 * @throws `data-loss`
 */
export function decodeToc(bytes: Uint8Array, offset: number, file: string): TocEntry[] {
  const count = bytes.length / TOC_ENTRY_LENGTH;
  if (!Number.isInteger(count) || count === 0 || count > MAX_TOC_ENTRIES) {
    throw malformed(
      file,
      'size of the table of contents',
      offset,
      `is ${bytes.length}, not ${TOC_ENTRY_LENGTH} bytes for each of 1 to ${MAX_TOC_ENTRIES} entries`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: count }, (_, index) => {
    const at = index * TOC_ENTRY_LENGTH;
    const refuse = (field: string, fieldOffset: number, reason: string) =>
      malformed(file, `${field} of TOC entry ${index}`, offset + at + fieldOffset, reason);
    const flags = view.getUint32(at, true);
    const compressor = FLAGS.get(flags & COMPRESSOR_MASK);
    if (compressor === undefined) throw refuse('flags', 0, `are 0x${flags.toString(16)}, which name no one compressor`);
    const [start, compressedSize, uncompressedSize] = [56, 64, 72].map((field) => {
      return Number(view.getBigUint64(at + field, true));
    }) as [number, number, number];
    if (compressedSize > offset) throw refuse('compressed size', 64, `is ${compressedSize}, more than the blob has`);
    if (start > offset) throw refuse('compressed offset', 56, `is ${start}, beyond the blob's sections`);
    if (uncompressedSize > Number.MAX_SAFE_INTEGER) throw refuse('uncompressed size', 72, `is ${uncompressedSize}`);
    const name = Buffer.from(bytes.buffer, bytes.byteOffset + at + 8, NAME_LENGTH)
      .toString('latin1')
      .replace(/\0.*$/s, '');
    return { name, compressor, digest: bytes.slice(at + 24, at + 56), offset: start, compressedSize, uncompressedSize };
  });
}
