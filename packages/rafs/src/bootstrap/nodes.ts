import type { ByteString } from '@pantala/base';
import type { Chunk } from '../image.ts';
import type { Attributes, Directory, FileChunks, Node } from '../tree/node.ts';
import { FileReader, type InodeData, type Tables } from './file-reader.ts';
import { MODE_PERMISSIONS } from './format.ts';
import { type BootstrapReader, refuse } from './reader.ts';

const NO_CHUNKS: FileChunks = [];

/** The files of a bootstrap as objects, each made once, when it is first asked for; a directory's all together. */
export class Nodes {
  readonly #files: FileReader;
  readonly #nodes = new Map<number, Node>();
  /** Of the file that is being read. */
  #content: Chunk[] = [];

  /** @param reader that has claimed nothing yet; the tree was checked by `TreeWalk` */
  constructor(reader: BootstrapReader, tables: Tables) {
    const { chunks } = tables;
    this.#files = new FileReader(reader, tables, refuse, (number) => this.#content.push(chunks.chunk(number)));
  }

  /** One of the tree. */
  node(nid: number): Node {
    let node = this.#nodes.get(nid);
    if (node === undefined) {
      node = this.#make(nid);
      this.#nodes.set(nid, node);
    }
    return node;
  }

  /** One that is a directory. */
  directory(nid: number): Directory {
    const node = this.node(nid);
    if (node.kind !== 'directory') return refuse('nid', 0, `${nid} is a ${node.kind}, not a directory`);
    return node;
  }

  #make(nid: number): Node {
    const files = this.#files;
    files.read(nid, 'nid', 0);
    const { inode, kind, xattrs, target } = files;
    const attributes: Attributes = {
      mode: inode.mode & MODE_PERMISSIONS,
      uid: inode.uid,
      gid: inode.gid,
      mtime: { seconds: inode.seconds, nanoseconds: inode.nanoseconds },
      xattrs,
    };
    switch (kind) {
      case 'directory':
        return this.#directory(attributes, files.data());
      case 'regular': {
        const content = this.#content.length === 0 ? NO_CHUNKS : this.#content;
        this.#content = [];
        return { kind, attributes, size: inode.size, content };
      }
      case 'symlink':
        return { kind, attributes, target };
      case 'character':
      case 'block':
        return { kind, attributes, ...deviceNumbers(inode.union) };
      case 'fifo':
      case 'socket':
        return { kind, attributes };
    }
  }

  #directory(attributes: Attributes, data: InodeData): Directory {
    const read = (): Map<ByteString, Node> => {
      const entries = new Map<ByteString, Node>();
      this.#files.readEntries(data, (name, nid) => {
        if (name !== '.' && name !== '..') entries.set(name, this.node(nid));
      });
      return entries;
    };
    return {
      kind: 'directory',
      attributes,
      get entries() {
        const value = read();
        Object.defineProperty(this, 'entries', { value, enumerable: true });
        return value;
      },
    };
  }
}

/** Linux's encoding of device numbers in 32 bits: 12 for the major, 20 for the minor, of which 8 stand lowest. */
function deviceNumbers(rdev: number): { major: number; minor: number } {
  return { major: (rdev >>> 8) & 0xfff, minor: (rdev & 0xff) | ((rdev >>> 12) & 0xfff00) };
}
