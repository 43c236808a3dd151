import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type ByteRange, lengthOf, PantalaError } from '@pantala/base';
import {
  BLOB_FEATURES,
  type BlobInfo,
  type Bootstrap,
  type ChunkColumns,
  ChunkMap,
  META_HEADER_LENGTH,
  needsChunkInformation,
  readChunkInformation,
} from '@pantala/rafs';
import type { ReadOptions } from '../contract.ts';
import { META_SUFFIX } from './blob-files.ts';
import type { ChunkLayout } from './chunk-layout.ts';
import type { BlobFetcher } from './fetcher.ts';
import { RafsLayout } from './rafs-layout.ts';

export interface LayoutParts {
  /** Of the blob cache: chunk information that was fetched is kept there. */
  readonly directory: string;
  readonly fetcher: BlobFetcher;
}

/**
 * The layouts of an image's blobs, in their order. Blobs with batches or ZRan contexts have chunk information of their
 * own, which is fetched once.
 *
 * @throws `data-loss` when bootstrap and blob do not belong together; as `BlobSource.read`
 */
export async function layoutsOf(
  { image, chunksOf }: Bootstrap,
  parts: LayoutParts,
  options: ReadOptions,
): Promise<ChunkLayout[]> {
  return Promise.all(image.blobs.map((blob, index) => layoutOf(blob, chunksOf(index), parts, options)));
}

/** The same for one blob. @param chunks the distinct chunks of it that the image uses */
export async function layoutOf(
  blob: BlobInfo,
  chunks: ChunkColumns,
  parts: LayoutParts,
  options: ReadOptions,
): Promise<ChunkLayout> {
  if (!needsChunkInformation(blob)) return new RafsLayout(new ChunkMap(blob, chunks));
  const path = join(parts.directory, blob.id + META_SUFFIX);
  const { offset, compressedSize } = blob.chunkInfo;
  const range: ByteRange = { start: offset, end: offset + compressedSize + META_HEADER_LENGTH };
  const kept = await readFile(path).catch(() => undefined);
  const build = async (bytes: Uint8Array) => {
    // Only this range of it is read.
    const stored = { name: holderOf(blob), size: range.end, read: async () => bytes };
    return new RafsLayout(new ChunkMap(blob, chunks, await readChunkInformation(stored, blob)));
  };
  if (kept?.length === lengthOf(range)) {
    try {
      return await build(kept);
    } catch {
      await rm(path, { force: true });
    }
  }
  return fetchChecked(holderOf(blob), range, parts.fetcher, options, async (bytes) => {
    const layout = await build(bytes);
    await writeFile(`${path}.new`, bytes, { mode: 0o600 });
    await rename(`${path}.new`, path);
    return layout;
  });
}

/** Asks one source after the other until `use` finds its bytes right. */
async function fetchChecked(
  id: string,
  range: ByteRange,
  fetcher: BlobFetcher,
  { urgency, signal }: ReadOptions,
  use: (bytes: Uint8Array) => Promise<ChunkLayout>,
): Promise<ChunkLayout> {
  const avoid = new Set<string>();
  for (;;) {
    const { bytes, source } = await fetcher.fetch(id, range, { urgency, signal, avoid, progress: () => {} });
    try {
      return await use(bytes);
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      avoid.add(source);
      if (error.code !== 'data-loss' || fetcher.sourceNames.every((name) => avoid.has(name))) throw error;
    }
  }
}

/** The stored blob that holds the chunk information. */
function holderOf(blob: BlobInfo): string {
  const isSeparate = (blob.features & BLOB_FEATURES.separate) !== 0;
  return isSeparate && blob.metaDigest.some((byte) => byte !== 0)
    ? Buffer.from(blob.metaDigest).toString('hex')
    : blob.id;
}
