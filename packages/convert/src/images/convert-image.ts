import { rm } from 'node:fs/promises';
import { PantalaError, sha256Hex } from '@pantala/base';
import {
  copyContent,
  type Descriptor,
  type FetchedManifest,
  type ImageSource,
  type ImageTarget,
  MEDIA_TYPES,
  mountableFrom,
  type Platform,
  parseImageConfig,
  platformDocument,
  putReferrer,
  together,
} from '@pantala/oci';
import { encodeBootstrap, mergeLayers, type RafsImage } from '@pantala/rafs';
import { BuildPool } from '../build/build-pool.ts';
import type { LayerBuild } from '../build/layer.ts';
import { type BuildOptions, compileBuildOptions } from '../build/options.ts';
import { type PrefetchOptions, prefetchNodes } from '../build/prefetch.ts';
import { type BlobMetas, packBootstrapLayer } from './bootstrap-layer.ts';
import type { BuildCache } from './build-cache.ts';
import type { ChunkDictionary } from './chunk-dictionary.ts';
import { emptyImage } from './empty-image.ts';
import { adoptAttributes } from './implied-directories.ts';
import { type ConvertedLayer, convertLayer } from './layer-conversion.ts';
import { type ManifestFamily, nydusDocuments, typesOf } from './nydus-documents.ts';
import { NYDUS_ARTIFACT, NYDUS_FEATURE } from './nydus-manifest.ts';
import { uploadOf } from './packed-file.ts';
import { type PlatformChoice, type PlatformImage, platformImages, readConfig } from './platform-images.ts';
import type { ConversionProgress, NewBlob } from './progress.ts';
import { WorkFolder } from './work-folder.ts';

export interface ConvertOptions {
  /** How layers become blobs; all of them share the threads. Blobs always have a table of contents and their layer's bootstrap. */
  readonly build?: Omit<BuildOptions, 'toc' | 'inlineBootstrap' | 'dictionaries'>;
  /** Default: the one that an image is for, of an index this machine's. */
  readonly platforms?: PlatformChoice;
  /** The target is an index of the source's images and their Nydus images side by side. Default false. */
  readonly mergeIndex?: boolean;
  /** Media types of OCI even where the source has Docker's. Default false. */
  readonly oci?: boolean;
  /** The Nydus image refers to its source (`subject`), so that it is found from there. Default false. */
  readonly referrer?: boolean;
  /** What a mount is to fetch before anybody asks: named in the bootstrap, or first in each layer's blob. Default: nothing. */
  readonly prefetch?: PrefetchOptions;
  /** Chunks that need not be stored again. */
  readonly dictionary?: ChunkDictionary;
  /** Layers that were converted before, and where to remember those of today. */
  readonly cache?: BuildCache;
  /** Layers on their way at once. Default 2. */
  readonly concurrency?: number;
  /** Blobs that are not pushed yet lie in a folder of their own in here. Default: the system's temporary folder. */
  readonly workFolder?: string;
  readonly progress?: ConversionProgress;
  readonly signal?: AbortSignal;
}

export interface ConvertedImage {
  readonly platform: Platform;
  /** Of the Nydus manifest. */
  readonly digest: string;
  readonly layers: number;
  /** Bytes of the layers of the source. */
  readonly sourceBytes: number;
  readonly blobs: readonly NewBlob[];
  /** Bytes of the layer with the bootstrap, and of the bootstrap. */
  readonly bootstrapLayerBytes: number;
  readonly bootstrapBytes: number;
}

export interface ConvertReport {
  /** Of the manifest or index that the target names now. */
  readonly digest: string;
  readonly mediaType: string;
  readonly images: readonly ConvertedImage[];
}

const DEFAULT_CONCURRENCY = 2;

interface PutImage {
  readonly image: ConvertedImage;
  readonly source: PlatformImage;
  readonly manifest: Buffer;
  readonly mediaType: string;
}

