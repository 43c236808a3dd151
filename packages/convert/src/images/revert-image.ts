import { open } from 'node:fs/promises';
import { PantalaError, sha256Hex } from '@pantala/base';
import {
  type ImageSource,
  type ImageTarget,
  MEDIA_TYPES,
  type Platform,
  platformDocument,
  together,
  writeTar,
} from '@pantala/oci';
import { FileContent } from '../stored/file-content.ts';
import { ImageBlobs } from '../stored/image-blobs.ts';
import { FolderBlobs } from '../stored/stored-blobs.ts';
import type { Loss } from '../unpack/losses.ts';
import { TarUnpacking } from '../unpack/tar.ts';
import { isEmptyLayer, type ManifestFamily, typesOf } from './nydus-documents.ts';
import { type NydusImage, openNydusImage } from './nydus-image.ts';
import { NYDUS_FEATURE } from './nydus-manifest.ts';
import { type LayerCompression, packFile, uploadOf } from './packed-file.ts';
import { type PlatformChoice, platformImages } from './platform-images.ts';
import type { ConversionProgress, NewBlob } from './progress.ts';
import { WorkFolder } from './work-folder.ts';

export interface RevertOptions {
  /** Default: the one that an image is for, of an index this machine's. */
  readonly platforms?: PlatformChoice;
  /** Of the layer. Default `gzip`. */
  readonly compression?: LayerCompression;
  /** Media types of OCI even where the Nydus image has Docker's. Default false. */
  readonly oci?: boolean;
  /** Blobs fetched at once. Default 4. */
  readonly concurrency?: number;
  /** Blobs and the new layer lie in a folder of their own in here. Default: the system's temporary folder. */
  readonly workFolder?: string;
  readonly progress?: (event: RevertEvent) => void;
  readonly signal?: AbortSignal;
}

export type RevertEvent =
  | Extract<Parameters<ConversionProgress>[0], { readonly kind: 'blob' | 'image' }>
  | { readonly kind: 'fetched'; readonly digest: string; readonly size: number }
  | { readonly kind: 'entries'; readonly entries: number; readonly bytes: number };

export interface RevertReport {
  /** Of the manifest or index that the target names now. */
  readonly digest: string;
  readonly mediaType: string;
  readonly images: readonly {
    readonly platform: Platform;
    readonly digest: string;
    readonly layer: NewBlob;
    /** What no tar can hold. */
    readonly lost: readonly Loss[];
  }[];
}

/**
 * Makes a container image of a Nydus image, with the same tree in one layer: the merged bootstrap no longer knows which
 * layer a file came from, and the whiteouts are gone. The same image and options give the same digest.
 *
 * @throws `data-loss` when a blob is damaged; what source and target throw
 */
export async function revertImage(
  source: ImageSource,
  target: ImageTarget,
  options: RevertOptions = {},
): Promise<RevertReport> {
  const { signal, platforms } = options;
  await using folder = await WorkFolder.create(options.workFolder);
  const found = await platformImages(source, platforms, true, signal);
  const images: Reverted[] = [];
  for (const { platform, entry } of found) {
    const wanted = entry === undefined ? {} : { platform };
    const image = await openNydusImage(source, { ...wanted, ...(signal === undefined ? {} : { signal }) });
    images.push(await revert(image, platform, target, folder, options));
  }
  const [only] = images;
  if (only === undefined) throw new PantalaError('internal', 'there is no image to revert');
  const put = (bytes: Buffer, mediaType: string) => target.finish({ bytes, mediaType }, signal);
  const reported = images.map(({ platform, digest, layer, lost }) => ({ platform, digest, layer, lost }));
  if (images.length === 1) {
    return { digest: await put(only.manifest, only.mediaType), mediaType: only.mediaType, images: reported };
  }
  for (const { manifest, mediaType } of images) await target.putManifest(manifest, mediaType, signal);
  const isDocker = images.every(({ mediaType }) => mediaType === MEDIA_TYPES.dockerManifest);
  const { index } = typesOf(isDocker ? 'docker' : 'oci');
  const manifests = images.map(({ manifest, mediaType, digest, platform }) => ({
    mediaType,
    digest,
    size: manifest.length,
    platform: platformDocument({
      ...platform,
      osFeatures: (platform.osFeatures ?? []).filter((each) => each !== NYDUS_FEATURE),
    }),
  }));
  const document = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: index, manifests }));
  return { digest: await put(document, index), mediaType: index, images: reported };
}

