/** Bytes of a block; the image is one. */
const BLOCK = 4096;
const SUPER_OFFSET = 1024;
const MAGIC = 0xe0f5_e1e2;
/** Bytes of an inode slot, by which inodes are numbered. */
const SLOT = 32;
const ROOT_AT = 1152;
const S_IFDIR = 0o040000;

/** An EROFS image with an empty root directory (EROFS on-disk format: super block, one compact inode). */
export function emptyErofs(): Buffer {
  const image = Buffer.alloc(BLOCK);
  image.writeUInt32LE(MAGIC, SUPER_OFFSET);
  image.writeUInt8(12, SUPER_OFFSET + 12); // log2 of the block
  image.writeUInt16LE(ROOT_AT / SLOT, SUPER_OFFSET + 14); // root
  image.writeBigUInt64LE(1n, SUPER_OFFSET + 16); // inodes
  image.writeUInt32LE(1, SUPER_OFFSET + 36); // blocks
  image.writeUInt16LE(S_IFDIR | 0o755, ROOT_AT + 4); // mode
  image.writeUInt16LE(2, ROOT_AT + 6); // links
  image.writeUInt32LE(1, ROOT_AT + 20); // number
  return image;
}
