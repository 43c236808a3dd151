/** Bounds of what a bootstrap may hold, each with the reason that docs/LIMITS.md repeats. */

/** A reader keeps it in memory; a million files with a chunk each take 212 MB. */
export const MAX_BOOTSTRAP_LENGTH = 2 ** 29;
/** Of an image's files: as objects four million take 1.4 GB, and V8's heap is at most 4 GB unless told otherwise. */
export const MAX_NAMES = 2 ** 22;
/** Every mount goes through the list; a directory in it stands for all that it holds. */
export const MAX_PREFETCH = 2 ** 20;
/** Device ids share two bytes with the chunk index of which the kernel masks one; the real builder stops here too. */
export const MAX_BLOBS = 254;
/** Three bytes of a chunk index. */
export const MAX_CHUNKS_PER_BLOB = 2 ** 24 - 1;
/** Bits of an offset in the chunk information, version 1. */
export const MAX_COMPRESSED_BLOB = 2 ** 40;
/** Block numbers of 32 bits, blocks of 4096. */
export const MAX_UNCOMPRESSED_BLOB = 2 ** 44;
/** PATH_MAX without its final NUL: the kernel cuts longer targets silently. */
export const MAX_TARGET_LENGTH = 4095;
/** PATH_MAX / 2: no path that a program can name has more components. */
export const MAX_DEPTH = 2048;
/** XATTR_NAME_MAX of Linux, of the whole name: the kernel does not find longer ones. */
export const MAX_XATTR_NAME_LENGTH = 255;
/** XATTR_SIZE_MAX of Linux is one more, but the entry has two bytes for it. */
export const MAX_XATTR_VALUE_LENGTH = 65535;
/** `i_xattr_icount` has 16 bits and counts units of 4 bytes. */
export const MAX_XATTRS_LENGTH = 12 + 4 * (65535 - 1);
