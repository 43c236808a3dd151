import type { BlobInfo, Chunk } from '../image.ts';
import type { FileChunks } from '../tree/node.ts';
import { type ChunkIndex, chunkFault, DIGEST_LENGTH } from './chunk-table.ts';
import { CHUNK_FORMAT_BITS, CHUNK_FORMAT_INDEXES, CHUNK_INDEX_LENGTH } from './format.ts';
import { INODE } from './inode.ts';
import type { BootstrapReader } from './reader.ts';
import type { Superblock } from './superblock.ts';
import type { Refuse } from './xattrs.ts';

/** Offsets in a chunk index: the low 16 bits of its index in the blob, device and high 8 bits, block. */
export const CHUNK_INDEX = { indexLow: 0, device_id: 2, blkaddr: 4 } as const;

/** Of chunks of an image that has no chunk table: one whose blobs are tars. */
const NO_DIGEST = new Uint8Array(DIGEST_LENGTH);
const NO_CHUNKS: FileChunks = [];

export interface ChunkSource {
  readonly superblock: Superblock;
  readonly blobs: readonly BlobInfo[];
  /** Of an image without chunk table it fills as they are found. */
  readonly chunks: ChunkIndex;
}

/** The chunk indexes of a file of `size` bytes begin at `offset`; the caller has claimed them. */
export function readFileChunks(
  reader: BootstrapReader,
  source: ChunkSource,
  inode: { readonly offset: number; readonly size: number; readonly union: number },
  offset: number,
  refuse: Refuse,
): FileChunks {
  const { chunkSize } = source.superblock;
  const count = Math.ceil(inode.size / chunkSize);
  const consecutive = checkKernelView(source.superblock, inode, count, refuse);
  if (count === 0) return NO_CHUNKS;
  const chunks: Chunk[] = [];
  for (let position = 0; position < count; position++) {
    const at = offset + position * CHUNK_INDEX_LENGTH;
    const length = position === count - 1 ? inode.size - position * chunkSize : chunkSize;
    const chunk = readChunk(reader, source, at, length, refuse);
    chunks.push(chunk);
    const first = chunks[0] as Chunk;
    const follows =
      chunk.blobIndex === first.blobIndex &&
      chunk.uncompressedOffset === first.uncompressedOffset + position * chunkSize;
    if (consecutive && !follows) {
      refuse('blkaddr', at + CHUNK_INDEX.blkaddr, 'does not follow the chunk before, as i_u says of the whole file');
    }
  }
  return chunks;
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

function readChunk(reader: BootstrapReader, source: ChunkSource, at: number, length: number, refuse: Refuse): Chunk {
  const { superblock, blobs } = source;
  const high = reader.u16(at + CHUNK_INDEX.device_id);
  const blobIndex = (high & 0xff) - 1;
  const index = (high >> 8) * 2 ** 16 + reader.u16(at + CHUNK_INDEX.indexLow);
  const uncompressedOffset = reader.u32(at + CHUNK_INDEX.blkaddr) * superblock.blockSize;
  const blob = blobs[blobIndex];
  if (blob === undefined) {
    return refuse('device_id', at + CHUNK_INDEX.device_id, `is ${high & 0xff}, but there are ${blobs.length} blobs`);
  }
  let chunk = source.chunks.get(blobIndex, index);
  if (chunk === undefined) {
    if (superblock.blockSize !== 512) {
      return refuse('ci_index', at, `is ${index} of blob ${blobIndex}, which the chunk table does not have`);
    }
    chunk = tarChunk(blobIndex, index, uncompressedOffset, length);
    const fault = chunkFault(chunk, blob, superblock);
    if (fault?.field === 'index') refuse('ci_index', at, fault.fact);
    if (fault !== undefined)
      refuse('blkaddr', at + CHUNK_INDEX.blkaddr, `makes a chunk whose ${fault.field} ${fault.fact}`);
    source.chunks.set(chunk);
  }
  if (chunk.uncompressedOffset !== uncompressedOffset) {
    const fact = `is block ${uncompressedOffset / superblock.blockSize}, but chunk ${index} of blob ${blobIndex} is not there`;
    refuse('blkaddr', at + CHUNK_INDEX.blkaddr, fact);
  }
  if (uncompressedOffset + length > blob.uncompressedSize) {
    refuse('blkaddr', at + CHUNK_INDEX.blkaddr, 'puts the chunk behind the end of its blob');
  }
  if (chunk.uncompressedSize !== length) {
    refuse('ci_index', at, `is a chunk of ${chunk.uncompressedSize} bytes, but the file needs ${length} there`);
  }
  return chunk;
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
