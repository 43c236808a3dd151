import { type ByteString, PantalaError, shown } from '@pantala/base';
import { type Chunk, type RafsImage, sameChunk } from '../image.ts';
import type { Directory, FileChunks, Node, RegularFile } from '../tree/node.ts';
import { sortedNames } from '../tree/walk.ts';
import { ChunkNumbers } from './chunk-numbers.ts';
import { chunkFault } from './chunk-table.ts';
import { directoryLength } from './directory.ts';
import { CHUNK_INDEX_LENGTH, EXTENDED_INODE_LENGTH, MAX_NAME_LENGTH, roundUp } from './format.ts';
import { MAX_DEPTH, MAX_NAMES, MAX_TARGET_LENGTH } from './limits.ts';
import { Space } from './space.ts';
import { xattrsLength } from './xattrs.ts';

/** A directory and the positions of what it holds. */
export interface PlannedDirectory {
  readonly position: number;
  readonly parent: PlannedDirectory | undefined;
  readonly name: ByteString;
  readonly depth: number;
  /** Sorted, with `.` and `..`. */
  names: ByteString[];
  /** For each name the position of its node. */
  children: number[];
}

/** Of blobs that say to have more, only what files need of them takes memory. */
const MAX_EXPECTED_CHUNKS = 2 ** 20;

/** Where everything stands, relative to `meta_blkaddr`. Nodes are known by their position in the first four. */
export interface Plan {
  readonly nodes: Node[];
  readonly offsets: number[];
  /** Of the whole blocks of directories and symlinks, -1 without any. */
  readonly blocks: number[];
  /** Bytes of extended attributes. */
  readonly xattrs: number[];
  readonly links: number[];
  readonly directories: PlannedDirectory[];
  readonly positions: ReadonlyMap<Node, number>;
  /** Names of files in all, the root's included. */
  readonly names: number;
  readonly hasXattrs: boolean;
  readonly end: number;
  /** Each once. */
  readonly chunks: readonly Chunk[];
}

/** Gives every file its place: a directory, then what it holds but directories, then those in order. */
export function planBootstrap(image: RafsImage): Plan {
  return new Planner(image).plan();
}

class Planner {
  readonly #image: RafsImage;
  readonly #space: Space;
  readonly #nodes: Node[] = [];
  readonly #offsets: number[] = [];
  readonly #blocks: number[] = [];
  readonly #xattrs: number[] = [];
  readonly #links: number[] = [];
  readonly #directories: PlannedDirectory[] = [];
  readonly #positions = new Map<Node, number>();
  readonly #chunks: Chunk[] = [];
  readonly #chunkNumbers: ChunkNumbers;
  #names = 0;
  #hasXattrs = false;

  constructor(image: RafsImage) {
    this.#image = image;
    this.#space = new Space(image.blockSize);
    const chunks = image.blobs.reduce((sum, blob) => sum + blob.chunkCount, 0);
    this.#chunkNumbers = new ChunkNumbers(image.blobs, Math.min(chunks, MAX_EXPECTED_CHUNKS));
  }

