import { DIGEST_LENGTH } from '../codec/digests.ts';
import type { BlobInfo, Chunk } from '../image.ts';
import { chunkFault } from './chunk-table.ts';
import { CHUNK_FORMAT_BITS, CHUNK_FORMAT_INDEXES, CHUNK_INDEX_LENGTH } from './format.ts';
import { ListedChunks, type TarChunks } from './image-chunks.ts';
import { INODE } from './inode.ts';
import type { BootstrapReader } from './reader.ts';
import type { Superblock } from './superblock.ts';
import type { Refuse } from './xattrs.ts';

/** Offsets in a chunk index: the low 16 bits of its index in the blob, device and high 8 bits, block. */
export const CHUNK_INDEX = { indexLow: 0, device_id: 2, blkaddr: 4 } as const;

/** Of chunks of an image that has no chunk table: one whose blobs are tars. */
const NO_DIGEST = new Uint8Array(DIGEST_LENGTH);

export interface ChunkSource {
  readonly superblock: Superblock;
  readonly blobs: readonly BlobInfo[];
  /** Of an image without chunk table it fills as they are found. */
  readonly chunks: ListedChunks | TarChunks;
}

/**
 * The chunk indexes of a file of `size` bytes begin at `offset`; the caller has claimed them.
 *
 * @param each is called with the number of every chunk of the file, in order
 */
export function readFileChunks(
  reader: BootstrapReader,
  source: ChunkSource,
  inode: { readonly offset: number; readonly size: number; readonly union: number },
  offset: number,
  refuse: Refuse,
  each: (number: number) => void,
): void {
  const { chunkSize } = source.superblock;
  const { chunks } = source;
  const count = Math.ceil(inode.size / chunkSize);
  const consecutive = checkKernelView(source.superblock, inode, count, refuse);
  let firstBlob = -1;
  let begin = 0;
  for (let position = 0; position < count; position++) {
    const at = offset + position * CHUNK_INDEX_LENGTH;
    const length = position === count - 1 ? inode.size - position * chunkSize : chunkSize;
    const number = readChunk(reader, source, at, length, refuse);
    if (consecutive) {
      const blobIndex = blobIndexAt(reader, at);
      if (position === 0) [firstBlob, begin] = [blobIndex, chunks.offsetOf(number)];
      if (blobIndex !== firstBlob || chunks.offsetOf(number) !== begin + position * chunkSize) {
        refuse('blkaddr', at + CHUNK_INDEX.blkaddr, 'does not follow the chunk before, as i_u says of the whole file');
      }
    }
    each(number);
  }
}

/**
 * The kernel takes the chunk size from the inode and reads one index for each such chunk, RAFS takes it from the
 * superblock. Both see the same bytes if the sizes are equal, or if one chunk of the kernel's is the whole file.
 *
 * @returns whether the file's chunks must follow each other in one blob, since the kernel reads only the first index
 */
function checkKernelView(
  superblock: Superblock,
  inode: { readonly offset: number; readonly size: number; readonly union: number },
  count: number,
  refuse: Refuse,
): boolean {
  const at = inode.offset + INODE.i_u;
  const shown = `is 0x${inode.union.toString(16)}`;
  if ((inode.union & ~CHUNK_FORMAT_BITS) !== CHUNK_FORMAT_INDEXES) {
    refuse('i_u', at, `${shown}: the format of RAFS v6 is 0x20 and log2 of the chunk's blocks`);
  }
  const kernelSize = superblock.blockSize * 2 ** (inode.union & CHUNK_FORMAT_BITS);
  if (kernelSize === superblock.chunkSize) return false;
  if (kernelSize < inode.size) {
    refuse('i_u', at, `${shown}, chunks of ${kernelSize} bytes: neither the image's ${superblock.chunkSize} nor all`);
  }
  return count > 1;
}

function blobIndexAt(reader: BootstrapReader, at: number): number {
  return (reader.u16(at + CHUNK_INDEX.device_id) & 0xff) - 1;
}

/** The number of the chunk that an index names. */
function readChunk(reader: BootstrapReader, source: ChunkSource, at: number, length: number, refuse: Refuse): number {
  const { superblock, blobs, chunks } = source;
  const high = reader.u16(at + CHUNK_INDEX.device_id);
  const blobIndex = (high & 0xff) - 1;
  const index = (high >> 8) * 2 ** 16 + reader.u16(at + CHUNK_INDEX.indexLow);
  const uncompressedOffset = reader.u32(at + CHUNK_INDEX.blkaddr) * superblock.blockSize;
  const blob = blobs[blobIndex];
  if (blob === undefined) {
    return refuse('device_id', at + CHUNK_INDEX.device_id, `is ${high & 0xff}, but there are ${blobs.length} blobs`);
  }
  let number = chunks.find(blobIndex, index);
  if (number < 0) {
    if (chunks instanceof ListedChunks) {
      return refuse('ci_index', at, `is ${index} of blob ${blobIndex}, which the chunk table does not have`);
    }
    const chunk = tarChunk(blobIndex, index, uncompressedOffset, length);
    const fault = chunkFault(chunk, blob, superblock);
    if (fault?.field === 'index') refuse('ci_index', at, fault.fact);
    if (fault !== undefined)
      refuse('blkaddr', at + CHUNK_INDEX.blkaddr, `makes a chunk whose ${fault.field} ${fault.fact}`);
    number = chunks.add(chunk);
  }
  if (chunks.offsetOf(number) !== uncompressedOffset) {
    const fact = `is block ${uncompressedOffset / superblock.blockSize}, but chunk ${index} of blob ${blobIndex} is not there`;
    refuse('blkaddr', at + CHUNK_INDEX.blkaddr, fact);
  }
  if (uncompressedOffset + length > blob.uncompressedSize) {
    refuse('blkaddr', at + CHUNK_INDEX.blkaddr, 'puts the chunk behind the end of its blob');
  }
  if (chunks.sizeOf(number) !== length) {
    refuse('ci_index', at, `is a chunk of ${chunks.sizeOf(number)} bytes, but the file needs ${length} there`);
  }
  return number;
}

function tarChunk(blobIndex: number, index: number, offset: number, length: number): Chunk {
  return {
    digest: NO_DIGEST,
    blobIndex,
    index,
    compressedOffset: offset,
    compressedSize: length,
    uncompressedOffset: offset,
    uncompressedSize: length,
    compressed: false,
    batched: false,
    crc32c: undefined,
  };
}
