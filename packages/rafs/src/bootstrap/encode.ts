import { type ByteString, PantalaError } from '@pantala/base';
import type { BlobInfo, Chunk, RafsImage } from '../image.ts';
import type { Node, RegularFile } from '../tree/node.ts';
import { blobFault, blocksOf, writeBlob, writeDevice } from './blob-table.ts';
import { CHUNK_INDEX } from './chunk-indexes.ts';
import { sortedChunks, writeChunk } from './chunk-table.ts';
import { DIRENT, directoryLength, packBlock } from './directory.ts';
import {
  BLOB_ENTRY_LENGTH,
  CHUNK_ENTRY_LENGTH,
  CHUNK_FORMAT_INDEXES,
  CHUNK_INDEX_LENGTH,
  DEVICE_SLOT_LENGTH,
  DEVICE_TABLE_OFFSET,
  DIRENT_LENGTH,
  EXTENDED_INODE_LENGTH,
  FILE_TYPE_OF_KIND,
  FORMAT_EXTENDED,
  INODE_SLOT,
  LAYOUT,
  MODE_OF_KIND,
  PAGE,
  PREFETCH_ENTRY_LENGTH,
  roundUp,
  setUint64,
} from './format.ts';
import { EXTENDED, INODE } from './inode.ts';
import { MAX_BLOBS, MAX_BOOTSTRAP_LENGTH, MAX_PREFETCH } from './limits.ts';
import { type Plan, type PlannedDirectory, planBootstrap } from './plan.ts';
import { isChunkSize, writeSuperblock } from './superblock.ts';
import { writeXattrs, XATTR_UNIT } from './xattrs.ts';

/** In one device for all, blobs begin at multiples of it. */
const MAPPING_ALIGNMENT = 0x8_0000;

/**
 * Writes a RAFS v6 bootstrap, which is an EROFS image too: the same bytes for the same image. Inodes are always
 * extended, attributes inline and sorted, hard links of every kind stay what they are.
 *
 * @throws `invalid-argument` naming the file or blob that RAFS v6 cannot hold, and why
 */
export function encodeBootstrap(image: RafsImage): Buffer {
  checkImage(image);
  const plan = planBootstrap(image);
  return new BootstrapWriter(image, plan).write();
}

function checkImage(image: RafsImage): void {
  const { blobs, chunkSize } = image;
  if (!isChunkSize(chunkSize)) {
    throw new PantalaError('invalid-argument', `chunks of ${chunkSize} bytes: powers of two from 4 KiB to 16 MiB`);
  }
  if (blobs.length > MAX_BLOBS) {
    throw new PantalaError('invalid-argument', `${blobs.length} blobs, an image holds at most ${MAX_BLOBS}`);
  }
  if (image.prefetch.length > MAX_PREFETCH) {
    const fact = `${image.prefetch.length} files to prefetch, at most ${MAX_PREFETCH}: name directories, or the root`;
    throw new PantalaError('invalid-argument', fact);
  }
  const ids = new Set<string>();
  for (const [index, blob] of blobs.entries()) {
    const fault = blobFault(blob, image);
    if (fault !== undefined) {
      throw new PantalaError('invalid-argument', `blob ${index} (${blob.id}): ${fault.field} ${fault.fact}`);
    }
    if (ids.has(blob.id)) throw new PantalaError('invalid-argument', `blob ${blob.id} stands twice in the image`);
    ids.add(blob.id);
  }
}

class BootstrapWriter {
  readonly #image: RafsImage;
  readonly #plan: Plan;
  readonly #chunks: Chunk[];
  readonly #blobTable: number;
  readonly #prefetchTable: number;
  readonly #meta: number;
  readonly #chunkTable: number;
  readonly #bytes: Buffer;
  readonly #view: DataView;

