import { type ByteString, shown } from '@pantala/base';
import type { RafsImage } from '../image.ts';
import { malformed } from '../malformed.ts';
import { type Attributes, type Directory, NO_XATTRS, type Node, type NodeKind } from '../tree/node.ts';
import { readBlobs } from './blob-table.ts';
import { type ChunkSource, readFileChunks } from './chunk-indexes.ts';
import { ChunkIndex, readChunks } from './chunk-table.ts';
import { DIRENT, type Entry, readBlock } from './directory.ts';
import {
  CHUNK_INDEX_LENGTH,
  FILE_TYPE_OF_KIND,
  INODE_SLOT,
  LAYOUT,
  MODE_KIND,
  MODE_PERMISSIONS,
  PREFETCH_ENTRY_LENGTH,
  roundUp,
  XATTR_HEADER_LENGTH,
} from './format.ts';
import { COMPACT, EXTENDED, INODE, inodeLength, kindOfMode, type RawInode, readRawInode } from './inode.ts';
import { MAX_DEPTH, MAX_NAMES, MAX_TARGET_LENGTH } from './limits.ts';
import { BootstrapReader, refuse } from './reader.ts';
import { readSuperblock, SUPERBLOCK, type Superblock } from './superblock.ts';
import { readXattrs } from './xattrs.ts';

/**
 * Reads a RAFS v6 bootstrap (EROFS on-disk format with the extensions of Nydus). Digests and attributes' values of
 * the image are views of `bytes`, which must not change afterwards.
 *
 * Work and memory are bounded by the length of `bytes`. Whatever the kernel and nydusd would read differently, and
 * whatever leads nowhere, is refused.
 *
 * @throws `data-loss` with the field and its offset (see `malformed`)
 */
export function decodeBootstrap(bytes: Uint8Array): RafsImage {
  const reader = new BootstrapReader(bytes);
  const superblock = readSuperblock(reader);
  const blobs = readBlobs(reader, superblock);
  const table = readChunks(reader, superblock, blobs);
  // Of tars' chunks, whose digests nobody knows, the real builder's table has one for each blob.
  const chunks = superblock.blockSize === 512 ? new ChunkIndex(blobs, 0) : table;
  const tree = new TreeReader(reader, superblock, { superblock, blobs, chunks });
  const root = tree.read();
  return {
    root,
    blobs,
    chunkSize: superblock.chunkSize,
    compressor: superblock.compressor,
    digester: superblock.digester,
    explicitIds: superblock.explicitIds,
    blockSize: superblock.blockSize,
    prefetch: readPrefetch(reader, superblock, tree.nodes),
  };
}

function readPrefetch(reader: BootstrapReader, superblock: Superblock, nodes: ReadonlyMap<number, Node>): Node[] {
  const prefetch: Node[] = [];
  const { offset, entries } = superblock.prefetchTable;
  for (let entry = 0; entry < entries; entry++) {
    const at = offset + entry * PREFETCH_ENTRY_LENGTH;
    const nid = reader.u32(at);
    if (nid === 0) break;
    prefetch.push(nodes.get(nid) ?? refuse('prefetch_nid', at, `is ${nid}, which is no file of the tree`));
  }
  return prefetch;
}

/** A directory whose entries are still to be read, and the way to it. */
interface Place {
  readonly node: Directory;
  readonly inode: RawInode;
  /** Where its inode, with attributes, ends: an inline tail begins there. */
  readonly tail: number;
  readonly nid: number;
  readonly name: ByteString;
  readonly parent: Place | undefined;
  readonly depth: number;
}