  plan(): Plan {
    const { root } = this.#image;
    const top = { position: this.#add(root), parent: undefined, name: '', depth: 0, names: [], children: [] };
    const open: PlannedDirectory[] = [top];
    for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
      open.push(...this.#planDirectory(directory).toReversed());
    }
    return {
      nodes: this.#nodes,
      offsets: this.#offsets,
      blocks: this.#blocks,
      xattrs: this.#xattrs,
      links: this.#links,
      directories: this.#directories,
      positions: this.#positions,
      names: this.#names,
      hasXattrs: this.#hasXattrs,
      end: this.#space.end,
      chunks: this.#chunks,
    };
  }

  #planDirectory(directory: PlannedDirectory): PlannedDirectory[] {
    this.#directories.push(directory);
    const { position } = directory;
    const node = this.#nodes[position] as Directory;
    const names = sortedNames(node);
    if (this.#names + names.length > MAX_NAMES) {
      throw unfit(directory, undefined, `has the name after ${MAX_NAMES} others: no image holds more`);
    }
    for (const name of names) checkName(directory, name);
    directory.names = [...names, '.', '..'].sort();
    this.#checked(directory, undefined, () => {
      this.#placeWithData(position, directoryLength(directory.names, this.#image.blockSize));
    });
    // Its own dot, and its entry in the parent; subdirectories add theirs below.
    this.#links[position] = 2;
    const below: PlannedDirectory[] = [];
    for (const name of directory.names) {
      const child = name === '.' || name === '..' ? undefined : node.entries.get(name);
      if (child === undefined) {
        directory.children.push(name === '.' ? position : (directory.parent?.position ?? position));
        continue;
      }
      directory.children.push(this.#planEntry(directory, name, child, below));
    }
    return below;
  }

  #planEntry(directory: PlannedDirectory, name: ByteString, child: Node, below: PlannedDirectory[]): number {
    const known = this.#positions.get(child);
    if (known !== undefined) {
      if (child.kind === 'directory') {
        throw unfit(directory, name, 'is a directory that has another name already');
      }
      this.#names++;
      this.#links[known] = (this.#links[known] as number) + 1;
      return known;
    }
    const position = this.#add(child);
    if (child.kind === 'directory') {
      const depth = directory.depth + 1;
      if (depth > MAX_DEPTH) throw unfit(directory, name, `is a directory more than ${MAX_DEPTH} levels deep`);
      this.#links[directory.position] = (this.#links[directory.position] as number) + 1;
      below.push({ position, parent: directory, name, depth, names: [], children: [] });
    } else {
      this.#checked(directory, name, () => this.#place(position, child));
    }
    return position;
  }

  #add(node: Node): number {
    const position = this.#nodes.length;
    this.#nodes.push(node);
    this.#offsets.push(-1);
    this.#blocks.push(-1);
    this.#xattrs.push(0);
    this.#links.push(1);
    this.#positions.set(node, position);
    this.#names++;
    return position;
  }

  #place(position: number, node: Exclude<Node, Directory>): void {
    if (node.kind === 'symlink') {
      checkTarget(node.target);
      this.#placeWithData(position, node.target.length);
      return;
    }
    const inode = EXTENDED_INODE_LENGTH + this.#attributesLength(position);
    if (node.kind === 'regular') {
      this.#checkContent(node);
      const indexes = node.content.length * CHUNK_INDEX_LENGTH;
      this.#offsets[position] = this.#space.inode(roundUp(inode, CHUNK_INDEX_LENGTH) + indexes);
      return;
    }
    if (node.kind === 'character' || node.kind === 'block') checkNumbers(node.major, node.minor);
    this.#offsets[position] = this.#space.inode(inode);
  }

  /** A directory or symlink: what does not fill blocks stands behind the inode where it fits into the inode's block. */
  #placeWithData(position: number, length: number): void {
    const { blockSize } = this.#image;
    const inode = EXTENDED_INODE_LENGTH + this.#attributesLength(position);
    const tail = length % blockSize;
    const inline = tail > 0 && inode + tail <= blockSize;
    this.#offsets[position] = inline ? this.#space.inodeWithTail(inode + tail) : this.#space.inode(inode);
    const inBlocks = inline ? length - tail : length;
    if (inBlocks > 0) this.#blocks[position] = this.#space.blocks(inBlocks);
  }

  #attributesLength(position: number): number {
    const { attributes } = this.#nodes[position] as Node;
    checkAttributes(attributes);
    const length = xattrsLength(attributes.xattrs);
    if (length > 0) this.#hasXattrs = true;
    this.#xattrs[position] = length;
    return length;
  }

  #checkContent(file: RegularFile): void {
    const { size, content } = file;
    const { chunkSize } = this.#image;
    if (!Number.isSafeInteger(size) || size < 0) throw new PantalaError('invalid-argument', `has a size of ${size}`);
    if (content.length !== Math.ceil(size / chunkSize)) {
      throw new PantalaError('invalid-argument', `has ${size} bytes, but ${content.length} chunks of ${chunkSize}`);
    }
    for (let index = 0; index < content.length; index++) this.#checkChunk(file, index);
  }

  #checkChunk({ size, content }: { readonly size: number; readonly content: FileChunks }, index: number): void {
    const { chunkSize, blobs } = this.#image;
    const chunk = content[index] as Chunk;
    const length = index === content.length - 1 ? size - index * chunkSize : chunkSize;
    if (chunk.uncompressedSize !== length) {
      const fact = `needs ${length} bytes as chunk ${index}, which has ${chunk.uncompressedSize}`;
      throw new PantalaError('invalid-argument', fact);
    }
    const known = this.#chunks[this.#chunkNumbers.get(chunk.blobIndex, chunk.index)];
    if (known === chunk) return;
    if (known !== undefined) {
      if (sameChunk(known, chunk)) return;
      const fact = `has a chunk that differs from another one with index ${chunk.index} of blob ${chunk.blobIndex}`;
      throw new PantalaError('invalid-argument', fact);
    }
    const blob = blobs[chunk.blobIndex];
    if (blob === undefined) {
      throw new PantalaError('invalid-argument', `has a chunk in blob ${chunk.blobIndex} of ${blobs.length}`);
    }
    const fault = chunkFault(chunk, blob, this.#image);
    if (fault !== undefined) {
      throw new PantalaError('invalid-argument', `has a chunk whose ${fault.field} ${fault.fact}`);
    }
    this.#chunkNumbers.set(chunk.blobIndex, chunk.index, this.#chunks.push(chunk) - 1);
  }

  /** Says of which file an error speaks. */
  #checked(directory: PlannedDirectory, name: ByteString | undefined, place: () => void): void {
    try {
      place();
    } catch (error) {
      if (error instanceof PantalaError) throw unfit(directory, name, error.message, error);
      throw error;
    }
  }
}

