import { writeSync } from 'node:fs';
import { PantalaError } from '@pantala/base';
import { BLOB_FEATURES, malformed } from '@pantala/rafs';
import { type BlobPassOptions, passBlob } from '../stored/blob-pass.ts';
import type { ImageBlobs } from '../stored/image-blobs.ts';
import { whole } from './decoded-blobs.ts';

/** The device table of a RAFS v6 bootstrap (EROFS on-disk format: 128 bytes each). */
const DEVICE_TABLE = 1408;
const DEVICE_SLOT = 128;
/** `uniaddr` of a slot: the device's first block in the flat address space. */
const SLOT_ADDRESS = 68;

/**
 * Writes one file that the kernel mounts without any `device=`: the bootstrap, and behind it each decoded blob at the
 * block that its device slot names.
 *
 * @throws `data-loss` when slots overlap or a chunk is damaged; `disk-full`; what the blobs' place throws
 */
export async function exportFlatDisk(
  blobs: ImageBlobs,
  bootstrap: Uint8Array,
  path: string,
  options: Omit<BlobPassOptions, 'output' | 'problem'>,
): Promise<{ readonly bytes: number }> {
  const { image } = blobs;
  if (image.blobs.some(({ features }) => (features & BLOB_FEATURES.tarfs) !== 0)) {
    throw new PantalaError('unimplemented', 'an image on unmodified tars cannot be exported as one disk');
  }
  const offsets = deviceOffsets(
    bootstrap,
    image.blobs.map(({ uncompressedSize }) => uncompressedSize),
    image.blockSize,
  );
  const bytes = image.blobs.reduce((end, blob, index) => {
    return Math.max(end, (offsets[index] as number) + blob.uncompressedSize);
  }, bootstrap.length);
  await whole(path, bytes, async (descriptor) => {
    for (let done = 0; done < bootstrap.length; ) {
      done += writeSync(descriptor, bootstrap, done, bootstrap.length - done, done);
    }
    for (const index of image.blobs.keys()) {
      const { stored, map } = await blobs.blob(index);
      await passBlob(stored, map, { ...options, output: descriptor, outputOffset: offsets[index] as number });
    }
  });
  return { bytes };
}

/** Where each device begins in the flat file. */
function deviceOffsets(bootstrap: Uint8Array, sizes: readonly number[], blockSize: number): number[] {
  const view = new DataView(bootstrap.buffer, bootstrap.byteOffset, bootstrap.byteLength);
  let free = bootstrap.length;
  return sizes.map((size, index) => {
    const field = DEVICE_TABLE + index * DEVICE_SLOT + SLOT_ADDRESS;
    const offset = view.getUint32(field, true) * blockSize;
    if (offset < free) {
      throw malformed('bootstrap', 'uniaddr', field, `is byte ${offset}; what is before it ends at ${free}`);
    }
    free = offset + size;
    return offset;
  });
}
