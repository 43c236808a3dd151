import { createHash } from 'node:crypto';
import fc from 'fast-check';
import {
  BLOB_FEATURES,
  type BlobInfo,
  type Chunk,
  type Compressor,
  type Directory,
  type FileChunks,
  type Node,
  type RafsImage,
  walk,
} from '../../src/index.ts';
import { arbitraryTree, type FileData } from './trees.ts';

/** What a file holds: a number for each of its chunks, the same number for the same bytes. */
export type Seeds = readonly number[];

export interface ImageShape {
  readonly chunkSize: number;
  readonly blobs: number;
  readonly compressor: Compressor;
  /** Blobs are tars: blocks of 512 bytes, no chunk table. */
  readonly tarfs: boolean;
  readonly batches: boolean;
  readonly crc: boolean;
}

/** Images whose blobs do not exist: bootstraps say all of this and nothing more. */
export function arbitraryImageOf(chunkSizes: readonly number[]): fc.Arbitrary<RafsImage> {
  return fc
    .record({
      chunkSize: fc.constantFrom(...chunkSizes),
      blobs: fc.constantFrom(1, 2, 5),
      compressor: fc.constantFrom('none' as const, 'lz4_block' as const, 'zstd' as const),
      tarfs: fc.oneof({ weight: 5, arbitrary: fc.constant(false) }, { weight: 1, arbitrary: fc.constant(true) }),
      batches: fc.boolean(),
      crc: fc.boolean(),
    })
    .chain((shape) =>
      fc
        .tuple(arbitraryTree(arbitraryData(shape.chunkSize)), fc.array(fc.nat(), { maxLength: 3 }))
        .map(([root, prefetch]) => imageOf(root, shape, prefetch)),
    );
}

export const arbitraryImage = arbitraryImageOf([0x1000, 0x10000, 0x100000, 0x1000000]);

function arbitraryData(chunkSize: number): fc.Arbitrary<FileData<Seeds>> {
  return fc
    .record({
      chunks: fc.oneof({ weight: 4, arbitrary: fc.nat(2) }, { weight: 1, arbitrary: fc.nat(20) }),
      last: fc.oneof(fc.constantFrom(1, chunkSize), fc.integer({ min: 1, max: chunkSize })),
      first: fc.nat(1000),
      repeats: fc.boolean(),
    })
    .map(({ chunks, last, first, repeats }) => ({
      size: chunks === 0 ? 0 : (chunks - 1) * chunkSize + last,
      content: Array.from({ length: chunks }, (_, index) => (repeats ? first : first * 100 + index)),
    }));
}

/** The image of a tree: equal chunks once, each file's in one of the blobs. */
export function imageOf(root: Directory<Seeds>, shape: ImageShape, prefetch: readonly number[] = []): RafsImage {
  const store = new ChunkStore(shape);
  const twins = new Map<Node<Seeds>, Node>();
  const top = twinOf(root, shape, store, twins);
  const all = [...walk(top)].map(({ node }) => node);
  const { used, chunks } = store.finish();
  const renumbered = new Map(chunks.map(([before, after]) => [before, after] as const));
  renumber(top, renumbered, new Set());
  return {
    root: top,
    blobs: used,
    chunkSize: shape.chunkSize,
    compressor: shape.compressor,
    digester: 'blake3',
    explicitIds: true,
    blockSize: shape.tarfs ? 512 : 4096,
    prefetch: prefetch.map((index) => all[index % all.length] as Node),
  };
}

function twinOf(
  root: Directory<Seeds>,
  shape: ImageShape,
  store: ChunkStore,
  twins: Map<Node<Seeds>, Node>,
): Directory {
  const convert = (node: Node<Seeds>): Node => {
    const known = twins.get(node);
    if (known !== undefined) return known;
    const twin: Node =
      node.kind === 'directory'
        ? { ...node, entries: new Map([...node.entries].map(([name, child]) => [name, convert(child)])) }
        : node.kind === 'regular'
          ? { ...node, content: store.chunksOf(node.content, node.size, shape.chunkSize) }
          : node;
    twins.set(node, twin);
    return twin;
  };
  return convert(root) as Directory;
}

/** Puts the chunks of blobs that are left out of the numbering right. */
function renumber(directory: Directory, chunks: ReadonlyMap<Chunk, Chunk>, seen: Set<Node>): void {
  for (const [name, node] of directory.entries) {
    if (node.kind === 'directory') renumber(node, chunks, seen);
    else if (node.kind === 'regular' && !seen.has(node)) {
      seen.add(node);
      Object.assign(node, { content: node.content.map((chunk) => chunks.get(chunk) as Chunk) });
    }
    directory.entries.set(name, node);
  }
}