/**
 * Makes a Nydus image (RAFS v6) of a container image, and pushes it: one manifest, or an index where several platforms
 * are wanted or the source's images are to stand beside. The same source and options give the same digests.
 *
 * @throws what source and target throw; as `convertLayer`; `not-found` for a platform that is not there
 */
export async function convertImage(
  source: ImageSource,
  target: ImageTarget,
  options: ConvertOptions = {},
): Promise<ConvertReport> {
  const { signal, mergeIndex = false } = options;
  const images = await platformImages(source, options.platforms, false, signal);
  await using folder = await WorkFolder.create(options.workFolder);
  const { build = {}, dictionary, concurrency = DEFAULT_CONCURRENCY } = options;
  const blobOptions = { ...build, dictionaries: dictionary === undefined ? [] : [dictionary.image] };
  // Files that a mount fetches at once are named by the image's bootstrap, not by those of its layers.
  const order = options.prefetch?.policy === 'blob' ? { prefetch: options.prefetch } : {};
  const mostLayers = Math.max(1, ...images.map(({ manifest }) => manifest.layers.length));
  const atOnce = Math.max(1, Math.min(concurrency, mostLayers));
  await using pool = new BuildPool(compileBuildOptions(blobOptions), atOnce);
  const conversion = new Conversion(source, target, folder, options, { ...blobOptions, ...order }, pool);
  const put: PutImage[] = [];
  for (const image of images) put.push(await conversion.image(image));
  await options.cache?.store(signal);
  const converted = put.map(({ image }) => image);
  const [only] = put;
  if (only === undefined) throw new PantalaError('internal', 'there is no image to convert');
  if (put.length === 1 && !mergeIndex) {
    const digest = await target.finish({ bytes: only.manifest, mediaType: only.mediaType }, signal);
    if (options.referrer === true) await refer(source, target, only, signal);
    return { digest, mediaType: only.mediaType, images: converted };
  }
  for (const { manifest, mediaType } of put) await target.putManifest(manifest, mediaType, signal);
  if (options.referrer === true) for (const each of put) await refer(source, target, each, signal);
  if (mergeIndex) for (const { fetched } of images) await copySource(source, target, fetched, signal);
  const index = indexDocument(put, mergeIndex);
  const digest = await target.finish(index, signal);
  return { digest, mediaType: index.mediaType, images: converted };
}

/** An index of Nydus images; beside their sources they are marked for newer and for older readers. */
function indexDocument(
  put: readonly PutImage[],
  merged: boolean,
): { readonly bytes: Buffer; readonly mediaType: string } {
  const isDocker = put.every(({ mediaType }) => mediaType === MEDIA_TYPES.dockerManifest) && !merged;
  const { index } = typesOf(isDocker ? 'docker' : 'oci');
  const sources = put.map(({ source: { fetched, platform } }) => ({
    mediaType: fetched.mediaType,
    digest: fetched.digest,
    size: fetched.bytes.length,
    platform: platformDocument(platform),
  }));
  const own = put.map(({ manifest, mediaType, image: { digest, platform } }) => ({
    mediaType,
    digest,
    size: manifest.length,
    platform: platformDocument(
      merged ? { ...platform, osFeatures: [...(platform.osFeatures ?? []), NYDUS_FEATURE] } : platform,
    ),
    ...(merged ? { artifactType: NYDUS_ARTIFACT } : {}),
  }));
  const document = { schemaVersion: 2, mediaType: index, manifests: merged ? [...sources, ...own] : own };
  return { bytes: Buffer.from(JSON.stringify(document)), mediaType: index };
}

/** A registry without the referrers API finds it by a tag. Folders and archives have the subject in the manifest. */
async function refer(
  source: ImageSource,
  target: ImageTarget,
  image: PutImage,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (target.repository === undefined) return;
  // The subject must be where its referrers are looked for.
  await copySource(source, target, image.source.fetched, signal);
  await putReferrer(target.repository, image.manifest, image.mediaType, subjectOf(image.source.fetched), signal);
}

