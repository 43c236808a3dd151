import { type ByteRange, contentHasher, PantalaError, sha256Hex } from '@pantala/base';
import { compressionOf } from '../compression/decompressed.ts';
import { parseImageConfig } from '../image-config.ts';
import { MAX_LAYERS, MAX_MANIFEST_BYTES, MEDIA_TYPES, parseManifest } from '../manifest.ts';
import { parseReference, shortReference } from '../reference.ts';
import type { FetchedManifest } from '../repository.ts';
import { inside, type LayoutFiles, readFileOf, type StoredFile } from './layout-files.ts';
import { type BlobName, checked, fetched, type ImageSource, type ReadOptions } from './source.ts';

export const DOCKER_MANIFEST_FILE = 'manifest.json';
/** Images of one archive. */
const MAX_IMAGES = 1000;
/** Bytes of an image's configuration, as of manifests. */
const MAX_CONFIG_LENGTH = MAX_MANIFEST_BYTES;

const LAYER = 'application/vnd.docker.image.rootfs.diff.tar';

interface DockerImage {
  readonly config: string;
  readonly tags: readonly string[];
  readonly layers: readonly string[];
}

/**
 * An image in what `docker save` wrote before it wrote OCI layouts: the manifest is made up here, of the layers as
 * they lie there.
 */
export class DockerArchive implements ImageSource {
  readonly name: string;
  readonly #files: LayoutFiles;
  readonly #wanted: string | undefined;
  readonly #blobs = new Map<string, StoredFile>();
  #root: Promise<FetchedManifest> | undefined;

  /** @param wanted reference or tag; undefined for the only one */
  constructor(files: LayoutFiles, wanted: string | undefined) {
    this.name = wanted === undefined ? files.name : `${files.name}:${wanted}`;
    this.#files = files;
    this.#wanted = wanted;
  }

  root(signal?: AbortSignal): Promise<FetchedManifest> {
    this.#root ??= this.#make(signal);
    return this.#root;
  }

  async manifest(digest: string, signal?: AbortSignal): Promise<FetchedManifest> {
    const root = await this.root(signal);
    if (root.digest !== digest) throw new PantalaError('not-found', `${this.name} has no manifest ${digest}`);
    return root;
  }

  async *blob(blob: BlobName, { range, signal }: ReadOptions = {}): AsyncGenerator<Buffer> {
    await this.root(signal);
    const file = this.#blobs.get(blob.digest);
    if (file === undefined) throw new PantalaError('not-found', `${this.name} has no blob ${blob.digest}`);
    if (range === undefined) yield* checked(file.read(signal), blob, this.name);
    else yield* file.read(signal, inside(range, file.size));
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.#files[Symbol.asyncDispose]();
  }

  async #make(signal: AbortSignal | undefined): Promise<FetchedManifest> {
    const list = await readFileOf(this.#files, DOCKER_MANIFEST_FILE, MAX_MANIFEST_BYTES, signal);
    const image = select(parseImages(list, this.name), this.#wanted, this.#files.name);
    const config = await readFileOf(this.#files, image.config, MAX_CONFIG_LENGTH, signal);
    const { diffIds } = parseImageConfig(config);
    if (diffIds.length !== image.layers.length) {
      throw new PantalaError(
        'invalid-argument',
        `${this.name} has ${image.layers.length} layers and a configuration of ${diffIds.length}`,
      );
    }
    const layers = [];
    for (const [index, path] of image.layers.entries()) {
      const file = await this.#files.find(path);
      if (file === undefined) throw new PantalaError('not-found', `${this.name} has no ${path}`);
      const { digest, compressed } = await describe(file, diffIds[index] as string, signal);
      this.#blobs.set(digest, file);
      layers.push({ mediaType: compressed ? `${LAYER}.gzip` : LAYER, size: file.size, digest });
    }
    const configDigest = `sha256:${sha256Hex(config)}`;
    this.#blobs.set(configDigest, { size: config.length, read: (_, range) => inOnePiece(config, range) });
    const bytes = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MEDIA_TYPES.dockerManifest,
        config: {
          mediaType: 'application/vnd.docker.container.image.v1+json',
          size: config.length,
          digest: configDigest,
        },
        layers,
      }),
    );
    return fetched(parseManifest(bytes), bytes, `sha256:${sha256Hex(bytes)}`);
  }
}

/** A plain layer's digest stands in the configuration and is checked when it is read; others' must be found out. */
async function describe(
  file: StoredFile,
  diffId: string,
  signal: AbortSignal | undefined,
): Promise<{ readonly digest: string; readonly compressed: boolean }> {
  const hasher = contentHasher('sha256');
  let first = true;
  for await (const piece of file.read(signal)) {
    if (first && compressionOf(piece) === 'none') return { digest: diffId, compressed: false };
    first = false;
    hasher.update(piece);
  }
  return first ? { digest: diffId, compressed: false } : { digest: `sha256:${hasher.digest('hex')}`, compressed: true };
}

function select(images: readonly DockerImage[], wanted: string | undefined, where: string): DockerImage {
  if (wanted === undefined && images.length === 1) return images[0] as DockerImage;
  const found = images.filter(({ tags }) => wanted !== undefined && tags.some((tag) => means(wanted, tag)));
  if (found.length === 1) return found[0] as DockerImage;
  const known = images.flatMap(({ tags }) => tags).slice(0, 20);
  throw new PantalaError(
    'not-found',
    `${where} has ${images.length} images, ${wanted === undefined ? 'say which' : `${found.length} of them "${wanted}"`}${known.length > 0 ? `: ${known.join(', ')}` : ''}`,
  );
}

/** The whole reference, however short it is written, or the tag alone. */
function means(wanted: string, tag: string): boolean {
  if (wanted === tag || tag.endsWith(`:${wanted}`)) return true;
  try {
    return shortReference(parseReference(wanted)) === shortReference(parseReference(tag));
  } catch {
    return false;
  }
}

function parseImages(bytes: Buffer, where: string): DockerImage[] {
  const wrong = (why: string) => new PantalaError('invalid-argument', `${DOCKER_MANIFEST_FILE} of ${where} ${why}`);
  let document: unknown;
  try {
    document = JSON.parse(bytes.toString());
  } catch {
    throw wrong('is no JSON');
  }
  if (!Array.isArray(document) || document.length > MAX_IMAGES) throw wrong('is no list of images');
  return document.map((value: unknown) => {
    const fields = new Map(Object.entries(typeof value === 'object' && value !== null ? value : {}));
    const [config, tags, layers] = [fields.get('Config'), fields.get('RepoTags') ?? [], fields.get('Layers')];
    if (typeof config !== 'string' || !isTexts(layers) || !isTexts(tags) || layers.length > MAX_LAYERS)
      throw wrong('has an image without Config, RepoTags or Layers');
    return { config, tags, layers };
  });
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((each) => typeof each === 'string');
}

async function* inOnePiece(bytes: Buffer, range?: ByteRange): AsyncGenerator<Buffer> {
  yield bytes.subarray(range?.start, range?.end);
}
