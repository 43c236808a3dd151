import type { Directory, Node } from './tree/node.ts';

/** How chunks are stored; gzip only in images of older builders and in ZRan blobs. */
export type Compressor = 'none' | 'lz4_block' | 'gzip' | 'zstd';

/** How chunks are digested. */
export type Digester = 'blake3' | 'sha256';

/** A run of a file's bytes as it lies in a blob; files with the same content share it. */
export interface Chunk {
  /** 32 bytes, of the uncompressed content; zeros where blobs are tars, of which nothing has digests. */
  readonly digest: Uint8Array;
  /** Of `RafsImage.blobs`. */
  readonly blobIndex: number;
  /** Position among the chunks of its blob. */
  readonly index: number;
  /**
   * In the stored blob, bytes. Chunks of one ZRan context may share it. Of a chunk of a batch the bootstrap does not
   * say it (0): the chunk information does.
   */
  readonly compressedOffset: number;
  /** Bytes; 0 for a chunk of a batch, whose context has it. */
  readonly compressedSize: number;
  /** In the decoded blob, which the kernel has as `device=`: a multiple of the image's block size. */
  readonly uncompressedOffset: number;
  readonly uncompressedSize: number;
  /** Whether the stored bytes are compressed; a chunk that does not shrink is stored as it is. */
  readonly compressed: boolean;
  /** Whether it is compressed together with others: its bytes are a part of its batch's. */
  readonly batched: boolean;
  /** CRC-32C of the uncompressed content, where the builder wrote one. */
  readonly crc32c: number | undefined;
}

/** Whether two chunks with one index in one blob say the same of it. */
export function sameChunk(a: Chunk, b: Chunk): boolean {
  return (
    a.uncompressedOffset === b.uncompressedOffset &&
    a.uncompressedSize === b.uncompressedSize &&
    a.compressedOffset === b.compressedOffset &&
    a.compressedSize === b.compressedSize &&
    a.compressed === b.compressed &&
    a.batched === b.batched &&
    a.crc32c === b.crc32c &&
    Buffer.compare(a.digest, b.digest) === 0
  );
}

/** Feature bits of a blob (RAFS v6: blob table and header of the chunk information). */
export const BLOB_FEATURES = {
  /** Chunks begin at multiples of 4096 in the decoded blob. */
  aligned: 0x1,
  /** The stored blob holds a bootstrap of its own. */
  inlinedBootstrap: 0x2,
  /** Chunk information has entries of 24 bytes. */
  chunkInfoV2: 0x4,
  /** The data is an unmodified gzip layer, with contexts to start in the middle. */
  zran: 0x8,
  /** Data and chunk information lie in two blobs. */
  separate: 0x10,
  /** The stored blob holds the digests of its chunks. */
  inlinedDigests: 0x20,
  /** The data is an unmodified tar. */
  tarfs: 0x40,
  /** Small chunks are compressed together. */
  batch: 0x80,
  encrypted: 0x100,
  chunkDict: 0x200,
  /** Holds the files that are to be prefetched. */
  hot: 0x400,
  external: 0x800,
  /** Each section is followed by a tar header. */
  tarHeaders: 0x1000_0000,
  toc: 0x2000_0000,
  /** Written by a builder that knows headers and TOC. */
  tocCapable: 0x4000_0000,
} as const;

/** A blob as the bootstrap's blob table describes it (256 bytes an entry). */
export interface BlobInfo {
  /** 64 hex digits, the SHA-256 of the stored blob; of the original layer for ZRan. `xxx…` while it is not known. */
  readonly id: string;
  readonly chunkSize: number;
  readonly chunkCount: number;
  readonly compressor: Compressor;
  readonly digester: Digester;
  /** Bits of BLOB_FEATURES. */
  readonly features: number;
  /** Bytes of the stored blob, of the original layer for ZRan. */
  readonly compressedSize: number;
  /** Bytes of the decoded blob, a multiple of the image's block size. */
  readonly uncompressedSize: number;
  /** Where the chunk information lies in the stored blob. */
  readonly chunkInfo: {
    readonly compressor: Compressor;
    readonly offset: number;
    readonly compressedSize: number;
    readonly uncompressedSize: number;
  };
  /** Bytes of the table of contents with its tar header; 0 when it is not said. */
  readonly tocSize: number;
  /** SHA-256 of those bytes, 32 bytes; zeros when it is not said. */
  readonly tocDigest: Uint8Array;
  /** SHA-256 and size of the blob that holds the chunk information, for separate ones; zeros else. */
  readonly metaDigest: Uint8Array;
  readonly metaSize: number;
}

/** What a RAFS v6 bootstrap says, apart from where in the file it says it. */
export interface RafsImage {
  readonly root: Directory;
  readonly blobs: readonly BlobInfo[];
  /** Bytes of every chunk but a file's last: a power of two, 4 KiB to 16 MiB. */
  readonly chunkSize: number;
  readonly compressor: Compressor;
  readonly digester: Digester;
  /** False where owners are to be taken from whoever mounts it. */
  readonly explicitIds: boolean;
  /** Of the kernel's view: 4096, or 512 where the blobs are unmodified tars. */
  readonly blockSize: 4096 | 512;
  /** Files and directories to fetch first, in order; the root alone means everything. */
  readonly prefetch: readonly Node[];
}