function checkName(directory: PlannedDirectory, name: ByteString): void {
  if (name.length > MAX_NAME_LENGTH) {
    throw unfit(directory, name, `has a name of ${name.length} bytes, at most ${MAX_NAME_LENGTH} fit`);
  }
  if (name === '' || name === '.' || name === '..' || name.includes('/') || !isText(name)) {
    throw unfit(directory, name, 'has a name that no file can have');
  }
}

/** Bytes without NUL, which ends names and targets in the kernel. */
function isText(value: ByteString): boolean {
  for (let index = 0; index < value.length; index++) {
    const code = value.charCodeAt(index);
    if (code === 0 || code > 0xff) return false;
  }
  return true;
}

function checkTarget(target: ByteString): void {
  if (target.length === 0 || target.length > MAX_TARGET_LENGTH || !isText(target)) {
    const fact = `is a symlink to ${target.length} bytes: 1 to ${MAX_TARGET_LENGTH} without NUL are possible`;
    throw new PantalaError('invalid-argument', fact);
  }
}

function checkNumbers(major: number, minor: number): void {
  if (!isNumber(major, 0xfff) || !isNumber(minor, 0xfffff)) {
    throw new PantalaError('invalid-argument', `is device ${major}:${minor}: Linux has 12 and 20 bits for it`);
  }
}

function checkAttributes({ mode, uid, gid, mtime }: Node['attributes']): void {
  if (!isNumber(mode, 0o7777)) throw new PantalaError('invalid-argument', `has mode 0o${mode.toString(8)}`);
  if (!isNumber(uid, 0xffff_ffff) || !isNumber(gid, 0xffff_ffff)) {
    throw new PantalaError('invalid-argument', `has owner ${uid}:${gid}, which 32 bits do not hold`);
  }
  if (!Number.isSafeInteger(mtime.seconds) || !isNumber(mtime.nanoseconds, 999_999_999)) {
    throw new PantalaError('invalid-argument', `has the time ${mtime.seconds} s and ${mtime.nanoseconds} ns`);
  }
}

function isNumber(value: number, most: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= most;
}

function unfit(
  directory: PlannedDirectory,
  name: ByteString | undefined,
  fact: string,
  cause?: PantalaError,
): PantalaError {
  const names = name === undefined ? [] : [name];
  for (let place = directory; place.parent !== undefined; place = place.parent) names.unshift(place.name);
  const path = shown(`/${names.join('/')}`);
  return new PantalaError('invalid-argument', `${path} ${fact}`, { cause, details: { path } });
}