class ChunkStore {
  readonly #shape: ImageShape;
  readonly #chunks = new Map<string, Chunk>();
  readonly #counts: number[];
  readonly #stored: number[];
  readonly #decoded: number[];

  constructor(shape: ImageShape) {
    this.#shape = shape;
    this.#counts = Array.from({ length: shape.blobs }, () => 0);
    this.#stored = Array.from({ length: shape.blobs }, () => 0);
    this.#decoded = Array.from({ length: shape.blobs }, () => 0);
  }

  chunksOf(seeds: Seeds, size: number, chunkSize: number): FileChunks {
    const blobIndex = (seeds[0] ?? 0) % this.#shape.blobs;
    return seeds.map((seed, index) => {
      const length = index === seeds.length - 1 ? size - index * chunkSize : chunkSize;
      const key = `${blobIndex}:${seed}:${length}`;
      const known = this.#chunks.get(key);
      if (known !== undefined) return known;
      const chunk = this.#store(blobIndex, seed, length);
      this.#chunks.set(key, chunk);
      return chunk;
    });
  }

  #store(blobIndex: number, seed: number, length: number): Chunk {
    const { tarfs, batches, crc, compressor } = this.#shape;
    const unit = tarfs ? 512 : 4096;
    const batched = batches && !tarfs && length < 2048;
    const compressed = !tarfs && !batched && compressor !== 'none' && length > 1 && seed % 3 > 0;
    const compressedSize = batched ? 0 : compressed ? 1 + (seed % (length - 1)) : length;
    const uncompressedOffset = this.#decoded[blobIndex] as number;
    const chunk: Chunk = {
      digest: tarfs ? new Uint8Array(32) : createHash('sha256').update(`${seed}:${length}`).digest(),
      blobIndex,
      index: this.#counts[blobIndex] as number,
      compressedOffset: tarfs ? uncompressedOffset : batched ? 0 : (this.#stored[blobIndex] as number),
      compressedSize,
      uncompressedOffset,
      uncompressedSize: length,
      compressed,
      batched,
      crc32c: crc && !tarfs ? (seed * 2654435761) >>> 0 : undefined,
    };
    this.#counts[blobIndex] = chunk.index + 1;
    this.#stored[blobIndex] = (this.#stored[blobIndex] as number) + compressedSize;
    this.#decoded[blobIndex] = uncompressedOffset + Math.ceil(length / unit) * unit;
    return chunk;
  }

  /** The blobs that hold something, and each chunk with its number among them. */
  finish(): { used: BlobInfo[]; chunks: [Chunk, Chunk][] } {
    const numbers = new Map<number, number>();
    const used: BlobInfo[] = [];
    for (let index = 0; index < this.#shape.blobs; index++) {
      if (this.#counts[index] === 0) continue;
      numbers.set(index, used.length);
      used.push(this.#blob(index));
    }
    const chunks = [...this.#chunks.values()].map((chunk): [Chunk, Chunk] => [
      chunk,
      { ...chunk, blobIndex: numbers.get(chunk.blobIndex) as number },
    ]);
    return { used, chunks };
  }

  #blob(index: number): BlobInfo {
    const { chunkSize, compressor, tarfs, batches } = this.#shape;
    const chunkCount = this.#counts[index] as number;
    const stored = this.#stored[index] as number;
    const uncompressedSize = this.#decoded[index] as number;
    const inBatches = batches && !tarfs;
    const information = tarfs ? 0 : chunkCount * (inBatches ? 24 : 16) + (inBatches ? 40 : 0);
    return {
      id: createHash('sha256').update(`blob ${index}`).digest('hex'),
      chunkSize,
      chunkCount,
      compressor,
      digester: 'blake3',
      features: tarfs
        ? BLOB_FEATURES.tarfs
        : BLOB_FEATURES.aligned |
          BLOB_FEATURES.tocCapable |
          (inBatches ? BLOB_FEATURES.batch | BLOB_FEATURES.chunkInfoV2 : 0),
      compressedSize: tarfs ? uncompressedSize : stored + information + 4096,
      uncompressedSize,
      chunkInfo: {
        compressor: 'none',
        offset: tarfs ? 0 : stored,
        compressedSize: information,
        uncompressedSize: information,
      },
      tocSize: 0,
      tocDigest: new Uint8Array(32),
      metaDigest: new Uint8Array(32),
      metaSize: 0,
    };
  }
}
