/** Chunks begin at multiples of this in the decoded blob: the block size of the kernel's view. */
export const ALIGNMENT = 4096;

/** The longest chunk: what 24 bits can count. */
export const MAX_CHUNK_LENGTH = 16 * 1024 * 1024;

/** Chunks of one blob: the bits of a chunk index. */
export const MAX_CHUNKS = 2 ** 24 - 1;

/** Stored bytes of one blob: the bits of a compressed offset. */
export const MAX_STORED_LENGTH = 2 ** 40;

/** Decoded bytes of one blob: the bits of an uncompressed offset. */
export const MAX_DECODED_LENGTH = 2 ** 44;

/** Decompressed chunk information: five million entries, a blob of 5 TB in chunks of 1 MiB. It is held in memory. */
export const MAX_CHUNK_INFORMATION = 128 * 1024 * 1024;

/** Bytes of an entry, by version. */
export const CHUNK_INFO_LENGTH = { 1: 16, 2: 24 } as const;

/** Flags of an entry of version 2. */
export const CHUNK_INFO_FLAGS = { compressed: 1, zran: 2, batch: 4, encrypted: 8, crc32c: 0x10, all: 0x1f } as const;

/** Encoded or decoded bytes of one restart point; builders end them after 2 MiB and one chunk. */
export const MAX_RESTART_LENGTH = 2 * MAX_CHUNK_LENGTH;

/** The window of deflate. */
export const MAX_DICTIONARY = 32 * 1024;

export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
