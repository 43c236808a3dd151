import { randomUUID } from 'node:crypto';
import { open, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { BLOB_FEATURES } from '@pantala/rafs';
import { makeFolder } from '../build/folders.ts';
import { decodedName } from '../inspect/mount-plan.ts';
import { type BlobPassOptions, passBlob } from '../stored/blob-pass.ts';
import type { ImageBlobs } from '../stored/image-blobs.ts';
import { isComplete, recordComplete } from './completeness.ts';

export interface DecodedBlob {
  readonly id: string;
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Whether it was there before. */
  readonly reused: boolean;
}

/**
 * Decodes all blobs of an image into files that the kernel takes as devices, each chunk checked. A file has its name
 * only when it is complete and on disk, and a record beside it says so: what was interrupted, or fills as it is read,
 * is never taken for a whole one.
 *
 * @throws `data-loss` when a chunk is damaged; `disk-full`; what the blobs' place throws; the reason of the signal
 */
export async function decodeBlobs(
  blobs: ImageBlobs,
  directory: string,
  options: Omit<BlobPassOptions, 'output' | 'problem'>,
): Promise<DecodedBlob[]> {
  await makeFolder(directory);
  const decoded: DecodedBlob[] = [];
  for (const [index, info] of blobs.image.blobs.entries()) {
    const path = join(directory, decodedName(info));
    if (await isComplete(path, info.uncompressedSize)) {
      decoded.push({ id: info.id, path, size: info.uncompressedSize, reused: true });
      continue;
    }
    if ((info.features & BLOB_FEATURES.tarfs) !== 0) {
      throw new PantalaError(
        'unimplemented',
        `blob ${info.id} is a tar: it is its own device, there is nothing to decode`,
      );
    }
    await whole(path, info.uncompressedSize, async (output) => {
      const { stored, map } = await blobs.blob(index);
      await passBlob(stored, map, { ...options, output });
    });
    await recordComplete(path, info.chunkCount);
    decoded.push({ id: info.id, path, size: info.uncompressedSize, reused: false });
  }
  return decoded;
}

/**
 * Makes a file of `size` bytes under another name, and gives it its own when `fill` is done and all is on disk.
 * What replaces another file does so at once.
 */
export async function whole(path: string, size: number, fill: (descriptor: number) => Promise<void>): Promise<void> {
  const partial = join(dirname(path), `.${randomUUID()}.partial`);
  const file = await open(partial, 'wx');
  try {
    try {
      await file.truncate(size);
      await fill(file.fd);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}
