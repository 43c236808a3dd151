import type { ByteString } from '@pantala/base';
import type { BlobInfo } from '../image.ts';
import { NO_XATTRS, type NodeKind } from '../tree/node.ts';
import { readFileChunks } from './chunk-indexes.ts';
import { type EachEntry, readBlock } from './directory.ts';
import { CHUNK_INDEX_LENGTH, INODE_SLOT, LAYOUT, MODE_KIND, roundUp, XATTR_HEADER_LENGTH } from './format.ts';
import type { ListedChunks, TarChunks } from './image-chunks.ts';
import { COMPACT, EXTENDED, INODE, Inode, inodeLength, kindOfMode } from './inode.ts';
import { MAX_TARGET_LENGTH } from './limits.ts';
import type { BootstrapReader } from './reader.ts';
import type { Superblock } from './superblock.ts';
import { type Refuse, readXattrs } from './xattrs.ts';

/** The tables of a bootstrap, read and checked. */
export interface Tables {
  readonly superblock: Superblock;
  readonly blobs: readonly BlobInfo[];
  readonly chunks: ListedChunks | TarChunks;
}

/** Where the data of a directory or symlink lies. */
export interface InodeData {
  /** Bytes. */
  readonly size: number;
  /** Block of what does not lie behind the inode. */
  readonly union: number;
  readonly format: number;
  /** Where the inode, with its attributes, ends: an inline tail begins there. */
  readonly tail: number;
}

/**
 * Reads the inodes of a bootstrap with all that hangs on them, and refuses whatever cannot be. What it found last stands
 * in its fields.
 */
export class FileReader {
  readonly inode = new Inode();
  kind: NodeKind = 'regular';
  tail = 0;
  xattrs: ReadonlyMap<ByteString, Uint8Array> = NO_XATTRS;
  /** Of a symlink. */
  target: ByteString = '';
  readonly #reader: BootstrapReader;
  readonly #tables: Tables;
  readonly #refuse: Refuse;
  readonly #eachChunk: (number: number) => void;

  /** @param eachChunk is called with the number of every chunk of a file, in order */
  constructor(reader: BootstrapReader, tables: Tables, refuse: Refuse, eachChunk: (number: number) => void) {
    this.#reader = reader;
    this.#tables = tables;
    this.#refuse = refuse;
    this.#eachChunk = eachChunk;
  }

  /** `field` at `at` is what names the inode. */
  read(nid: number, field: string, at: number): void {
    const { superblock } = this.#tables;
    const reader = this.#reader;
    const { inode } = this;
    const offset = superblock.metaOffset + nid * INODE_SLOT;
    if (!reader.has(offset, 2) || !reader.has(offset, inodeLength(reader.u16(offset)))) {
      this.#refuse(field, at, `is ${nid}, beyond the end of the file`);
    }
    inode.read(reader, offset, superblock);
    this.kind = this.#checkInode();
    const xattrsLength = inode.xattrCount === 0 ? 0 : XATTR_HEADER_LENGTH + 4 * (inode.xattrCount - 1);
    const length = inode.length + xattrsLength;
    this.tail = offset + length;
    const countAt = offset + INODE.i_xattr_icount;
    if (!reader.has(offset, length) || !reader.claim(length)) {
      this.#refuse('i_xattr_icount', countAt, `is ${inode.xattrCount}, more than the file has`);
    }
    if (xattrsLength > 0 && !superblock.hasXattrs) {
      this.#refuse('i_xattr_icount', countAt, `is ${inode.xattrCount}, but s_flags says that there are no attributes`);
    }
    this.xattrs =
      xattrsLength === 0 ? NO_XATTRS : readXattrs(reader, this.tail - xattrsLength, xattrsLength, this.#refuse);
    this.#readData();
  }

  /** The same of the inode that was read last. */
  data(): InodeData {
    const { size, union, format } = this.inode;
    return { size, union, format, tail: this.tail };
  }

  /** The entries of a directory in the order of their names. */
  readEntries(directory: InodeData, each: EachEntry): void {
    const { blockSize } = this.#tables.superblock;
    let before = '';
    for (let begin = 0; begin < directory.size; begin += blockSize) {
      const length = Math.min(blockSize, directory.size - begin);
      const at = this.#dataAt(directory, begin);
      before = readBlock(this.#reader, at, length, blockSize, before, this.#refuse, each);
    }
  }

  #checkInode(): NodeKind {
    const { inode } = this;
    const { offset } = inode;
    const layout = layoutOf(inode);
    const kind =
      kindOfMode(inode.mode & MODE_KIND) ??
      this.#refuse('i_mode', offset + INODE.i_mode, `is 0o${inode.mode.toString(8)}, which is no kind of file`);
    const sound =
      kind === 'regular'
        ? layout === LAYOUT.chunkBased
        : layout === LAYOUT.flatPlain || ((kind === 'directory' || kind === 'symlink') && layout === LAYOUT.flatInline);
    if (inode.format > 0xf || !sound) {
      this.#refuse('i_format', offset, `is 0x${inode.format.toString(16)}, which a ${kind} cannot have`);
    }
    if (!Number.isSafeInteger(inode.size)) {
      this.#refuse('i_size', offset + EXTENDED.i_size, `is ${inode.size}, larger than any file`);
    }
    if (inode.links === 0) {
      this.#refuse('i_nlink', offset + (inode.extended ? EXTENDED.i_nlink : COMPACT.i_nlink), 'is 0');
    }
    if (inode.reserved !== 0) {
      const [field, at] = inode.extended ? ['i_nb', EXTENDED.i_nb] : ['i_mtime', COMPACT.i_mtime];
      this.#refuse(field as string, offset + (at as number), `is ${inode.reserved}: it is reserved and 0`);
    }
    if (inode.nanoseconds >= 1e9) {
      this.#refuse('i_mtime_nsec', offset + EXTENDED.i_mtime_nsec, `is ${inode.nanoseconds}, a second or more`);
    }
    if (!Number.isSafeInteger(inode.seconds)) {
      this.#refuse('i_mtime', offset + EXTENDED.i_mtime, `is ${inode.seconds}, too far from 1970`);
    }
    return kind;
  }

  #readData(): void {
    const { inode, kind } = this;
    const sizeAt = inode.offset + EXTENDED.i_size;
    switch (kind) {
      case 'directory':
        this.#claimData();
        break;
      case 'regular':
        this.#readChunks();
        break;
      case 'symlink':
        if (inode.size === 0 || inode.size > MAX_TARGET_LENGTH) {
          this.#refuse('i_size', sizeAt, `is ${inode.size}: targets have 1 to ${MAX_TARGET_LENGTH} bytes`);
        }
        this.#claimData();
        this.target = this.#readTarget();
        break;
      case 'character':
      case 'block':
        if (inode.size !== 0) this.#refuse('i_size', sizeAt, `is ${inode.size}: a ${kind} device has no bytes`);
        break;
      case 'fifo':
      case 'socket':
        if (inode.size !== 0) this.#refuse('i_size', sizeAt, `is ${inode.size}: a ${kind} has no bytes`);
    }
  }

