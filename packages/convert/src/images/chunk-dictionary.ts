import type { ImageSource, Platform } from '@pantala/oci';
import type { RafsImage } from '@pantala/rafs';
import type { BlobMetas } from './bootstrap-layer.ts';
import { openNydusImage } from './nydus-image.ts';
import type { NewBlob } from './progress.ts';

/** A Nydus image whose chunks others need not store again. It stays open as long as it is used. */
export interface ChunkDictionary {
  readonly source: ImageSource;
  readonly image: RafsImage;
  /** By the ids that the bootstrap has. */
  readonly blobs: ReadonlyMap<string, NewBlob>;
  readonly metas: BlobMetas;
}

/** @throws as `openNydusImage` */
export async function openChunkDictionary(
  source: ImageSource,
  options: { readonly platform?: Platform; readonly signal?: AbortSignal } = {},
): Promise<ChunkDictionary> {
  const { image, blobs, metas } = await openNydusImage(source, options);
  return { source, image, blobs, metas };
}
