import { type ByteString, PantalaError, sha256Hex } from '@pantala/base';
import {
  type BlobUpload,
  type Descriptor,
  type ImageAccess,
  type ImageSource,
  type ImageTarget,
  locateImage,
  MAX_MANIFEST_BYTES,
  MEDIA_TYPES,
  mountableFrom,
  openImageSource,
  openImageTarget,
} from '@pantala/oci';
import { type Directory, nodeAt, type StoredBlob, walk } from '@pantala/rafs';
import type { LayerBuild } from '../build/layer.ts';
import { blobOrder } from '../build/prefetch.ts';
import { FolderBlobs, type StoredBlobs } from '../stored/stored-blobs.ts';
import { readBuiltBlob } from './built-blob.ts';
import type { ConvertedLayer } from './layer-conversion.ts';
import { ANNOTATIONS, NYDUS_BLOB } from './nydus-manifest.ts';
import type { NewBlob } from './progress.ts';

/** Value of the annotation by which a cache is known (nydusify's `--build-cache-version`). */
const VERSION = 'v1';
/** Pantala's own annotations of a cached layer: how it was built, its bootstrap's digest, what its tar only implied. */
const BUILD = 'io.pantala.image/build';
const BOOTSTRAP_DIGEST = 'io.pantala.image/bootstrap-digest';
const IMPLIED = 'io.pantala.image/implied';
/** Layers that a cache remembers by default; the one that was not used for longest goes first. */
export const MAX_CACHE_RECORDS = 200;
/** Characters of one annotation; a layer with more implied directories is not remembered. */
const MAX_IMPLIED_LENGTH = 16 * 1024;
/** Bytes of all records together: the manifest must be one that registries take. */
const MAX_RECORDS_LENGTH = MAX_MANIFEST_BYTES / 2;

interface CachedLayer extends NewBlob {
  readonly sourceDigest: string;
  readonly build: string;
  readonly bootstrapDigest: string;
  readonly implied: readonly ByteString[];
}

export interface BuildCacheOptions extends ImageAccess {
  /** Default MAX_CACHE_RECORDS. */
  readonly maxRecords?: number;
}

/**
 * Layers that were converted before, as an image of their own whose manifest says what was made of what. A layer is
 * found again when it is to be built in the same way.
 */
export class BuildCache implements AsyncDisposable {
  readonly #source: ImageSource;
  readonly #target: ImageTarget;
  readonly #maxRecords: number;
  /** By source and way of building; the last used ones at the end. */
  readonly #records: Map<string, CachedLayer>;
  #changed = false;

  private constructor(source: ImageSource, target: ImageTarget, records: Map<string, CachedLayer>, maxRecords: number) {
    this.#source = source;
    this.#target = target;
    this.#records = records;
    this.#maxRecords = maxRecords;
  }

  /**
   * @param text where the cache is or shall be: a reference or an OCI layout
   * @throws `invalid-argument` for an archive, which cannot be added to
   */
  static async open(text: string, options: BuildCacheOptions = {}): Promise<BuildCache> {
    const { maxRecords = MAX_CACHE_RECORDS, ...access } = options;
    if ((await locateImage(text)).kind === 'archive')
      throw new PantalaError('invalid-argument', `the build cache ${text} is an archive; use a registry or a folder`);
    const target = await openImageTarget(text, access);
    const source = await openImageSource(text, access).catch((error: unknown) => ifMissing(error, new Nothing(text)));
    const records = await readRecords(source, access.signal);
    return new BuildCache(source, target, records, maxRecords);
  }