  constructor(image: RafsImage, plan: Plan) {
    const { blobs, prefetch, blockSize } = image;
    this.#image = image;
    this.#plan = plan;
    // The digests of tars' chunks are not known.
    this.#chunks = blockSize === 512 ? [] : sortedChunks(plan.chunks);
    this.#blobTable = roundUp(DEVICE_TABLE_OFFSET + blobs.length * DEVICE_SLOT_LENGTH, PAGE);
    this.#prefetchTable = this.#blobTable + blobs.length * BLOB_ENTRY_LENGTH;
    const tablesEnd = this.#prefetchTable + prefetch.length * PREFETCH_ENTRY_LENGTH;
    // The page before the root is unused, so without tables it may be the superblock's.
    this.#meta = tablesEnd === this.#blobTable ? this.#blobTable - PAGE : roundUp(tablesEnd, PAGE);
    this.#chunkTable = roundUp(this.#meta + plan.end, PAGE);
    const length = roundUp(this.#chunkTable + this.#chunks.length * CHUNK_ENTRY_LENGTH, PAGE);
    if (length > MAX_BOOTSTRAP_LENGTH) {
      const fact = `the bootstrap would have ${length} bytes, at most ${MAX_BOOTSTRAP_LENGTH} are read: use larger chunks`;
      throw new PantalaError('invalid-argument', fact);
    }
    this.#bytes = Buffer.alloc(length);
    this.#view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, length);
  }

  write(): Buffer {
    const { blobs, prefetch, blockSize } = this.#image;
    const bytes = this.#bytes;
    writeSuperblock(bytes, this.#image, {
      names: this.#plan.names,
      blocks: blobs.reduce((sum, blob) => sum + blocksOf(blob, blockSize), 0),
      metaOffset: this.#meta,
      hasXattrs: this.#plan.hasXattrs,
      blobTable: this.#blobTable,
      chunkTable: { offset: this.#chunkTable, entries: this.#chunks.length },
      prefetchTable: this.#prefetchTable,
    });
    for (const [index, begin] of mappings(blobs, bytes.length, blockSize).entries()) {
      const blob = blobs[index] as BlobInfo;
      writeDevice(bytes, DEVICE_TABLE_OFFSET + index * DEVICE_SLOT_LENGTH, blob, blockSize, begin);
      writeBlob(bytes, this.#blobTable + index * BLOB_ENTRY_LENGTH, blob, index);
    }
    for (const [index, node] of prefetch.entries()) {
      bytes.writeUInt32LE(this.#nidOf(node), this.#prefetchTable + index * PREFETCH_ENTRY_LENGTH);
    }
    for (let position = 0; position < this.#plan.nodes.length; position++) this.#writeInode(position);
    for (const directory of this.#plan.directories) this.#writeDirectory(directory);
    for (const [index, chunk] of this.#chunks.entries()) {
      writeChunk(bytes, this.#view, this.#chunkTable + index * CHUNK_ENTRY_LENGTH, chunk);
    }
    return bytes;
  }

  #nidOf(node: Node): number {
    const position = this.#plan.positions.get(node);
    if (position === undefined) {
      throw new PantalaError('invalid-argument', 'the list of what to prefetch names a file that is not in the tree');
    }
    return this.#nid(position);
  }

  #nid(position: number): number {
    return (this.#plan.offsets[position] as number) / INODE_SLOT;
  }

  #writeInode(position: number): void {
    const plan = this.#plan;
    const view = this.#view;
    const node = plan.nodes[position] as Node;
    const { mode, uid, gid, mtime, xattrs } = node.attributes;
    const offset = this.#meta + (plan.offsets[position] as number);
    const xattrsLength = plan.xattrs[position] as number;
    const tail = offset + EXTENDED_INODE_LENGTH + xattrsLength;
    const { layout, size, union } = this.#writeData(position, node, tail);
    view.setUint16(offset + INODE.i_format, FORMAT_EXTENDED | (layout << 1), true);
    if (xattrsLength > 0) {
      view.setUint16(offset + INODE.i_xattr_icount, (xattrsLength - 12) / XATTR_UNIT + 1, true);
      writeXattrs(this.#bytes, tail - xattrsLength, xattrs);
    }
    view.setUint16(offset + INODE.i_mode, MODE_OF_KIND[node.kind] | mode, true);
    setUint64(view, offset + EXTENDED.i_size, size);
    view.setUint32(offset + INODE.i_u, union, true);
    view.setUint32(offset + INODE.i_ino, position + 1, true);
    view.setUint32(offset + EXTENDED.i_uid, uid, true);
    view.setUint32(offset + EXTENDED.i_gid, gid, true);
    setUint64(view, offset + EXTENDED.i_mtime, mtime.seconds);
    view.setUint32(offset + EXTENDED.i_mtime_nsec, mtime.nanoseconds, true);
    view.setUint32(offset + EXTENDED.i_nlink, plan.links[position] as number, true);
  }

  /** Writes what belongs to an inode but a directory's entries, which need the places of all. */
  #writeData(position: number, node: Node, tail: number): { layout: number; size: number; union: number } {
    switch (node.kind) {
      case 'regular':
        return { layout: LAYOUT.chunkBased, size: node.size, union: this.#writeChunkIndexes(node, tail) };
      case 'symlink': {
        const size = node.target.length;
        const { layout, union, dataAt } = this.#dataPlace(position, size, tail);
        for (let begin = 0; begin < size; begin += this.#image.blockSize) {
          this.#bytes.write(node.target.slice(begin, begin + this.#image.blockSize), dataAt(begin), 'latin1');
        }
        return { layout, size, union };
      }
      case 'directory':
        return { layout: LAYOUT.flatPlain, size: 0, union: 0 };
      case 'character':
      case 'block':
        return { layout: LAYOUT.flatPlain, size: 0, union: deviceNumber(node.major, node.minor) };
      case 'fifo':
      case 'socket':
        return { layout: LAYOUT.flatPlain, size: 0, union: 0 };
    }
  }

  #dataPlace(position: number, size: number, tail: number) {
    const { blockSize } = this.#image;
    const inTail = size % blockSize;
    const inode = EXTENDED_INODE_LENGTH + (this.#plan.xattrs[position] as number);
    const inline = inTail > 0 && inode + inTail <= blockSize;
    const blocks = this.#plan.blocks[position] as number;
    const begin = blocks === -1 ? 0 : this.#meta + blocks;
    return {
      layout: inline ? LAYOUT.flatInline : LAYOUT.flatPlain,
      union: begin / blockSize,
      dataAt: (at: number): number => (inline && at + blockSize > size ? tail : begin + at),
    };
  }

  /** Writes the indexes and returns their format. */
  #writeChunkIndexes({ size, content }: RegularFile, tail: number): number {
    const { blockSize, chunkSize } = this.#image;
    const view = this.#view;
    let offset = roundUp(tail, CHUNK_INDEX_LENGTH);
    const first = content[0];
    let consecutive = content.length > 1;
    for (let index = 0; index < content.length; index++) {
      const chunk = content[index] as Chunk;
      view.setUint16(offset + CHUNK_INDEX.indexLow, chunk.index & 0xffff, true);
      view.setUint16(offset + CHUNK_INDEX.device_id, ((chunk.index >>> 16) << 8) | (chunk.blobIndex + 1), true);
      view.setUint32(offset + CHUNK_INDEX.blkaddr, chunk.uncompressedOffset / blockSize, true);
      offset += CHUNK_INDEX_LENGTH;
      consecutive &&=
        chunk.blobIndex === first?.blobIndex &&
        chunk.uncompressedOffset === first.uncompressedOffset + index * chunkSize;
    }
    // The kernel then reads the file as one extent, by the first index alone; RAFS goes by its own chunk size.
    const kernelSize = consecutive ? size : chunkSize;
    let bits = 0;
    while (blockSize * 2 ** bits < kernelSize) bits++;
    return CHUNK_FORMAT_INDEXES | bits;
  }

  #writeDirectory({ position, names, children }: PlannedDirectory): void {
    const { blockSize } = this.#image;
    const plan = this.#plan;
    const view = this.#view;
    const bytes = this.#bytes;
    const offset = this.#meta + (plan.offsets[position] as number);
    const tail = offset + EXTENDED_INODE_LENGTH + (plan.xattrs[position] as number);
    const size = directoryLength(names, blockSize);
    const { layout, union, dataAt } = this.#dataPlace(position, size, tail);
    view.setUint16(offset + INODE.i_format, FORMAT_EXTENDED | (layout << 1), true);
    setUint64(view, offset + EXTENDED.i_size, size);
    view.setUint32(offset + INODE.i_u, union, true);
    let begin = 0;
    for (let from = 0; from < names.length; begin += blockSize) {
      const { to } = packBlock(names, from, blockSize);
      const block = dataAt(begin);
      let nameAt = (to - from) * DIRENT_LENGTH;
      for (let index = from; index < to; index++) {
        const name = names[index] as ByteString;
        const child = children[index] as number;
        const entry = block + (index - from) * DIRENT_LENGTH;
        setUint64(view, entry + DIRENT.nid, this.#nid(child));
        view.setUint16(entry + DIRENT.nameoff, nameAt, true);
        view.setUint8(entry + DIRENT.file_type, FILE_TYPE_OF_KIND[(plan.nodes[child] as Node).kind]);
        bytes.write(name, block + nameAt, 'latin1');
        nameAt += name.length;
      }
      from = to;
    }
  }
}

/** Where each blob begins, in blocks, in one device of which the bootstrap is the first part; 0 where it would not fit. */
function mappings(blobs: readonly BlobInfo[], length: number, blockSize: number): number[] {
  let end = length;
  return blobs.map((blob) => {
    const begin = roundUp(end, MAPPING_ALIGNMENT);
    end = begin + blob.uncompressedSize;
    return end / blockSize > 2 ** 32 ? 0 : begin / blockSize;
  });
}

/** Linux's encoding in 32 bits: see `deviceNumbers` of the reader. */
function deviceNumber(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & 0xfff00) << 12)) >>> 0;
}
