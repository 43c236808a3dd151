/** Members of one archive. The trees that are made of them take a few hundred bytes for each. */
export const MAX_TAR_ENTRIES = 4_000_000;
/** Bytes of one member's content: ext4 has no larger files. */
export const MAX_MEMBER_LENGTH = 16 * 1024 ** 4;
/** Bytes of a path or of a link's target: Linux opens none that is longer (PATH_MAX). So no path has 2,048 names. */
export const MAX_PATH_LENGTH = 4095;
/** Bytes of one name: no file system of Linux has longer ones (NAME_MAX). */
export const MAX_NAME_LENGTH = 255;
/** Bytes of one extended header or long name, as Go's archive/tar has it: containerd reads no longer ones. */
export const MAX_EXTENDED_LENGTH = 1024 * 1024;
/** Extended headers in a row before a member: four are in use (global, local, GNU name and link). */
export const MAX_EXTENDED_HEADERS = 64;
/** Records of all global headers together that stay in force. */
export const MAX_GLOBAL_RECORDS = 1024;
/** Runs of data in one sparse file, 16 bytes each in memory. */
export const MAX_SPARSE_RUNS = 1_000_000;
/** Bytes of one extended attribute (XATTR_SIZE_MAX of Linux). */
export const MAX_XATTR_LENGTH = 64 * 1024;