async function copySource(
  source: ImageSource,
  target: ImageTarget,
  image: FetchedManifest,
  signal: AbortSignal | undefined,
): Promise<void> {
  await copyContent(source, target, image, signal === undefined ? {} : { signal });
  await target.putManifest(image.bytes, image.mediaType, signal);
}

function subjectOf({ mediaType, digest, bytes }: FetchedManifest): Descriptor {
  return { mediaType, digest, size: bytes.length, artifactType: undefined, annotations: new Map(), urls: [] };
}

class Conversion {
  readonly #source: ImageSource;
  readonly #target: ImageTarget;
  readonly #folder: WorkFolder;
  readonly #options: ConvertOptions;
  readonly #build: LayerBuild;
  readonly #pool: BuildPool;
  readonly #mount: { readonly mountFrom?: string };
  /** Layers by the digest of their source: platforms share some. */
  readonly #layers = new Map<string, ConvertedLayer>();

  constructor(
    source: ImageSource,
    target: ImageTarget,
    folder: WorkFolder,
    options: ConvertOptions,
    build: LayerBuild,
    pool: BuildPool,
  ) {
    this.#source = source;
    this.#target = target;
    this.#folder = folder;
    this.#options = options;
    this.#build = build;
    this.#pool = pool;
    const from = options.dictionary && mountableFrom(options.dictionary.source, target);
    this.#mount = from === undefined ? {} : { mountFrom: from };
  }

