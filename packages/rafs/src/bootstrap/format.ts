/**
 * Where things stand in a RAFS v6 bootstrap, which is an EROFS image: the superblock of EROFS, an extension of 256
 * bytes, device slots, blob table, prefetch table, inodes with directories and chunk indexes, chunk table.
 * All integers are little-endian. (EROFS on-disk format; RAFS v6 of Nydus.)
 */

import type { Compressor, Digester } from '../image.ts';

/** Tables begin at multiples of it, also where blocks have 512 bytes. */
export const PAGE = 4096;

export const SUPERBLOCK_OFFSET = 1024;
export const EXTENSION_OFFSET = 1152;
export const DEVICE_TABLE_OFFSET = 1408;
export const DEVICE_SLOT_LENGTH = 128;
/** The device table's offset in units of a slot. */
export const DEVICE_TABLE_SLOT = DEVICE_TABLE_OFFSET / DEVICE_SLOT_LENGTH;
export const BLOB_ENTRY_LENGTH = 256;
export const CHUNK_ENTRY_LENGTH = 80;
export const PREFETCH_ENTRY_LENGTH = 4;
export const BLOB_ID_LENGTH = 64;

export const EROFS_MAGIC = 0xe0f5_e1e2;
/** Says that the extension is there. Compatible: a kernel may ignore it. */
export const COMPAT_RAFS_V6 = 0x4000_0000;
/** A checksum of the superblock follows, which RAFS never has. */
export const COMPAT_CHECKSUM = 0x1;
/** Files by chunks, and a device table: nothing else is RAFS. */
export const INCOMPAT_RAFS_V6 = 0x4 | 0x8;

/** Inodes begin at multiples of it; a nid counts them from `meta_blkaddr` on. */
export const INODE_SLOT = 32;
export const COMPACT_INODE_LENGTH = 32;
export const EXTENDED_INODE_LENGTH = 64;
/** One page after `meta_blkaddr`, so that no inode has nid 0, which directories cannot show. */
export const ROOT_NID = PAGE / INODE_SLOT;

/** How the data of an inode lies (bits 1 to 3 of `i_format`). */
export const LAYOUT = { flatPlain: 0, flatInline: 2, chunkBased: 4 } as const;
export const FORMAT_EXTENDED = 1;
/** In `i_u` of chunk-based inodes: entries of 8 bytes. The low five bits are log2(chunk size / block size). */
export const CHUNK_FORMAT_INDEXES = 0x20;
export const CHUNK_FORMAT_BITS = 0x1f;
export const CHUNK_INDEX_LENGTH = 8;

export const DIRENT_LENGTH = 12;
export const MAX_NAME_LENGTH = 255;

export const XATTR_HEADER_LENGTH = 12;
export const XATTR_ENTRY_LENGTH = 4;

/** Bits of `i_mode`. */
export const MODE_KIND = 0o170000;
export const MODE_PERMISSIONS = 0o7777;
export const MODE_OF_KIND = {
  directory: 0o040000,
  regular: 0o100000,
  symlink: 0o120000,
  character: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  socket: 0o140000,
} as const;

/** `file_type` of a directory's entry. */
export const FILE_TYPE_OF_KIND = {
  regular: 1,
  directory: 2,
  character: 3,
  block: 4,
  fifo: 5,
  socket: 6,
  symlink: 7,
} as const;

/** `s_flags` of the extension. */
export const FLAGS = {
  compressionNone: 0x1,
  compressionLz4: 0x2,
  blake3: 0x4,
  sha256: 0x8,
  explicitIds: 0x10,
  hasXattrs: 0x20,
  compressionGzip: 0x40,
  compressionZstd: 0x80,
  inlinedDigests: 0x100,
  tarfs: 0x200,
  encryptionNone: 0x0100_0000,
  encryptionAes: 0x0200_0000,
  /** Reserved for what a reader need not understand. */
  compatible: 0xfc00_0000,
} as const;

export const KNOWN_FLAGS = Object.values(FLAGS).reduce((all, flag) => all + flag, 0);

export const COMPRESSOR_FLAGS: Readonly<Record<Compressor, number>> = {
  none: FLAGS.compressionNone,
  lz4_block: FLAGS.compressionLz4,
  gzip: FLAGS.compressionGzip,
  zstd: FLAGS.compressionZstd,
};

export const DIGESTER_FLAGS: Readonly<Record<Digester, number>> = { blake3: FLAGS.blake3, sha256: FLAGS.sha256 };

/** Numbers of the blob table and of the chunk information's header are positions in these. */
export const COMPRESSORS: readonly Compressor[] = ['none', 'lz4_block', 'gzip', 'zstd'];
export const DIGESTERS: readonly Digester[] = ['blake3', 'sha256'];

/** `flags` of the chunk table. */
export const CHUNK_FLAGS = { compressed: 0x1, batched: 0x8, hasCrc32c: 0x10 } as const;

/** Bits of a blob's features that a reader may not ignore, and those of them that are defined. */
export const INCOMPATIBLE_FEATURES = 0xffff;
export const KNOWN_INCOMPATIBLE_FEATURES = 0xfff;
/** Marks builders' own blobs in memory. */
export const INTERNAL_FEATURE = 0x8000_0000;

export const MIN_CHUNK_SIZE = 0x1000;
export const MAX_CHUNK_SIZE = 0x100_0000;

export function roundUp(value: number, unit: number): number {
  const rest = value % unit;
  return rest === 0 ? value : value + unit - rest;
}

/** Also of negative numbers, in two's complement. */
export function setUint64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, value % 2 ** 32, true);
  view.setUint32(offset + 4, Math.floor(value / 2 ** 32), true);
}
