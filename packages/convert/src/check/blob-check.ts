import { PantalaError } from '@pantala/base';
import {
  BLOB_FEATURES,
  type Chunk,
  type ChunkInformation,
  chunksByBlob,
  type RafsImage,
  readBlobSections,
  readSection,
  SECTIONS,
  type StoredBlob,
} from '@pantala/rafs';
import { passBlob } from '../stored/blob-pass.ts';
import type { DecodePool } from '../stored/decode-pool.ts';
import { HashedBlob } from '../stored/hashed-blob.ts';
import type { ImageBlobs } from '../stored/image-blobs.ts';

export interface CheckOptions {
  readonly pool: DecodePool;
  /** Called for everything that is wrong, a line each. */
  readonly problem: (message: string) => void;
  /** Called with stored bytes that are done. */
  readonly progress?: (bytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface CheckCount {
  /** Chunks whose content has its digest. */
  readonly chunks: number;
  /** Their bytes. */
  readonly bytes: number;
}

/**
 * Checks all blobs of an image: that each is there and has the digest that is its name; that its chunk information,
 * its digests and its table of contents say what the bootstrap says; every chunk of the image against its digest.
 *
 * @throws what is no damage: `unavailable`, `permission-denied`, the reason of the signal
 */
export async function checkBlobs(blobs: ImageBlobs, options: CheckOptions): Promise<CheckCount> {
  const chunks = chunksByBlob(blobs.image);
  const total = { chunks: 0, bytes: 0 };
  for (const index of blobs.image.blobs.keys()) {
    await toldAsProblem(options, async () => {
      const count = await checkBlob(blobs, index, chunks[index] ?? [], options);
      total.chunks += count.chunks;
      total.bytes += count.bytes;
    });
  }
  return total;
}

async function checkBlob(
  blobs: ImageBlobs,
  index: number,
  chunks: readonly Chunk[],
  options: CheckOptions,
): Promise<CheckCount> {
  const { info, stored, map } = await blobs.blob(index);
  await toldAsProblem(options, async () => {
    const information = await blobs.chunkInformation(index);
    if (information !== undefined) compareInformation(blobs.image, index, chunks, information, options.problem);
  });
  const isTar = (info.features & BLOB_FEATURES.tarfs) !== 0;
  const isUnmodified = (info.features & (BLOB_FEATURES.separate | BLOB_FEATURES.tarfs)) !== 0;
  if (!isUnmodified) await toldAsProblem(options, () => checkSections(stored));
  const hashed = new HashedBlob(stored);
  // A tar has no digests of its chunks: the one of the whole says it all.
  const count = isTar ? { chunks: 0, bytes: 0 } : await passBlob(hashed, map, options);
  const digest = await hashed.digest();
  if (digest !== info.id) options.problem(`blob ${info.id}: has the digest sha256:${digest}`);
  if (!isTar && info.compressedSize !== 0 && info.compressedSize !== stored.size) {
    options.problem(`blob ${info.id}: has ${stored.size} bytes; the bootstrap says ${info.compressedSize}`);
  }
  return count;
}

/** Each section that the table of contents has a digest of. */
async function checkSections(stored: StoredBlob): Promise<void> {
  const sections = await readBlobSections(stored);
  if (sections.chunkInformation !== undefined) {
    await readSection(stored, sections.chunkInformation, SECTIONS.chunkInformation);
  }
  if (sections.digests !== undefined) await readSection(stored, sections.digests, SECTIONS.digests);
  if (sections.bootstrap !== undefined) await readSection(stored, sections.bootstrap, SECTIONS.bootstrap);
}

/** The blob's own word on its chunks, by which nydusd finds them, must be the bootstrap's. */
function compareInformation(
  image: RafsImage,
  index: number,
  chunks: readonly Chunk[],
  information: ChunkInformation,
  problem: (message: string) => void,
): void {
  const { id } = image.blobs[index] ?? { id: '' };
  for (const chunk of chunks) {
    const told = (field: string, own: number | undefined, wanted: number): void => {
      if (own === wanted) return;
      problem(`blob ${id}: ${field} of chunk ${chunk.index} is ${own}; the bootstrap says ${wanted}`);
    };
    told('uncompressed_offset', information.uncompressedOffset[chunk.index], chunk.uncompressedOffset);
    told('uncompressed_size', information.uncompressedSize[chunk.index], chunk.uncompressedSize);
    // The bootstrap of a batch or of an unmodified layer does not say where a chunk is stored.
    const isOwn = ((image.blobs[index]?.features ?? 0) & (BLOB_FEATURES.batch | BLOB_FEATURES.zran)) === 0;
    if (!isOwn) continue;
    told('compressed_offset', information.compressedOffset[chunk.index], chunk.compressedOffset);
    told('compressed_size', information.compressedSize[chunk.index], chunk.compressedSize);
  }
}

/** What says that bytes are wrong or missing is a finding; everything else keeps one from finding anything. */
async function toldAsProblem(options: CheckOptions, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    const { code, message } = PantalaError.from(error);
    if (code !== 'data-loss' && code !== 'not-found' && code !== 'invalid-argument') throw error;
    options.problem(message);
  }
}
