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

/** What stands in an inode. */
export interface RawInode {
  readonly offset: number;
  readonly extended: boolean;
  readonly length: number;
  readonly format: number;
  readonly xattrCount: number;
  readonly mode: number;
  readonly size: number;
  readonly union: number;
  readonly uid: number;
  readonly gid: number;
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly links: number;
  /** Bytes that are reserved here and must be 0. */
  readonly reserved: number;
}

/** Length of the inode whose first two bytes are `format`. */
export function inodeLength(format: number): number {
  return (format & FORMAT_EXTENDED) === 0 ? COMPACT_INODE_LENGTH : EXTENDED_INODE_LENGTH;
}

/** The caller has made sure that the whole inode lies in the file. */
export function readRawInode(reader: BootstrapReader, offset: number, superblock: Superblock): RawInode {
  const format = reader.u16(offset);
  const common = {
    offset,
    format,
    xattrCount: reader.u16(offset + INODE.i_xattr_icount),
    mode: reader.u16(offset + INODE.i_mode),
    union: reader.u32(offset + INODE.i_u),
  };
  if ((format & FORMAT_EXTENDED) === 0) {
    return {
      ...common,
      extended: false,
      length: COMPACT_INODE_LENGTH,
      size: reader.u32(offset + COMPACT.i_size),
      uid: reader.u16(offset + COMPACT.i_uid),
      gid: reader.u16(offset + COMPACT.i_gid),
      seconds: superblock.buildTime.seconds,
      nanoseconds: superblock.buildTime.nanoseconds,
      links: reader.u16(offset + COMPACT.i_nlink),
      reserved: reader.u32(offset + COMPACT.i_mtime),
    };
  }
  return {
    ...common,
    extended: true,
    length: EXTENDED_INODE_LENGTH,
    size: reader.u64(offset + EXTENDED.i_size),
    uid: reader.u32(offset + EXTENDED.i_uid),
    gid: reader.u32(offset + EXTENDED.i_gid),
    seconds: reader.i64(offset + EXTENDED.i_mtime),
    nanoseconds: reader.u32(offset + EXTENDED.i_mtime_nsec),
    links: reader.u32(offset + EXTENDED.i_nlink),
    reserved: reader.u16(offset + EXTENDED.i_nb),
  };
}

const KIND_OF_MODE = new Map<number, NodeKind>(
  (Object.keys(MODE_OF_KIND) as NodeKind[]).map((kind) => [MODE_OF_KIND[kind], kind]),
);

export function kindOfMode(bits: number): NodeKind | undefined {
  return KIND_OF_MODE.get(bits);
}
