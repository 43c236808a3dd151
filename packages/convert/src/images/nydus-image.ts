import { PantalaError } from '@pantala/base';
import type { Descriptor, ImageConfig, ImageSource, Platform } from '@pantala/oci';
import { parseImageConfig } from '@pantala/oci';
import { decodeBootstrap, type RafsImage, type StoredBlob } from '@pantala/rafs';
import type { StoredBlobs } from '../stored/stored-blobs.ts';
import { type BlobMetas, readBootstrapLayer } from './bootstrap-layer.ts';
import { ANNOTATIONS, bootstrapLayer } from './nydus-manifest.ts';
import { type PlatformImage, platformImages, readConfig } from './platform-images.ts';

/** A Nydus image in a registry, a folder or an archive, its bootstrap read. */
export interface NydusImage {
  readonly source: ImageSource;
  readonly found: PlatformImage;
  readonly config: ImageConfig;
  readonly bootstrap: Buffer;
  readonly image: RafsImage;
  readonly metas: BlobMetas;
  /** The layers that are blobs, by the id that the bootstrap knows them by. */
  readonly blobs: ReadonlyMap<string, Descriptor>;
}

/**
 * Finds the Nydus image for a platform, in a merged index among others, and reads its bootstrap.
 *
 * @param platform default: the one that it is for, of an index this machine's
 * @throws `invalid-argument` when it is no Nydus image; `data-loss` for a damaged bootstrap; `not-found`
 */
export async function openNydusImage(
  source: ImageSource,
  options: { readonly platform?: Platform; readonly signal?: AbortSignal } = {},
): Promise<NydusImage> {
  const { platform, signal } = options;
  const [found] = await platformImages(source, platform === undefined ? undefined : [platform], true, signal);
  const layer = found && bootstrapLayer(found.manifest);
  if (found === undefined || layer === undefined)
    throw new PantalaError('invalid-argument', `${source.name} is no Nydus image`);
  const { bootstrap, metas } = await readBootstrapLayer(source, layer, signal);
  const config = parseImageConfig(await readConfig(source, found.manifest, signal));
  const blobs = new Map<string, Descriptor>();
  for (const each of found.manifest.layers.slice(0, -1)) blobs.set(hexOf(each.digest), each);
  const image = decodeBootstrap(bootstrap);
  // The data of an unmodified layer is that layer, which the repository has though the manifest has only its index.
  for (const each of blobs.values()) {
    const reference = each.annotations.get(ANNOTATIONS.reference);
    const info = image.blobs.find(({ id }) => reference === `sha256:${id}`);
    if (reference === undefined || info === undefined) continue;
    blobs.set(info.id, { ...each, digest: reference, size: info.compressedSize, annotations: new Map() });
  }
  return { source, found, config, bootstrap, image, metas, blobs };
}

/** The stored blobs of a Nydus image where it lies, read by ranges. */
export class NydusImageBlobs implements StoredBlobs {
  readonly #image: NydusImage;
  readonly #signal: AbortSignal | undefined;

  constructor(image: NydusImage, signal?: AbortSignal) {
    this.#image = image;
    this.#signal = signal;
  }

  async open(id: string): Promise<StoredBlob> {
    const { source, blobs } = this.#image;
    const blob = blobs.get(id);
    if (blob === undefined) throw new PantalaError('not-found', `${source.name} has no layer for the blob ${id}`);
    const read: StoredBlob['read'] = async (range) => {
      const bytes = Buffer.allocUnsafe(range.end - range.start);
      let at = 0;
      for await (const piece of source.blob(blob, { range, signal: this.#signal })) {
        piece.copy(bytes, at);
        at += piece.length;
      }
      if (at !== bytes.length)
        throw new PantalaError('data-loss', `blob ${blob.digest} of ${source.name} is too short`);
      return bytes;
    };
    return { name: id, size: blob.size, read };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

function hexOf(digest: string): string {
  return digest.slice(digest.indexOf(':') + 1);
}