  async image(given: PlatformImage): Promise<PutImage> {
    const { signal, prefetch, referrer = false, mergeIndex = false, progress } = this.#options;
    const { fetched, manifest, platform } = given;
    const config = parseImageConfig(await readConfig(this.#source, manifest, signal));
    const layers = await this.#convertLayers(given);
    const merged = this.#merge(layers);
    const nydus = { ...merged, prefetch: prefetch === undefined ? [] : prefetchNodes(merged.root, prefetch) };
    const bootstrap = encodeBootstrap(nydus);
    const { steps, dictionaryBlobs } = await this.#blobsOf(nydus, layers);
    const path = this.#folder.join(`bootstrap-${fetched.digest.slice(-16)}.tar.gz`);
    const packed = await packBootstrapLayer(path, bootstrap, this.#metas(nydus, layers), signal);
    const family: ManifestFamily =
      fetched.mediaType === MEDIA_TYPES.dockerManifest && this.#options.oci !== true ? 'docker' : 'oci';
    const documents = nydusDocuments({
      source: fetched,
      config,
      family,
      steps,
      dictionaryBlobs,
      bootstrap: packed,
      merged: mergeIndex,
      subject: referrer ? subjectOf(fetched) : undefined,
    });
    await this.#put(packed, () => uploadOf(path, packed));
    const configBlob = { digest: `sha256:${sha256Hex(documents.config)}`, size: documents.config.length };
    await this.#put(configBlob, () => ({ ...configBlob, open: () => [documents.config] }));
    const digest = `sha256:${sha256Hex(documents.manifest)}`;
    progress?.({ kind: 'image', digest, platform });
    const image: ConvertedImage = {
      platform,
      digest,
      layers: layers.length,
      sourceBytes: manifest.layers.reduce((sum, { size }) => sum + size, 0),
      blobs: [...steps.flatMap(({ blob }) => (blob === undefined ? [] : [blob])), ...dictionaryBlobs],
      bootstrapLayerBytes: packed.size,
      bootstrapBytes: bootstrap.length,
    };
    return { image, source: given, manifest: documents.manifest, mediaType: documents.mediaType };
  }

  /** Each distinct layer once; in the order of the image, as often as it has them. */
  async #convertLayers({ manifest, platform }: PlatformImage): Promise<ConvertedLayer[]> {
    const { progress, cache, signal: outer } = this.#options;
    const distinct = [...new Map(manifest.layers.map((layer) => [layer.digest, layer])).values()];
    const missing = distinct.filter(({ digest }) => !this.#layers.has(digest));
    const convert = async (layer: Descriptor, signal: AbortSignal): Promise<void> => {
      const index = manifest.layers.indexOf(layer);
      const name = { digest: layer.digest, size: layer.size, index, count: manifest.layers.length, platform };
      const known = await cache?.find(layer.digest, this.#build, signal);
      const converted =
        known ??
        (await convertLayer(this.#source, layer, {
          build: this.#build,
          pool: this.#pool,
          folder: this.#folder.path,
          progress: (done) => progress?.({ kind: 'layer', layer: name, ...done }),
          signal,
        }));
      this.#layers.set(layer.digest, converted);
      const { blob, needed, path } = converted;
      progress?.({ kind: 'layer-done', layer: name, blob: needed ? blob : undefined, cached: known !== undefined });
      if (known !== undefined) {
        if (needed) await this.#put(blob, () => cache?.upload(blob, signal), cache?.mountFrom(this.#target), signal);
        return;
      }
      if (path === undefined) return;
      if (needed) await this.#put(blob, () => uploadOf(path, blob), undefined, signal);
      await cache?.add(layer.digest, this.#build, converted, uploadOf(path, blob), signal);
      await rm(path, { force: true });
    };
    await together(missing, this.#pool.builds, convert, outer);
    return manifest.layers.map(({ digest }) => this.#layers.get(digest) as ConvertedLayer);
  }

  #merge(layers: readonly ConvertedLayer[]): RafsImage {
    if (layers.length === 0) return emptyImage(this.#options.build ?? {});
    adoptAttributes(layers);
    try {
      return mergeLayers(layers.map(({ image }) => image));
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      throw new PantalaError(error.code, `the layers of ${this.#source.name}: ${error.message}`, { cause: error });
    }
  }

  /** Which layer of the source is which blob of the result, and what the dictionary adds. */
  async #blobsOf(
    image: RafsImage,
    layers: readonly ConvertedLayer[],
  ): Promise<{ readonly steps: { readonly blob: NewBlob | undefined }[]; readonly dictionaryBlobs: NewBlob[] }> {
    const open = new Set(image.blobs.map(({ id }) => id));
    const steps = layers.map(({ blob }) => ({
      blob: open.delete(blob.digest.slice('sha256:'.length)) ? blob : undefined,
    }));
    const dictionaryBlobs: NewBlob[] = [];
    for (const id of open) {
      const blob = this.#options.dictionary?.blobs.get(id);
      if (blob === undefined) throw new PantalaError('internal', `the image needs the blob ${id}, which no layer made`);
      dictionaryBlobs.push(blob);
      const from = this.#options.dictionary?.source as ImageSource;
      const { signal } = this.#options;
      await this.#put(blob, () => ({ ...blob, open: () => from.blob(blob, { signal }) }), this.#mount.mountFrom);
    }
    return { steps, dictionaryBlobs };
  }

  #metas(image: RafsImage, layers: readonly ConvertedLayer[]): BlobMetas {
    const known = new Map(layers.map(({ blob, meta }) => [blob.digest.slice('sha256:'.length), meta]));
    const metas = new Map<string, Uint8Array>();
    for (const { id } of image.blobs) {
      const meta = known.get(id) ?? this.#options.dictionary?.metas.get(id);
      if (meta !== undefined) metas.set(id, meta);
    }
    return metas;
  }

  async #put(
    blob: NewBlob,
    upload: () => Parameters<ImageTarget['putBlob']>[0] | undefined,
    mountFrom?: string,
    signal = this.#options.signal,
  ): Promise<void> {
    const { progress } = this.#options;
    const given = upload();
    if (given === undefined) throw new PantalaError('internal', `nothing has the blob ${blob.digest}`);
    const outcome = await this.#target.putBlob(given, {
      ...(mountFrom === undefined ? {} : { mountFrom }),
      ...(signal === undefined ? {} : { signal }),
    });
    progress?.({ kind: 'blob', digest: blob.digest, size: blob.size, outcome });
  }
}