/** Reads the tree level by level, each directory once. */
class TreeReader {
  readonly nodes = new Map<number, Node>();
  readonly #reader: BootstrapReader;
  readonly #superblock: Superblock;
  readonly #source: ChunkSource;
  readonly #queue: Place[] = [];
  /** How many more names a file may have that says it has several. */
  readonly #moreLinks = new Map<number, number>();
  #names = 1;
  /** What is being read, for errors. */
  #subject: { nid: number; name: ByteString; parent: Place | undefined } = { nid: 0, name: '', parent: undefined };
  readonly #refuse = (field: string, offset: number, fact: string): never => {
    const { nid, name, parent } = this.#subject;
    throw malformed(`bootstrap, inode ${nid} (${shown(pathOf(parent, name))})`, field, offset, fact);
  };

  constructor(reader: BootstrapReader, superblock: Superblock, source: ChunkSource) {
    this.#reader = reader;
    this.#superblock = superblock;
    this.#source = source;
  }

  read(): Directory {
    const { rootNid, inodes } = this.#superblock;
    const at = SUPERBLOCK.rootNid;
    this.#subject = { nid: rootNid, name: '', parent: undefined };
    const root = this.#readInode(rootNid, 'rootnid_2b', at, undefined);
    if (root.kind !== 'directory') refuse('rootnid_2b', at, `is ${rootNid}, which is not a directory`);
    for (let next = 0; next < this.#queue.length; next++) {
      const place = this.#queue[next] as Place;
      this.#readEntries(place);
    }
    // Some builders count the names of a file, others files.
    if (inodes > this.#names || inodes < this.nodes.size) {
      refuse(
        'inos',
        SUPERBLOCK.inodes,
        `is ${inodes}, but there are ${this.nodes.size} files with ${this.#names} names`,
      );
    }
    return root;
  }

  #readEntries(place: Place): void {
    const { inode, nid, node } = place;
    const { blockSize } = this.#superblock;
    const parentNid = place.parent?.nid ?? nid;
    let before = '';
    let dots = 0;
    for (let begin = 0; begin < inode.size; begin += blockSize) {
      this.#subject = { nid, name: place.name, parent: place.parent };
      const length = Math.min(blockSize, inode.size - begin);
      const at = this.#dataAt(inode, place.tail, begin);
      const entries = readBlock(this.#reader, at, length, blockSize, before, this.#refuse);
      for (const entry of entries) {
        before = entry.name;
        if (entry.name !== '.' && entry.name !== '..') {
          node.entries.set(entry.name, this.#readEntry(place, entry));
          continue;
        }
        dots++;
        const expected = entry.name === '.' ? nid : parentNid;
        if (entry.nid !== expected) {
          this.#refuse('nid', entry.offset, `of ${entry.name} is ${entry.nid}, but it is ${expected}`);
        }
        if (entry.fileType !== FILE_TYPE_OF_KIND.directory) {
          this.#refuse('file_type', entry.offset + DIRENT.file_type, `of ${entry.name} is ${entry.fileType}, not 2`);
        }
      }
    }
    this.#subject = { nid, name: place.name, parent: place.parent };
    if (dots !== 2) this.#refuse('i_size', inode.offset + EXTENDED.i_size, 'has no room for . and ..');
  }

  #readEntry(place: Place, entry: Entry): Node {
    this.#names++;
    if (this.#names > MAX_NAMES) this.#refuse('nid', entry.offset, `is of one name more than ${MAX_NAMES}`);
    this.#subject = { nid: entry.nid, name: entry.name, parent: place };
    const known = this.nodes.get(entry.nid);
    const node = known ?? this.#readInode(entry.nid, 'nid', entry.offset, place);
    if (FILE_TYPE_OF_KIND[node.kind] !== entry.fileType) {
      const at = entry.offset + DIRENT.file_type;
      this.#refuse(
        'file_type',
        at,
        `is ${entry.fileType}, but the inode is a ${node.kind} (${FILE_TYPE_OF_KIND[node.kind]})`,
      );
    }
    if (known !== undefined) this.#countLink(entry, known);
    return node;
  }

  #countLink(entry: Entry, node: Node): void {
    if (node.kind === 'directory') this.#refuse('nid', entry.offset, 'is a directory that has a name already');
    const more = this.#moreLinks.get(entry.nid) ?? 0;
    if (more === 0) this.#refuse('nid', entry.offset, 'is a file that has as many names as its i_nlink already');
    this.#moreLinks.set(entry.nid, more - 1);
  }

  /** `field` at `at` is what names the inode. */
  #readInode(nid: number, field: string, at: number, parent: Place | undefined): Node {
    const reader = this.#reader;
    const offset = this.#superblock.metaOffset + nid * INODE_SLOT;
    if (!reader.has(offset, 2) || !reader.has(offset, inodeLength(reader.u16(offset)))) {
      this.#refuse(field, at, `is ${nid}, beyond the end of the file`);
    }
    const inode = readRawInode(reader, offset, this.#superblock);
    const kind = this.#checkInode(inode);
    const xattrsLength = inode.xattrCount === 0 ? 0 : XATTR_HEADER_LENGTH + 4 * (inode.xattrCount - 1);
    const tail = offset + inode.length + xattrsLength;
    const countAt = offset + INODE.i_xattr_icount;
    if (!reader.has(offset, tail - offset) || !reader.claim(tail - offset)) {
      this.#refuse('i_xattr_icount', countAt, `is ${inode.xattrCount}, more than the file has`);
    }
    if (xattrsLength > 0 && !this.#superblock.hasXattrs) {
      this.#refuse('i_xattr_icount', countAt, `is ${inode.xattrCount}, but s_flags says that there are no attributes`);
    }
    const attributes: Attributes = {
      mode: inode.mode & MODE_PERMISSIONS,
      uid: inode.uid,
      gid: inode.gid,
      mtime: { seconds: inode.seconds, nanoseconds: inode.nanoseconds },
      xattrs: xattrsLength === 0 ? NO_XATTRS : readXattrs(reader, tail - xattrsLength, xattrsLength, this.#refuse),
    };
    const node = this.#node(kind, inode, attributes, tail);
    this.nodes.set(nid, node);
    if (node.kind === 'directory') this.#enqueue({ node, inode, tail, nid, name: this.#subject.name, parent });
    else if (inode.links > 1) this.#moreLinks.set(nid, inode.links - 1);
    return node;
  }

  #checkInode(inode: RawInode): NodeKind {
    const { offset } = inode;
    const layout = (inode.format >> 1) & 7;
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

  #enqueue(place: Omit<Place, 'depth'>): void {
    const depth = (place.parent?.depth ?? -1) + 1;
    if (depth > MAX_DEPTH) {
      this.#refuse('nid', place.inode.offset, `is a directory more than ${MAX_DEPTH} levels deep`);
    }
    this.#queue.push({ ...place, depth });
  }

  #node(kind: NodeKind, inode: RawInode, attributes: Attributes, tail: number): Node {
    const sizeAt = inode.offset + EXTENDED.i_size;
    switch (kind) {
      case 'directory':
        this.#claimData(inode, tail);
        return { kind, attributes, entries: new Map() };
      case 'regular':
        return { kind, attributes, size: inode.size, content: this.#readContent(inode, tail) };
      case 'symlink': {
        if (inode.size === 0 || inode.size > MAX_TARGET_LENGTH) {
          this.#refuse('i_size', sizeAt, `is ${inode.size}: targets have 1 to ${MAX_TARGET_LENGTH} bytes`);
        }
        this.#claimData(inode, tail);
        return { kind, attributes, target: this.#readTarget(inode, tail) };
      }
      case 'character':
      case 'block':
        if (inode.size !== 0) this.#refuse('i_size', sizeAt, `is ${inode.size}: a ${kind} device has no bytes`);
        return { kind, attributes, ...deviceNumbers(inode.union) };
      case 'fifo':
      case 'socket':
        if (inode.size !== 0) this.#refuse('i_size', sizeAt, `is ${inode.size}: a ${kind} has no bytes`);
        return { kind, attributes };
    }
  }

  #readContent(inode: RawInode, tail: number) {
    const count = Math.ceil(inode.size / this.#superblock.chunkSize);
    const length = count * CHUNK_INDEX_LENGTH;
    const begin = roundUp(tail, CHUNK_INDEX_LENGTH);
    if (!this.#reader.has(begin, length) || !this.#reader.claim(length)) {
      const fact = `is ${inode.size}: the file has no room for indexes of ${count} chunks`;
      this.#refuse('i_size', inode.offset + EXTENDED.i_size, fact);
    }
    return readFileChunks(this.#reader, this.#source, inode, begin, this.#refuse);
  }

  #readTarget(inode: RawInode, tail: number): ByteString {
    const { blockSize } = this.#superblock;
    let target = '';
    for (let begin = 0; begin < inode.size; begin += blockSize) {
      const at = this.#dataAt(inode, tail, begin);
      target += this.#reader.string(at, at + Math.min(blockSize, inode.size - begin));
    }
    // The kernel would end the target there.
    if (target.includes('\0')) this.#refuse('target', this.#dataAt(inode, tail, 0), 'holds a NUL byte');
    return target;
  }

  /** Makes sure that the data of a directory or symlink lies in the file, and where the kernel looks for it. */
  #claimData(inode: RawInode, tail: number): void {
    const { blockSize } = this.#superblock;
    const sizeAt = inode.offset + EXTENDED.i_size;
    if (inode.size > this.#reader.length || !this.#reader.claim(inode.size)) {
      this.#refuse('i_size', sizeAt, `is ${inode.size}, more than the file has`);
    }
    const inline = ((inode.format >> 1) & 7) === LAYOUT.flatInline;
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
  #dataAt(inode: RawInode, tail: number, begin: number): number {
    const { blockSize } = this.#superblock;
    const inline = ((inode.format >> 1) & 7) === LAYOUT.flatInline;
    return inline && begin + blockSize > inode.size ? tail : inode.union * blockSize + begin;
  }
}

/** Linux's encoding of device numbers in 32 bits: 12 for the major, 20 for the minor, of which 8 stand lowest. */
function deviceNumbers(rdev: number): { major: number; minor: number } {
  return { major: (rdev >>> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00) };
}

function pathOf(parent: Place | undefined, name: ByteString): ByteString {
  if (parent === undefined) return '/';
  const names = [name];
  for (let place = parent; place.parent !== undefined; place = place.parent) names.unshift(place.name);
  return `/${names.join('/')}`;
}
