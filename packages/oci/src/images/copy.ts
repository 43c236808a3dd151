import { PantalaError } from '@pantala/base';
import { type Descriptor, type IndexEntry, MAX_INDEX_ENTRIES, MEDIA_TYPES, type Platform } from '../manifest.ts';
import { selectPlatform } from '../platform.ts';
import type { FetchedManifest } from '../repository.ts';
import type { ImageSource, ImageTarget } from './source.ts';
import { together } from './together.ts';

/** Indexes inside indexes that are followed. */
const MAX_DEPTH = 4;
const MANIFESTS: ReadonlySet<string> = new Set([
  MEDIA_TYPES.ociManifest,
  MEDIA_TYPES.ociIndex,
  MEDIA_TYPES.dockerManifest,
  MEDIA_TYPES.dockerList,
]);

export interface CopyOptions {
  /** One platform of an index; undefined: all of it, with what else is in it. */
  readonly platform?: Platform;
  /** Blobs on their way at once. Default 4. */
  readonly concurrency?: number;
  readonly progress?: (event: CopyEvent) => void;
  readonly signal?: AbortSignal;
}

export type CopyEvent =
  | { readonly kind: 'blob'; readonly digest: string; readonly size: number; readonly outcome: BlobOutcome }
  /** Bytes of a blob so far. */
  | { readonly kind: 'bytes'; readonly digest: string; readonly done: number; readonly size: number }
  | { readonly kind: 'manifest'; readonly digest: string; readonly mediaType: string };

export type BlobOutcome = 'existed' | 'mounted' | 'uploaded';

export interface CopyReport {
  /** Of the manifest or index that the target names now. */
  readonly digest: string;
  readonly blobs: number;
  /** Bytes of the blobs that went over. */
  readonly bytes: number;
}

/**
 * Copies an image, byte by byte: from anywhere to anywhere, with everything that an index names.
 *
 * @throws `failed-precondition` for layers that may not be distributed; what source and target throw
 */
export async function copyImage(
  source: ImageSource,
  target: ImageTarget,
  options: CopyOptions = {},
): Promise<CopyReport> {
  const { platform, progress, signal } = options;
  let root = await source.root(signal);
  if (platform !== undefined) root = await selectImage(source, root, platform, signal);
  const copied = await copyContent(source, target, root, options);
  const digest = await target.finish(root, signal);
  progress?.({ kind: 'manifest', digest, mediaType: root.mediaType });
  return { digest, ...copied };
}

/** Copies what is below a manifest or index, without that itself. @throws as `copyImage` */
export async function copyContent(
  source: ImageSource,
  target: ImageTarget,
  root: FetchedManifest,
  options: Pick<CopyOptions, 'concurrency' | 'signal'> & { readonly progress?: (event: CopyEvent) => void } = {},
): Promise<Omit<CopyReport, 'digest'>> {
  const { concurrency = 4, progress, signal } = options;
  const content = new Content(source, signal);
  await content.gather(root, 0);
  const mount = mountableFrom(source, target);
  const blobs = [...content.blobs.values()];
  const copy = (blob: Descriptor, ended: AbortSignal) =>
    copyBlob(source, target, blob, { mount, progress, signal: ended });
  const outcomes = await together(blobs, concurrency, copy, signal);
  for (const { bytes, mediaType, digest } of content.manifests) {
    await target.putManifest(bytes, mediaType, signal);
    progress?.({ kind: 'manifest', digest, mediaType });
  }
  const uploaded = blobs.filter((_, index) => outcomes[index] === 'uploaded');
  return { blobs: blobs.length, bytes: uploaded.reduce((sum, { size }) => sum + size, 0) };
}

/** The image for a platform below a manifest or index. @throws `not-found` telling what there is */
export async function selectImage(
  source: ImageSource,
  root: FetchedManifest,
  platform: Platform,
  signal: AbortSignal | undefined,
): Promise<FetchedManifest> {
  let found = root;
  for (let depth = 0; found.manifest.kind === 'index'; depth++) {
    if (depth === MAX_DEPTH) throw tooDeep(source);
    const { manifests } = found.manifest;
    const [only] = manifests;
    const nested = manifests.length === 1 && only !== undefined && isIndex(only) && only.platform === undefined;
    found = await source.manifest((nested ? only : selectPlatform(found.manifest, platform)).digest, signal);
  }
  return found;
}

