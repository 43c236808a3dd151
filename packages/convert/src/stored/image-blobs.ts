import { PantalaError } from '@pantala/base';
import {
  BLOB_FEATURES,
  type BlobInfo,
  type ChunkInformation,
  ChunkMap,
  chunksByBlob,
  needsChunkInformation,
  type RafsImage,
  readChunkInformation,
  type StoredBlob,
} from '@pantala/rafs';
import type { StoredBlobs } from './stored-blobs.ts';

/** A blob of an image, ready to be decoded. */
export interface ImageBlob {
  readonly info: BlobInfo;
  readonly stored: StoredBlob;
  readonly map: ChunkMap;
}

/** The blobs of one image, each opened when it is first wanted. */
export class ImageBlobs {
  readonly image: RafsImage;
  readonly #blobs: StoredBlobs;
  readonly #opened: (Promise<ImageBlob> | undefined)[] = [];
  #chunks: ReturnType<typeof chunksByBlob> | undefined;

  constructor(image: RafsImage, blobs: StoredBlobs) {
    this.image = image;
    this.#blobs = blobs;
  }

  /** @throws `not-found` when the blob is not there; `data-loss` when it is another one than the image means */
  blob(index: number): Promise<ImageBlob> {
    this.#opened[index] ??= this.#open(index);
    return this.#opened[index];
  }

  /** The blob's own chunk information, whether or not it is needed. Undefined for tars, which have none. */
  async chunkInformation(index: number): Promise<ChunkInformation | undefined> {
    const info = this.#info(index);
    if ((info.features & BLOB_FEATURES.tarfs) !== 0) return undefined;
    return readChunkInformation(await this.#metaOf(info), info);
  }

  async #open(index: number): Promise<ImageBlob> {
    const info = this.#info(index);
    this.#chunks ??= chunksByBlob(this.image);
    const stored = await this.#blobs.open(info.id);
    const information = needsChunkInformation(info)
      ? await readChunkInformation(await this.#metaOf(info), info)
      : undefined;
    return { info, stored, map: new ChunkMap(info, this.#chunks[index] ?? [], information) };
  }

  #info(index: number): BlobInfo {
    const info = this.image.blobs[index];
    if (info === undefined) throw new PantalaError('out-of-range', `the image has no blob ${index}`);
    return info;
  }

  /** Where the chunk information lies: beside an unmodified layer, there is a second blob for it. */
  #metaOf(info: BlobInfo): Promise<StoredBlob> {
    const isSeparate = (info.features & BLOB_FEATURES.separate) !== 0;
    return this.#blobs.open(isSeparate ? Buffer.from(info.metaDigest).toString('hex') : info.id);
  }
}