  /** The layer as it was converted before; undefined when it was not, or the cache has lost or spoiled it. */
  async find(sourceDigest: string, build: LayerBuild, signal: AbortSignal): Promise<ConvertedLayer | undefined> {
    const key = keyOf(sourceDigest, build);
    const record = this.#records.get(key);
    if (record === undefined) return undefined;
    try {
      const built = await readBuiltBlob(storedBlob(this.#source, record, signal));
      if (built.bootstrapDigest !== record.bootstrapDigest) throw new PantalaError('data-loss', 'another bootstrap');
      const implied = new Set<Directory>();
      for (const path of record.implied) {
        const node = nodeAt(built.image.root, path);
        if (node?.kind === 'directory') implied.add(node);
      }
      const { digest, size } = record;
      this.#records.delete(key);
      this.#records.set(key, record);
      const { image, needed, meta } = built;
      return { source: sourceDigest, image, implied, blob: { digest, size }, needed, path: undefined, meta };
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      if (error.code !== 'not-found' && error.code !== 'data-loss' && error.code !== 'invalid-argument') throw error;
      this.#records.delete(key);
      this.#changed = true;
      return undefined;
    }
  }

  /** A blob of the cache for somebody else's image. */
  upload(blob: NewBlob, signal: AbortSignal): BlobUpload {
    return { ...blob, open: () => this.#source.blob(blob, { signal }) };
  }

  mountFrom(target: ImageTarget): string | undefined {
    return mountableFrom(this.#source, target);
  }

  /** Remembers a layer that was just converted. @param upload its blob */
  async add(
    sourceDigest: string,
    build: LayerBuild,
    layer: ConvertedLayer,
    upload: BlobUpload,
    signal: AbortSignal,
  ): Promise<void> {
    const implied: ByteString[] = [];
    for (const { path, node } of walk(layer.image.root))
      if (node.kind === 'directory' && layer.implied.has(node)) implied.push(path);
    if (JSON.stringify(implied).length > MAX_IMPLIED_LENGTH || layer.path === undefined) return;
    const bootstrapDigest = await digestInFile(layer.path, layer.blob);
    await this.#target.putBlob(upload, { signal });
    const { digest, size } = layer.blob;
    const record = { sourceDigest, digest, size, build: fingerprint(build), bootstrapDigest, implied };
    this.#records.set(keyOf(sourceDigest, build), record);
    this.#changed = true;
  }

  /** Writes what is remembered, if that is something else than before. */
  async store(signal?: AbortSignal): Promise<void> {
    if (!this.#changed) return;
    const records = lastOf([...this.#records.values()], this.#maxRecords);
    const diffIds = records.map(({ digest }) => digest);
    const config = Buffer.from(
      JSON.stringify({ architecture: '', os: '', rootfs: { type: 'layers', diff_ids: diffIds } }),
    );
    const configBlob = { digest: `sha256:${sha256Hex(config)}`, size: config.length };
    const stop = signal === undefined ? {} : { signal };
    await this.#target.putBlob({ ...configBlob, open: () => [config] }, stop);
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MEDIA_TYPES.ociManifest,
        config: { mediaType: 'application/vnd.oci.image.config.v1+json', ...configBlob },
        layers: records.map(recordDocument),
        annotations: { [ANNOTATIONS.cache]: VERSION },
      }),
    );
    await this.#target.finish({ bytes: manifest, mediaType: MEDIA_TYPES.ociManifest }, signal);
    this.#changed = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source[Symbol.asyncDispose]();
    await this.#target[Symbol.asyncDispose]();
  }
}

/** The last ones, as many as a manifest can hold. */
function lastOf(records: readonly CachedLayer[], most: number): CachedLayer[] {
  let length = 0;
  const kept = records.toReversed().filter((record, index) => {
    length += JSON.stringify(recordDocument(record)).length;
    return index < most && length <= MAX_RECORDS_LENGTH;
  });
  return kept.reverse();
}

/** How a layer is built, as far as the result shows it. */
function fingerprint({
  compressor = 'zstd',
  digester = 'blake3',
  chunkSize = 1024 * 1024,
  batchSize = 0,
  dictionaries = [],
  prefetch,
}: LayerBuild): string {
  const chunks = dictionaries.map(({ blobs }) => blobs.map(({ id }) => id));
  return sha256Hex(
    JSON.stringify({ compressor, digester, chunkSize, batchSize, chunks, order: blobOrder(prefetch) }),
  ).slice(0, 16);
}

function keyOf(sourceDigest: string, build: LayerBuild): string {
  return `${sourceDigest} ${fingerprint(build)}`;
}

function recordDocument({ digest, size, sourceDigest, build, bootstrapDigest, implied }: CachedLayer): object {
  return {
    mediaType: NYDUS_BLOB,
    digest,
    size,
    annotations: {
      [ANNOTATIONS.blob]: 'true',
      [ANNOTATIONS.sourceDigest]: sourceDigest,
      [ANNOTATIONS.targetDigest]: digest,
      [BUILD]: build,
      [BOOTSTRAP_DIGEST]: bootstrapDigest,
      [IMPLIED]: JSON.stringify(implied),
    },
  };
}

async function readRecords(source: ImageSource, signal: AbortSignal | undefined): Promise<Map<string, CachedLayer>> {
  const records = new Map<string, CachedLayer>();
  const root = await source.root(signal).catch((error: unknown) => ifMissing(error, undefined));
  if (root?.manifest.kind !== 'image' || root.manifest.annotations.get(ANNOTATIONS.cache) !== VERSION) return records;
  for (const layer of root.manifest.layers) {
    const record = recordOf(layer);
    if (record !== undefined) records.set(`${record.sourceDigest} ${record.build}`, record);
  }
  return records;
}

/** Records of other builders say too little to be used. */
function recordOf({ digest, size, annotations }: Descriptor): CachedLayer | undefined {
  const sourceDigest = annotations.get(ANNOTATIONS.sourceDigest);
  const build = annotations.get(BUILD);
  const bootstrapDigest = annotations.get(BOOTSTRAP_DIGEST);
  const implied = pathsOf(annotations.get(IMPLIED) ?? '');
  if (sourceDigest === undefined || build === undefined || bootstrapDigest === undefined || implied === undefined)
    return undefined;
  return { digest, size, sourceDigest, build, bootstrapDigest, implied };
}

function pathsOf(text: string): ByteString[] | undefined {
  try {
    const list: unknown = JSON.parse(text);
    return Array.isArray(list) && list.every((each) => typeof each === 'string') ? list : undefined;
  } catch {
    return undefined;
  }
}

function storedBlob(source: ImageSource, blob: NewBlob, signal: AbortSignal): StoredBlob {
  return {
    name: blob.digest,
    size: blob.size,
    read: async (range) => {
      const pieces: Buffer[] = [];
      for await (const piece of source.blob(blob, { range, signal })) pieces.push(piece);
      return Buffer.concat(pieces);
    },
  };
}

async function digestInFile(path: string, { digest }: NewBlob): Promise<string> {
  const folder = path.slice(0, path.lastIndexOf('/'));
  await using blobs: StoredBlobs = new FolderBlobs(folder);
  return (await readBuiltBlob(await blobs.open(digest.slice('sha256:'.length)))).bootstrapDigest;
}

function ifMissing<Value>(error: unknown, value: Value): Value {
  if (PantalaError.from(error).code === 'not-found') return value;
  throw error;
}

/** A cache that is not there yet. */
class Nothing implements ImageSource {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  root(): Promise<never> {
    return Promise.reject(this.#missing());
  }

  manifest(): Promise<never> {
    return Promise.reject(this.#missing());
  }

  blob(): AsyncIterable<Buffer> {
    throw this.#missing();
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #missing(): PantalaError {
    return new PantalaError('not-found', `${this.name} is not there`);
  }
}
