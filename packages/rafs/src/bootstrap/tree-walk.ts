import { type ByteString, shown } from '@pantala/base';
import { malformed } from '../malformed.ts';
import { DIRENT } from './directory.ts';
import { FileReader, type InodeData, type Tables } from './file-reader.ts';
import { FILE_TYPE_OF_KIND, INODE_SLOT } from './format.ts';
import { EXTENDED } from './inode.ts';
import { MAX_DEPTH, MAX_NAMES } from './limits.ts';
import { type BootstrapReader, refuse } from './reader.ts';
import { SUPERBLOCK, type Superblock } from './superblock.ts';

/** A directory whose entries are still to be read, and the way to it. */
interface Place extends InodeData {
  /** Of its inode. */
  readonly offset: number;
  readonly nid: number;
  readonly name: ByteString;
  readonly parent: Place | undefined;
  readonly depth: number;
}

/**
 * Goes through the whole tree of a bootstrap, level by level, each directory once, and refuses whatever cannot be. It
 * makes no objects for files: most mounts never need them.
 */
export class TreeWalk {
  readonly #superblock: Superblock;
  readonly #files: FileReader;
  /** `file_type` of the inodes that were read, by nid; 0 of others. */
  readonly #types: Uint8Array;
  readonly #queue: Place[] = [];
  /** How many more names a file may have that says it has several. */
  readonly #moreLinks = new Map<number, number>();
  #inodes = 0;
  #names = 1;
  /** What is being read, for errors. */
  #nid = 0;
  #name: ByteString = '';
  #parent: Place | undefined;

  constructor(reader: BootstrapReader, tables: Tables) {
    const { superblock, chunks } = tables;
    this.#superblock = superblock;
    this.#types = new Uint8Array(Math.ceil((reader.length - superblock.metaOffset) / INODE_SLOT));
    this.#files = new FileReader(
      reader,
      tables,
      (field, offset, fact) => this.#refuse(field, offset, fact),
      (number) => chunks.use(number),
    );
  }

  /** @throws `data-loss` */
  check(): void {
    const { rootNid, inodes } = this.#superblock;
    const at = SUPERBLOCK.rootNid;
    this.#nid = rootNid;
    this.#readInode(rootNid, 'rootnid_2b', at, undefined);
    if (this.#files.kind !== 'directory') refuse('rootnid_2b', at, `is ${rootNid}, which is not a directory`);
    for (let next = 0; next < this.#queue.length; next++) this.#readEntries(this.#queue[next] as Place);
    // Some builders count the names of a file, others files.
    if (inodes > this.#names || inodes < this.#inodes) {
      refuse('inos', SUPERBLOCK.inodes, `is ${inodes}, but there are ${this.#inodes} files with ${this.#names} names`);
    }
  }

  /** Whether a file of the tree has that number. */
  has(nid: number): boolean {
    return this.#typeOf(nid) !== 0;
  }

  #typeOf(nid: number): number {
    return this.#types[nid] ?? 0;
  }

  #readEntries(place: Place): void {
    const { nid } = place;
    const parentNid = place.parent?.nid ?? nid;
    let dots = 0;
    this.#nowReading(place);
    this.#files.readEntries(place, (name, entryNid, fileType, offset) => {
      if (name !== '.' && name !== '..') {
        this.#readEntry(place, name, entryNid, fileType, offset);
        this.#nowReading(place);
        return;
      }
      dots++;
      const expected = name === '.' ? nid : parentNid;
      if (entryNid !== expected) this.#refuse('nid', offset, `of ${name} is ${entryNid}, but it is ${expected}`);
      if (fileType !== FILE_TYPE_OF_KIND.directory) {
        this.#refuse('file_type', offset + DIRENT.file_type, `of ${name} is ${fileType}, not 2`);
      }
    });
    if (dots !== 2) this.#refuse('i_size', place.offset + EXTENDED.i_size, 'has no room for . and ..');
  }

  #readEntry(place: Place, name: ByteString, nid: number, fileType: number, offset: number): void {
    this.#names++;
    if (this.#names > MAX_NAMES) this.#refuse('nid', offset, `is of one name more than ${MAX_NAMES}`);
    this.#nid = nid;
    this.#name = name;
    this.#parent = place;
    const known = this.#typeOf(nid);
    const type = known === 0 ? this.#readInode(nid, 'nid', offset, place) : known;
    if (type !== fileType) {
      const kind = Object.entries(FILE_TYPE_OF_KIND).find(([, each]) => each === type)?.[0];
      this.#refuse('file_type', offset + DIRENT.file_type, `is ${fileType}, but the inode is a ${kind} (${type})`);
    }
    if (known !== 0) this.#countLink(nid, type, offset);
  }

  #countLink(nid: number, type: number, offset: number): void {
    if (type === FILE_TYPE_OF_KIND.directory) this.#refuse('nid', offset, 'is a directory that has a name already');
    const more = this.#moreLinks.get(nid) ?? 0;
    if (more === 0) this.#refuse('nid', offset, 'is a file that has as many names as its i_nlink already');
    this.#moreLinks.set(nid, more - 1);
  }

  /** @returns its `file_type` */
  #readInode(nid: number, field: string, at: number, parent: Place | undefined): number {
    const files = this.#files;
    files.read(nid, field, at);
    const type = FILE_TYPE_OF_KIND[files.kind];
    this.#types[nid] = type;
    this.#inodes++;
    if (files.kind === 'directory') this.#enqueue(nid, parent);
    else if (files.inode.links > 1) this.#moreLinks.set(nid, files.inode.links - 1);
    return type;
  }

  #enqueue(nid: number, parent: Place | undefined): void {
    const { offset } = this.#files.inode;
    const depth = (parent?.depth ?? -1) + 1;
    if (depth > MAX_DEPTH) this.#refuse('nid', offset, `is a directory more than ${MAX_DEPTH} levels deep`);
    this.#queue.push({ ...this.#files.data(), offset, nid, name: this.#name, parent, depth });
  }

  #nowReading(place: Place): void {
    this.#nid = place.nid;
    this.#name = place.name;
    this.#parent = place.parent;
  }

  #refuse(field: string, offset: number, fact: string): never {
    const file = shown(pathOf(this.#parent, this.#name));
    throw malformed(`bootstrap, inode ${this.#nid} (${file})`, field, offset, fact);
  }
}

function pathOf(parent: Place | undefined, name: ByteString): ByteString {
  if (parent === undefined) return '/';
  const names = [name];
  for (let place = parent; place.parent !== undefined; place = place.parent) names.unshift(place.name);
  return `/${names.join('/')}`;
}
