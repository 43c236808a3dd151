import type { NodeKind } from '../tree/node.ts';
import { COMPACT_INODE_LENGTH, EXTENDED_INODE_LENGTH, FORMAT_EXTENDED, MODE_OF_KIND } from './format.ts';
import type { BootstrapReader } from './reader.ts';
import type { Superblock } from './superblock.ts';

/** Offsets of the fields of an inode, by their EROFS names; compact ones (32 bytes) first. */
export const COMPACT = { i_nlink: 6, i_size: 8, i_mtime: 12, i_uid: 24, i_gid: 26 } as const;
export const EXTENDED = {
  i_nb: 6,
  i_size: 8,
  i_uid: 24,
  i_gid: 28,
  i_mtime: 32,
  i_mtime_nsec: 40,
  i_nlink: 44,
} as const;
export const INODE = { i_format: 0, i_xattr_icount: 2, i_mode: 4, i_u: 16, i_ino: 20 } as const;

/** Length of the inode whose first two bytes are `format`. */
export function inodeLength(format: number): number {
  return (format & FORMAT_EXTENDED) === 0 ? COMPACT_INODE_LENGTH : EXTENDED_INODE_LENGTH;
}

/** What stands in an inode. One is used for many, one after the other: a bootstrap has a million of them. */
export class Inode {
  offset = 0;
  extended = false;
  length = 0;
  format = 0;
  xattrCount = 0;
  mode = 0;
  size = 0;
  union = 0;
  uid = 0;
  gid = 0;
  seconds = 0;
  nanoseconds = 0;
  links = 0;
  /** Bytes that are reserved here and must be 0. */
  reserved = 0;

  /** The caller has made sure that the whole inode lies in the file. */
  read(reader: BootstrapReader, offset: number, superblock: Superblock): void {
    this.offset = offset;
    this.format = reader.u16(offset);
    this.xattrCount = reader.u16(offset + INODE.i_xattr_icount);
    this.mode = reader.u16(offset + INODE.i_mode);
    this.union = reader.u32(offset + INODE.i_u);
    this.extended = (this.format & FORMAT_EXTENDED) !== 0;
    if (this.extended) {
      this.length = EXTENDED_INODE_LENGTH;
      this.size = reader.u64(offset + EXTENDED.i_size);
      this.uid = reader.u32(offset + EXTENDED.i_uid);
      this.gid = reader.u32(offset + EXTENDED.i_gid);
      this.seconds = reader.i64(offset + EXTENDED.i_mtime);
      this.nanoseconds = reader.u32(offset + EXTENDED.i_mtime_nsec);
      this.links = reader.u32(offset + EXTENDED.i_nlink);
      this.reserved = reader.u16(offset + EXTENDED.i_nb);
    } else {
      this.length = COMPACT_INODE_LENGTH;
      this.size = reader.u32(offset + COMPACT.i_size);
      this.uid = reader.u16(offset + COMPACT.i_uid);
      this.gid = reader.u16(offset + COMPACT.i_gid);
      this.seconds = superblock.buildTime.seconds;
      this.nanoseconds = superblock.buildTime.nanoseconds;
      this.links = reader.u16(offset + COMPACT.i_nlink);
      this.reserved = reader.u32(offset + COMPACT.i_mtime);
    }
  }
}

const KIND_OF_MODE = new Map<number, NodeKind>(
  (Object.keys(MODE_OF_KIND) as NodeKind[]).map((kind) => [MODE_OF_KIND[kind], kind]),
);

export function kindOfMode(bits: number): NodeKind | undefined {
  return KIND_OF_MODE.get(bits);
}
