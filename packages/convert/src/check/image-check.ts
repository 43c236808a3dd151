import { createHash } from 'node:crypto';
import { PantalaError } from '@pantala/base';
import { type Descriptor, decompressed } from '@pantala/oci';
import {
  BLOB_FEATURES,
  type ChunkInformation,
  decodeChunkInformation,
  decodeMetaHeader,
  META_HEADER_LENGTH,
} from '@pantala/rafs';
import type { NydusImage } from '../images/nydus-image.ts';
import { ANNOTATIONS } from '../images/nydus-manifest.ts';
import type { ImageBlobs } from '../stored/image-blobs.ts';

export interface ImageCheckOptions {
  /** Called for everything that is wrong, a line each. */
  readonly problem: (message: string) => void;
  readonly signal?: AbortSignal;
}

/**
 * Checks what stands around a bootstrap: that the configuration names each layer by its content; that every blob of
 * the bootstrap is a layer of the image, or the layer that one refers to; that layers which no file uses have their
 * digests all the same; that chunk information beside the bootstrap is that of the blobs.
 *
 * @throws what is no damage: `unavailable`, `permission-denied`, the reason of the signal
 */
export async function checkAroundBootstrap(
  nydus: NydusImage,
  blobs: ImageBlobs,
  options: ImageCheckOptions,
): Promise<void> {
  const { image, found, source } = nydus;
  const layers = found.manifest.layers.slice(0, -1);
  const used = new Set(image.blobs.map(({ id }) => `sha256:${id}`));
  for (const { id } of image.blobs) {
    if (!nydus.blobs.has(id)) options.problem(`blob ${id} of the bootstrap is no layer of the image`);
  }
  for (const layer of layers) {
    if (layer.annotations.get(ANNOTATIONS.blob) !== 'true') {
      options.problem(`layer ${layer.digest}: has no annotation ${ANNOTATIONS.blob}`);
    }
    const { signal } = options;
    if (!used.has(layer.digest)) await told(options, () => readThrough(source.blob(layer, { signal })));
  }
  await told(options, () => checkConfig(nydus, layers, options));
  for (const [index, info] of image.blobs.entries()) {
    const meta = nydus.metas.get(info.id);
    if (meta === undefined || (info.features & BLOB_FEATURES.tarfs) !== 0) continue;
    await told(options, async () => {
      const file = `image/${info.id}.blob.meta`;
      const header = decodeMetaHeader(meta.subarray(-META_HEADER_LENGTH), meta.length - META_HEADER_LENGTH, file);
      const beside = decodeChunkInformation(meta.subarray(0, info.chunkInfo.uncompressedSize), header, file);
      const own = await blobs.chunkInformation(index);
      if (own !== undefined && !isSame(beside, own)) {
        options.problem(`${file} of the bootstrap layer is not the chunk information of the blob`);
      }
    });
  }
}

function isSame(one: ChunkInformation, other: ChunkInformation): boolean {
  return COLUMNS.every((column) => one[column].length === other[column].length && equal(one[column], other[column]));
}

const COLUMNS = ['compressedOffset', 'compressedSize', 'uncompressedOffset', 'uncompressedSize', 'flags'] as const;

function equal(one: ArrayLike<number>, other: ArrayLike<number>): boolean {
  for (let index = 0; index < one.length; index++) if (one[index] !== other[index]) return false;
  return true;
}

async function checkConfig(
  { config, found, source }: NydusImage,
  layers: readonly Descriptor[],
  { problem, signal }: ImageCheckOptions,
): Promise<void> {
  const { diffIds } = config;
  const { manifest } = found;
  if (diffIds.length !== manifest.layers.length) {
    problem(`configuration: rootfs.diff_ids names ${diffIds.length} layers of ${manifest.layers.length}`);
    return;
  }
  const compare = (layer: Descriptor, said: string | undefined, content: string): void => {
    if (said !== content) problem(`layer ${layer.digest}: has the content ${content}; the configuration says ${said}`);
  };
  // A blob is never compressed as a whole: its digest is that of its content.
  for (const [index, layer] of layers.entries()) compare(layer, diffIds[index], layer.digest);
  const bootstrap = manifest.layers.at(-1);
  if (bootstrap === undefined) return;
  const hash = createHash('sha256');
  const stop = signal === undefined ? {} : { signal };
  for await (const part of decompressed(source.blob(bootstrap, { signal }), stop)) hash.update(part);
  compare(bootstrap, diffIds.at(-1), `sha256:${hash.digest('hex')}`);
}

async function readThrough(content: AsyncIterable<Buffer>): Promise<void> {
  for await (const _ of content);
}

async function told(options: ImageCheckOptions, act: () => Promise<void>): Promise<void> {
  try {
    await act();
  } catch (error) {
    const { code, message } = PantalaError.from(error);
    if (code !== 'data-loss' && code !== 'not-found' && code !== 'invalid-argument') throw error;
    options.problem(message);
  }
}