function isIndex({ mediaType }: IndexEntry): boolean {
  return mediaType === MEDIA_TYPES.ociIndex || mediaType === MEDIA_TYPES.dockerList;
}

function tooDeep(source: ImageSource): PantalaError {
  return new PantalaError('invalid-argument', `${source.name} nests more than ${MAX_DEPTH} indexes`);
}

/** What is below a manifest or index, each thing once. */
class Content {
  /** Those that others name, lower ones first; the topmost is not among them. */
  readonly manifests: FetchedManifest[] = [];
  readonly blobs = new Map<string, Descriptor>();
  readonly #source: ImageSource;
  readonly #signal: AbortSignal | undefined;
  readonly #seen = new Set<string>();

  constructor(source: ImageSource, signal: AbortSignal | undefined) {
    this.#source = source;
    this.#signal = signal;
  }

  async gather({ manifest }: FetchedManifest, depth: number): Promise<void> {
    if (depth > MAX_DEPTH) throw tooDeep(this.#source);
    if (manifest.kind === 'image') {
      for (const blob of [...manifest.layers, manifest.config]) this.blobs.set(blob.digest, blob);
      return;
    }
    for (const entry of manifest.manifests) {
      if (this.#seen.has(entry.digest)) continue;
      this.#seen.add(entry.digest);
      if (this.#seen.size > MAX_INDEX_ENTRIES)
        throw new PantalaError('invalid-argument', `${this.#source.name} has more than ${MAX_INDEX_ENTRIES} manifests`);
      if (!MANIFESTS.has(entry.mediaType)) {
        this.blobs.set(entry.digest, entry);
        continue;
      }
      const found = await this.#source.manifest(entry.digest, this.#signal);
      await this.gather(found, depth + 1);
      this.manifests.push(found);
    }
  }
}

/** The repository that blobs are mounted from instead of being sent; undefined when they must be sent. */
export function mountableFrom(source: ImageSource, target: ImageTarget): string | undefined {
  const [from, to] = [source.repository, target.repository];
  if (from === undefined || from.registry.url.href !== to?.registry.url.href) return undefined;
  return from.name === to.name ? undefined : from.name;
}

async function copyBlob(
  source: ImageSource,
  target: ImageTarget,
  blob: Descriptor,
  options: {
    readonly mount: string | undefined;
    readonly progress: CopyOptions['progress'];
    readonly signal: AbortSignal;
  },
): Promise<BlobOutcome> {
  const { mount, progress, signal } = options;
  const { digest, size } = blob;
  if (isForeign(blob) && !(await target.hasBlob(blob, signal))) refuseForeign(blob, source.name);
  async function* open(): AsyncGenerator<Buffer> {
    let done = 0;
    for await (const piece of source.blob(blob, { signal })) {
      done += piece.length;
      progress?.({ kind: 'bytes', digest, done, size });
      yield piece;
    }
  }
  const put = { ...(mount === undefined ? {} : { mountFrom: mount }), signal };
  const outcome = await target.putBlob({ digest, size, open }, put);
  progress?.({ kind: 'blob', digest, size, outcome });
  return outcome;
}

function isForeign({ mediaType }: Descriptor): boolean {
  return /foreign|nondistributable/.test(mediaType);
}

/** Layers that their owner does not let others hand out: registries do not have them. @throws `failed-precondition` */
export function refuseForeign(blob: Descriptor, where: string): void {
  if (!isForeign(blob)) return;
  const { mediaType, digest, urls } = blob;
  const place = urls[0] === undefined ? 'its owner' : urls[0].slice(0, 200);
  throw new PantalaError(
    'failed-precondition',
    `layer ${digest} of ${where} is a ${mediaType}, which only ${place} hands out; use an image without such layers`,
  );
}