  #readChunks(): void {
    const { inode, tail } = this;
    const count = Math.ceil(inode.size / this.#tables.superblock.chunkSize);
    const length = count * CHUNK_INDEX_LENGTH;
    const begin = roundUp(tail, CHUNK_INDEX_LENGTH);
    if (!this.#reader.has(begin, length) || !this.#reader.claim(length)) {
      const fact = `is ${inode.size}: the file has no room for indexes of ${count} chunks`;
      this.#refuse('i_size', inode.offset + EXTENDED.i_size, fact);
    }
    readFileChunks(this.#reader, this.#tables, inode, begin, this.#refuse, this.#eachChunk);
  }

  #readTarget(): ByteString {
    const { blockSize } = this.#tables.superblock;
    const data = this.data();
    let target = '';
    for (let begin = 0; begin < data.size; begin += blockSize) {
      const at = this.#dataAt(data, begin);
      target += this.#reader.string(at, at + Math.min(blockSize, data.size - begin));
    }
    // The kernel would end the target there.
    if (target.includes('\0')) this.#refuse('target', this.#dataAt(data, 0), 'holds a NUL byte');
    return target;
  }

  /** Makes sure that the data of a directory or symlink lies in the file, and where the kernel looks for it. */
  #claimData(): void {
    const { inode, tail } = this;
    const { blockSize } = this.#tables.superblock;
    const sizeAt = inode.offset + EXTENDED.i_size;
    if (inode.size > this.#reader.length || !this.#reader.claim(inode.size)) {
      this.#refuse('i_size', sizeAt, `is ${inode.size}, more than the file has`);
    }
    const inline = layoutOf(inode) === LAYOUT.flatInline;
    const inTail = inline ? inode.size % blockSize : 0;
    if (inline && inTail === 0) {
      this.#refuse('i_size', sizeAt, `is ${inode.size}, which leaves nothing to lie behind the inode`);
    }
    if (inTail > 0 && (tail % blockSize) + inTail > blockSize) {
      this.#refuse('i_size', sizeAt, `is ${inode.size}: what lies behind the inode would cross a block`);
    }
    if (!this.#reader.has(tail, inTail)) this.#refuse('i_size', sizeAt, `is ${inode.size}, more than the file has`);
    const inBlocks = inode.size - inTail;
    if (inBlocks > 0 && !this.#reader.has(inode.union * blockSize, inBlocks)) {
      this.#refuse('i_u', inode.offset + INODE.i_u, `is block ${inode.union}, from where the file has too few bytes`);
    }
  }

  /** Where the block of an inode's data lies that begins at `begin` of it. */
  #dataAt(data: InodeData, begin: number): number {
    const { blockSize } = this.#tables.superblock;
    const inline = layoutOf(data) === LAYOUT.flatInline;
    return inline && begin + blockSize > data.size ? data.tail : data.union * blockSize + begin;
  }
}

function layoutOf({ format }: { readonly format: number }): number {
  return (format >> 1) & 7;
}
