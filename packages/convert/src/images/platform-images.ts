import { PantalaError } from '@pantala/base';
import {
  type FetchedManifest,
  formatPlatform,
  hostPlatform,
  type ImageIndex,
  type ImageManifest,
  type ImageSource,
  type IndexEntry,
  type Platform,
  parseImageConfig,
  selectPlatform,
} from '@pantala/oci';
import { isNydusManifest, narrowed } from './nydus-manifest.ts';

/** Bytes of an image's configuration. Registries take no larger manifests, and this is less. */
const MAX_CONFIG_LENGTH = 4 * 1024 * 1024;

/** An image for one platform, as it was found. */
export interface PlatformImage {
  readonly fetched: FetchedManifest;
  readonly manifest: ImageManifest;
  /** Of its index; undefined when it was not in one. */
  readonly entry: IndexEntry | undefined;
  readonly platform: Platform;
}

/** `all` is every platform that an index has; undefined the one that an image is for, of an index this machine's. */
export type PlatformChoice = readonly Platform[] | 'all' | undefined;

/**
 * The images of a source, Nydus ones or others.
 *
 * @throws `not-found` when there is none for a platform; `invalid-argument` for an image of the other kind
 */
export async function platformImages(
  source: ImageSource,
  choice: PlatformChoice,
  nydus: boolean,
  signal: AbortSignal | undefined,
): Promise<PlatformImage[]> {
  const root = await source.root(signal);
  if (root.manifest.kind === 'image') return [await single(source, root, nydus, signal)];
  return imagesOf(source, root.manifest, choice, nydus, signal);
}

/** The manifest alone of the image for one platform, with as few questions as possible. @throws as `platformImages` */
export async function platformManifest(
  source: ImageSource,
  platform: Platform | undefined,
  nydus: boolean,
  signal: AbortSignal | undefined,
): Promise<ImageManifest> {
  const { manifest } = await source.root(signal);
  if (manifest.kind === 'image') {
    checkKind(source, manifest, nydus);
    return manifest;
  }
  const [found] = await imagesOf(source, manifest, platform === undefined ? undefined : [platform], nydus, signal);
  return (found as PlatformImage).manifest;
}

async function imagesOf(
  source: ImageSource,
  all: ImageIndex,
  choice: PlatformChoice,
  nydus: boolean,
  signal: AbortSignal | undefined,
): Promise<PlatformImage[]> {
  const index = narrowed(all, nydus);
  // A merged index has its Nydus images marked; an index of nothing else need not.
  const usable = nydus && index.manifests.length === 0 ? all : index;
  const entries =
    choice === 'all'
      ? usable.manifests.filter(isForMachines)
      : (choice ?? [hostPlatform()]).map((platform) => selectPlatform(usable, platform));
  if (entries.length === 0) throw new PantalaError('not-found', `${source.name} has no image for any platform`);
  const images: PlatformImage[] = [];
  for (const entry of new Set(entries)) {
    const fetched = await source.manifest(entry.digest, signal);
    const { manifest } = fetched;
    if (manifest.kind === 'index')
      throw new PantalaError('invalid-argument', `${source.name} has an index in the place of an image`);
    checkKind(source, manifest, nydus);
    images.push({ fetched, manifest, entry, platform: entry.platform as Platform });
  }
  return images;
}

async function single(
  source: ImageSource,
  fetched: FetchedManifest,
  nydus: boolean,
  signal: AbortSignal | undefined,
): Promise<PlatformImage> {
  const { manifest } = fetched;
  if (manifest.kind === 'index') throw new PantalaError('internal', 'an index is no single image');
  checkKind(source, manifest, nydus);
  const { platform } = parseImageConfig(await readConfig(source, manifest, signal));
  return { fetched, manifest, entry: undefined, platform };
}

function checkKind(source: ImageSource, manifest: ImageManifest, nydus: boolean): void {
  if (isNydusManifest(manifest) === nydus) return;
  const what = nydus ? 'no Nydus image: its last layer has no bootstrap' : 'a Nydus image already';
  throw new PantalaError('invalid-argument', `${source.name} is ${what}`);
}

/** Attestations and the like have the platform unknown/unknown. */
function isForMachines({ platform }: IndexEntry): boolean {
  return platform !== undefined && formatPlatform(platform) !== 'unknown/unknown';
}

export async function readConfig(
  source: ImageSource,
  { config }: ImageManifest,
  signal: AbortSignal | undefined,
): Promise<Buffer> {
  if (config.size > MAX_CONFIG_LENGTH) {
    const fact = `the configuration of ${source.name} has ${config.size} bytes; at most ${MAX_CONFIG_LENGTH}`;
    throw new PantalaError('invalid-argument', fact);
  }
  const pieces: Buffer[] = [];
  for await (const piece of source.blob(config, { signal })) pieces.push(piece);
  return Buffer.concat(pieces);
}
