import type { Chunk, Node, NodeKind, RafsImage } from '@pantala/rafs';
import { treeEntries } from './entries.ts';

/** Bytes of the header behind a blob's chunk information (RAFS v6). */
const CHUNK_INFO_HEADER = 4096;

/** Chunks and their content's bytes. */
export interface ChunkCount {
  readonly chunks: number;
  readonly bytes: number;
}

export interface BlobStatistics {
  readonly id: string;
  /** Bytes as it is stored and as it is decoded. */
  readonly storedBytes: number;
  readonly decodedBytes: number;
  readonly chunks: number;
  /** Of these chunks, what the image's files use. */
  readonly used: ChunkCount;
}

/** What an image is made of, in numbers. */
export interface ImageStatistics {
  /** Names, hard links counted each. */
  readonly entries: number;
  readonly kinds: Readonly<Record<NodeKind, number>>;
  /** Names beyond each file's first. */
  readonly hardLinks: number;
  /** Bytes of all files, hard links counted once. */
  readonly fileBytes: number;
  /** What the files consist of; what is used twice counts twice. */
  readonly referenced: ChunkCount;
  /** The same, each chunk counted once. */
  readonly unique: ChunkCount;
  readonly blobs: readonly BlobStatistics[];
  /** Stored bytes of all blobs. */
  readonly storedBytes: number;
  /** What a lazy start fetches before the first program reads anything. */
  readonly lazyStart: {
    readonly bootstrapBytes: number;
    /** Chunk information of the blobs. */
    readonly metadataBytes: number;
    /** Files that the prefetch table names. */
    readonly prefetchFiles: number;
    /** Stored bytes of their chunks. */
    readonly prefetchBytes: number;
  };
}

/** @param bootstrapBytes length of the bootstrap */
export function imageStatistics(image: RafsImage, bootstrapBytes: number): ImageStatistics {
  const kinds = { directory: 0, regular: 0, symlink: 0, character: 0, block: 0, fifo: 0, socket: 0 };
  const tally = new ChunkTally(image.blobs.length);
  let [entries, hardLinks, fileBytes] = [0, 0, 0];
  for (const { node, first } of treeEntries(image.root)) {
    entries++;
    kinds[node.kind]++;
    if (first !== undefined) {
      hardLinks++;
      continue;
    }
    if (node.kind !== 'regular') continue;
    fileBytes += node.size;
    for (const chunk of node.content) tally.add(chunk);
  }
  const prefetch = prefetched(image);
  return {
    entries,
    kinds,
    hardLinks,
    fileBytes,
    referenced: tally.referenced,
    unique: tally.unique,
    blobs: image.blobs.map((blob, index) => ({
      id: blob.id,
      storedBytes: blob.compressedSize,
      decodedBytes: blob.uncompressedSize,
      chunks: blob.chunkCount,
      used: tally.ofBlob(index),
    })),
    storedBytes: image.blobs.reduce((sum, blob) => sum + blob.compressedSize, 0),
    lazyStart: {
      bootstrapBytes,
      metadataBytes: image.blobs.reduce((sum, { chunkInfo }) => sum + chunkInfo.compressedSize + CHUNK_INFO_HEADER, 0),
      ...prefetch,
    },
  };
}

/** Counts chunks, once for each use and once for each that is another. */
class ChunkTally {
  readonly #seen: Set<number>[];
  readonly #used: { chunks: number; bytes: number }[];
  readonly referenced = { chunks: 0, bytes: 0 };
  readonly unique = { chunks: 0, bytes: 0 };

  constructor(blobs: number) {
    this.#seen = Array.from({ length: blobs }, () => new Set());
    this.#used = Array.from({ length: blobs }, () => ({ chunks: 0, bytes: 0 }));
  }

  add(chunk: Chunk): void {
    this.referenced.chunks++;
    this.referenced.bytes += chunk.uncompressedSize;
    const seen = this.#seen[chunk.blobIndex];
    const used = this.#used[chunk.blobIndex];
    // By its place: chunks of tars have no number of their own.
    if (seen === undefined || used === undefined || seen.has(chunk.uncompressedOffset)) return;
    seen.add(chunk.uncompressedOffset);
    for (const count of [this.unique, used]) {
      count.chunks++;
      count.bytes += chunk.uncompressedSize;
    }
  }

  ofBlob(index: number): ChunkCount {
    return this.#used[index] ?? { chunks: 0, bytes: 0 };
  }
}

/** Files of the prefetch table with all below its directories, and the stored bytes of their chunks, each once. */
function prefetched(image: RafsImage): { readonly prefetchFiles: number; readonly prefetchBytes: number } {
  const files = new Set<Node>();
  for (const node of image.prefetch) {
    if (node.kind === 'regular') files.add(node);
    if (node.kind !== 'directory') continue;
    for (const entry of treeEntries(node)) if (entry.node.kind === 'regular') files.add(entry.node);
  }
  // Chunks of a batch share one place in the stored blob, and the place alone tells where the next one begins.
  const stored = new Map<string, number>();
  for (const file of files) {
    if (file.kind !== 'regular') continue;
    for (const chunk of file.content) {
      const place = `${chunk.blobIndex}:${chunk.compressedOffset}`;
      const bytes = chunk.compressedSize > 0 ? chunk.compressedSize : chunk.uncompressedSize;
      stored.set(place, Math.max(stored.get(place) ?? 0, bytes));
    }
  }
  let prefetchBytes = 0;
  for (const bytes of stored.values()) prefetchBytes += bytes;
  return { prefetchFiles: files.size, prefetchBytes };
}

/** What two images have in common, chunk by chunk. */
export interface SharedChunks {
  /** Unique chunks of the image that the other one has too. */
  readonly shared: ChunkCount;
  /** Unique chunks that only the image has. */
  readonly own: ChunkCount;
}

/** Compares by digest and length, which only means something between images of one digester. */
export function sharedChunks(image: RafsImage, other: RafsImage): SharedChunks {
  const known = new Set<string>();
  for (const chunk of chunksOf(other)) known.add(identity(chunk));
  const counted = new Set<string>();
  const [shared, own] = [
    { chunks: 0, bytes: 0 },
    { chunks: 0, bytes: 0 },
  ];
  for (const chunk of chunksOf(image)) {
    const key = identity(chunk);
    if (counted.has(key)) continue;
    counted.add(key);
    const count = known.has(key) ? shared : own;
    count.chunks++;
    count.bytes += chunk.uncompressedSize;
  }
  return { shared, own };
}

function identity({ digest, uncompressedSize }: Chunk): string {
  return `${Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength).toString('latin1')}${uncompressedSize}`;
}

function* chunksOf(image: RafsImage): Generator<Chunk> {
  for (const { node, first } of treeEntries(image.root)) {
    if (node.kind === 'regular' && first === undefined) yield* node.content;
  }
}
