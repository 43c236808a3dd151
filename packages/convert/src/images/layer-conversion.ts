import { PantalaError } from '@pantala/base';
import { type Descriptor, decompressed, type ImageSource, refuseForeign, walkTar } from '@pantala/oci';
import type { Directory, RafsImage } from '@pantala/rafs';
import { BlobFile } from '../build/blob-sink.ts';
import type { BuildPool } from '../build/build-pool.ts';
import { buildFromTar, type LayerBuild } from '../build/layer.ts';
import { metaFile } from './bootstrap-layer.ts';
import type { NewBlob } from './progress.ts';

/** A layer as a blob and the tree of its files. */
export interface ConvertedLayer {
  /** Digest of the layer that it was made of. */
  readonly source: string;
  readonly image: RafsImage;
  readonly implied: ReadonlySet<Directory>;
  /** What was stored for it, with its own bootstrap, even when it holds no data. */
  readonly blob: NewBlob;
  /** Whether a file of the layer has data in it: only then an image needs the blob. */
  readonly needed: boolean;
  /** Where the blob lies, unless it was there already. */
  readonly path: string | undefined;
  /** Chunk information as a bootstrap layer has it. */
  readonly meta: Uint8Array | undefined;
}

export interface LayerConversionOptions {
  readonly build: LayerBuild;
  /** Made of the same options. */
  readonly pool: BuildPool;
  /** Blobs are written here. */
  readonly folder: string;
  readonly progress: (done: { readonly files: number; readonly bytes: number; readonly read: number }) => void;
  readonly signal: AbortSignal;
}

/** Media types of layers that are tars; anything else would be read as something that it is not. */
const LAYER = /^application\/vnd\.(?:oci\.image\.layer|docker\.image\.rootfs)\.[a-z0-9.-]*tar(?:[.+](?:gzip|zstd))?$/;

/**
 * Makes a blob of a layer as it streams in: nothing is extracted, and whatever its size, the memory is the same.
 *
 * @throws `failed-precondition` for foreign layers, `unimplemented` for what is no tar, `data-loss` when the layer is
 *   damaged; naming the layer
 */
export async function convertLayer(
  source: ImageSource,
  layer: Descriptor,
  options: LayerConversionOptions,
): Promise<ConvertedLayer> {
  refuseForeign(layer, source.name);
  if (!LAYER.test(layer.mediaType)) {
    const fact = `layer ${layer.digest} of ${source.name} is a ${layer.mediaType}, no tar`;
    throw new PantalaError('unimplemented', `${fact}: only images of a file system can be converted`);
  }
  try {
    return await convertTar(source, layer, options);
  } catch (thrown) {
    const error = PantalaError.from(thrown);
    if (error.code === 'cancelled') throw error;
    const message = `layer ${layer.digest} of ${source.name}: ${error.message}`;
    throw new PantalaError(error.code, message, { cause: error, details: error.details });
  }
}

async function convertTar(
  source: ImageSource,
  layer: Descriptor,
  { build, pool, folder, progress, signal }: LayerConversionOptions,
): Promise<ConvertedLayer> {
  let read = 0;
  let done = { files: 0, bytes: 0 };
  const tell = () => progress({ ...done, read });
  async function* compressed(): AsyncGenerator<Buffer> {
    for await (const piece of source.blob(layer, { signal })) {
      read += piece.length;
      tell();
      yield piece;
    }
  }
  const members = walkTar(decompressed(compressed(), { signal, frees: true }), { signal });
  await using file = await BlobFile.create(folder);
  const built = await buildFromTar(members, file, {
    ...build,
    toc: true,
    inlineBootstrap: true,
    isLayer: true,
    pool,
    spoolFolder: folder,
    signal,
    progress: (now) => {
      done = now;
    },
  });
  tell();
  const { image, implied, written, meta } = built;
  if (written === undefined) throw new PantalaError('internal', 'a blob with a bootstrap in it is never empty');
  const path = await file.keep(written.id);
  return {
    source: layer.digest,
    image,
    implied,
    blob: { digest: `sha256:${written.id}`, size: written.size },
    needed: image.blobs.some(({ id }) => id === written.id),
    path,
    meta: meta === undefined ? undefined : metaFile(meta),
  };
}
