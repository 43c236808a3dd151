import { join, resolve } from 'node:path';
import { BLOB_FEATURES, type BlobInfo, type RafsImage } from '@pantala/rafs';

/** A device of a mount: a decoded blob. */
export interface PlannedDevice {
  readonly blobId: string;
  /** Bytes that the file must have; a shorter one is refused or reads as zeros. */
  readonly size: number;
  readonly cacheFile: string;
}

/** What the kernel needs to mount a bootstrap as EROFS. */
export interface MountPlan {
  readonly type: 'erofs';
  /** The source of the mount: a file, not a loop device. */
  readonly bootstrap: string;
  /** In the order of the bootstrap's device table, which is the order of `device=` options. */
  readonly devices: readonly PlannedDevice[];
  /** Options in order: one `device=` for each device. */
  readonly options: readonly string[];
  /** Bytes of one page: mount(2) takes no longer options; beyond it only fsconfig(2) does. */
  readonly needsFsconfig: boolean;
}

/** Bytes of the options of mount(2): one page, with the zero at the end. */
const PAGE = 4096;

/** @param cacheDirectory where decoded blobs are, or will be when they are read */
export function mountPlan(image: RafsImage, bootstrap: string, cacheDirectory: string): MountPlan {
  const directory = resolve(cacheDirectory);
  const devices = image.blobs.map((blob) => ({
    blobId: blob.id,
    size: blob.uncompressedSize,
    cacheFile: join(directory, decodedName(blob)),
  }));
  const options = ['ro', ...devices.map(({ cacheFile }) => `device=${cacheFile}`)];
  return {
    type: 'erofs',
    bootstrap: resolve(bootstrap),
    devices,
    options,
    needsFsconfig: Buffer.byteLength(options.join(',')) >= PAGE,
  };
}

/** Name of a decoded blob's file: nydusd's for its cache; a tar is its own device. */
export function decodedName(blob: BlobInfo): string {
  return (blob.features & BLOB_FEATURES.tarfs) === 0 ? `${blob.id}.blob.data` : blob.id;
}