interface Reverted {
  readonly platform: Platform;
  readonly digest: string;
  readonly manifest: Buffer;
  readonly mediaType: string;
  readonly layer: NewBlob;
  readonly lost: readonly Loss[];
}

async function revert(
  nydus: NydusImage,
  platform: Platform,
  target: ImageTarget,
  folder: WorkFolder,
  options: RevertOptions,
): Promise<Reverted> {
  const { compression = 'gzip', progress, signal } = options;
  const { manifest, fetched } = nydus.found;
  await fetchBlobs(nydus, folder, options);
  await using stored = new FolderBlobs(folder.path);
  const content = new FileContent(new ImageBlobs(nydus.image, stored), signal);
  const unpacking = new TarUnpacking(nydus.image.root, {
    content: (file) => content.read(file),
    progress: (done) => progress?.({ kind: 'entries', ...done }),
  });
  const path = folder.join(`layer-${fetched.digest.slice(-16)}`);
  const layer = await packFile(path, writeTar(unpacking.members()), compression, signal);
  const family: ManifestFamily =
    fetched.mediaType === MEDIA_TYPES.dockerManifest && options.oci !== true ? 'docker' : 'oci';
  const types = typesOf(family);
  const config = Buffer.from(
    JSON.stringify({
      ...nydus.config.document,
      rootfs: { type: 'layers', diff_ids: [layer.diffId] },
      history: [
        ...nydus.config.history.filter(isSourceStep).map((step) => ({ ...(step as object), empty_layer: true })),
        { created_by: 'Pantala', comment: 'All layers of a Nydus image as one' },
      ],
    }),
  );
  const configBlob = { digest: `sha256:${sha256Hex(config)}`, size: config.length };
  const put = signal === undefined ? {} : { signal };
  for (const upload of [uploadOf(path, layer), { ...configBlob, open: () => [config] }]) {
    const outcome = await target.putBlob(upload, put);
    progress?.({ kind: 'blob', digest: upload.digest, size: upload.size, outcome });
  }
  const annotations = Object.fromEntries(manifest.annotations);
  const document = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: types.manifest,
      config: { mediaType: types.config, ...configBlob },
      layers: [
        { mediaType: `${types.layer}${types.compression[compression]}`, digest: layer.digest, size: layer.size },
      ],
      ...(manifest.annotations.size === 0 ? {} : { annotations }),
    }),
  );
  const digest = `sha256:${sha256Hex(document)}`;
  progress?.({ kind: 'image', digest, platform });
  const { lost } = unpacking;
  const pushed = { digest: layer.digest, size: layer.size };
  return { platform, digest, manifest: document, mediaType: types.manifest, layer: pushed, lost };
}

/** Steps that the image had before it became a Nydus image. */
function isSourceStep(step: unknown): boolean {
  const isObject = typeof step === 'object' && step !== null;
  return isObject && !('created_by' in step && step.created_by === 'Nydus Converter' && !isEmptyLayer(step));
}

/** Blobs in files under their ids, whole and checked: they are read here and there. */
async function fetchBlobs(
  { source, image, blobs }: NydusImage,
  folder: WorkFolder,
  { concurrency = 4, progress, signal }: RevertOptions,
): Promise<void> {
  const fetch = async (id: string, ended: AbortSignal): Promise<void> => {
    const blob = blobs.get(id);
    if (blob === undefined) throw new PantalaError('not-found', `${source.name} has no layer for the blob ${id}`);
    await using file = await open(folder.join(id), 'wx', 0o600);
    for await (const piece of source.blob(blob, { signal: ended })) await file.writeFile(piece);
    progress?.({ kind: 'fetched', digest: blob.digest, size: blob.size });
  };
  const metas = image.blobs.flatMap(({ metaDigest, metaSize }) =>
    metaSize > 0 ? [Buffer.from(metaDigest).toString('hex')] : [],
  );
  const missing = [...new Set([...image.blobs.map(({ id }) => id), ...metas])].filter((id) => !folder.holds(id));
  await together(missing, concurrency, fetch, signal);
}
