import {
  type ByteRange,
  contentHasher,
  formatContentRange,
  lengthOf,
  PantalaError,
  parseContentDigest,
  parseContentRange,
} from '@pantala/base';
import {
  type Descriptor,
  type ImageManifest,
  MANIFEST_ACCEPT,
  MAX_MANIFEST_BYTES,
  type Manifest,
  MEDIA_TYPES,
  type Platform,
  parseManifest,
} from './manifest.ts';
import { selectPlatform } from './platform.ts';
import { isDigest, isTag } from './reference.ts';
import { readAll, refusal } from './refusal.ts';
import type { Registry } from './registry.ts';
import type { BodySource, HttpResponse } from './transport.ts';
import { uploadBlob } from './upload.ts';

/** Indexes inside indexes that are followed. Nobody nests more than two. */
const MAX_INDEX_DEPTH = 4;
/** Times that a download goes on without a byte in between before it is given up. */
const MAX_RESUMES_WITHOUT_PROGRESS = 5;
/** Bytes of one page of tags, and pages of one list. */
const MAX_TAGS_PAGE_BYTES = 16 * 1024 * 1024;
const MAX_TAGS_PAGES = 10_000;

/** A manifest as the registry gave it; its digest was checked. */
export interface FetchedManifest {
  readonly manifest: Manifest;
  readonly bytes: Buffer;
  readonly digest: string;
  readonly mediaType: string;
}

/** The image that a reference and a platform lead to. */
export interface ResolvedImage {
  readonly manifest: ImageManifest;
  readonly bytes: Buffer;
  readonly digest: string;
  readonly mediaType: string;
  /** The indexes on the way, outermost first. */
  readonly indexes: readonly FetchedManifest[];
}

export interface BlobUpload {
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  /** Called each time that the upload begins anew. Yields exactly `size` bytes. */
  readonly open: BodySource;
}

export interface UploadOptions {
  /** Another repository of the registry that has the blob: it is mounted from there where the registry can. */
  readonly mountFrom?: string;
  /** Bytes of a chunk; undefined: everything in one request. */
  readonly chunkLength?: number;
  readonly signal?: AbortSignal;
}

/** One repository of a registry. Methods throw what `Registry.request` throws, and `refusal` of other statuses. */
export class Repository {
  readonly registry: Registry;
  readonly name: string;

  constructor(registry: Registry, name: string) {
    this.registry = registry;
    this.name = name;
  }

  /**
   * Fetches and parses a manifest by tag or digest.
   *
   * @throws `data-loss` when it does not have the digest it was asked by; `not-found`; `invalid-argument`
   */
  async manifest(reference: string, signal?: AbortSignal): Promise<FetchedManifest> {
    const response = await this.#pull('GET', this.#manifestPath(reference), { accept: MANIFEST_ACCEPT }, signal);
    if (response.status !== 200) throw await refusal(response, `manifest ${this.#of(reference)}`);
    const bytes = await readAll(response, MAX_MANIFEST_BYTES, `manifest ${this.#of(reference)}`);
    const said = isDigest(reference) ? reference : response.headers['docker-content-digest'];
    const digest = digestOf(bytes, said ?? 'sha256:');
    if (said !== undefined && said !== digest) {
      throw new PantalaError(
        'data-loss',
        `manifest ${this.#of(reference)} should have the digest ${said} and has ${digest}`,
      );
    }
    try {
      const manifest = parseManifest(bytes, response.headers['content-type']);
      return { manifest, bytes, digest, mediaType: manifest.mediaType };
    } catch (thrown) {
      const { code, message, details } = PantalaError.from(thrown);
      throw new PantalaError(code, `manifest ${this.#of(reference)}: ${message}`, { cause: thrown, details });
    }
  }

  /** Digest, size and type of a manifest without fetching it; undefined when there is none. */
  async headManifest(
    reference: string,
    signal?: AbortSignal,
  ): Promise<Pick<Descriptor, 'digest' | 'mediaType' | 'size'> | undefined> {
    await using response = await this.#pull('HEAD', this.#manifestPath(reference), { accept: MANIFEST_ACCEPT }, signal);
    if (response.status === 404) return undefined;
    if (response.status !== 200) throw await refusal(response, `manifest ${this.#of(reference)}`);
    const {
      'docker-content-digest': digest = '',
      'content-type': mediaType = '',
      'content-length': size,
    } = response.headers;
    if (isDigest(digest)) return { digest, mediaType, size: Number(size ?? 0) };
    const { bytes, ...fetched } = await this.manifest(reference, signal);
    return { digest: fetched.digest, mediaType: fetched.mediaType, size: bytes.length };
  }

  /** Follows indexes to the image for a platform. @throws `not-found` when there is none for it */
  async resolve(reference: string, platform: Platform, signal?: AbortSignal): Promise<ResolvedImage> {
    const indexes: FetchedManifest[] = [];
    for (let next = reference; ; ) {
      const fetched = await this.manifest(next, signal);
      const { manifest, ...rest } = fetched;
      if (manifest.kind === 'image') return { manifest, ...rest, indexes };
      indexes.push(fetched);
      if (indexes.length > MAX_INDEX_DEPTH) {
        throw new PantalaError('invalid-argument', `${this.#of(reference)} nests more than ${MAX_INDEX_DEPTH} indexes`);
      }
      const nested = manifest.manifests.filter(
        (entry) =>
          entry.platform === undefined &&
          (entry.mediaType === MEDIA_TYPES.ociIndex || entry.mediaType === MEDIA_TYPES.dockerList),
      );
      next =
        nested.length === 1 && nested.length === manifest.manifests.length
          ? (nested[0]?.digest ?? '')
          : selectPlatform(manifest, platform).digest;
    }
  }

  /** Bytes of a blob; undefined when the registry does not have it. */
  async blobSize(digest: string, signal?: AbortSignal): Promise<number | undefined> {
    await using response = await this.#pull('HEAD', this.#blobPath(digest), {}, signal);
    if (response.status === 404) return undefined;
    if (response.status !== 200) throw await refusal(response, `blob ${digest} of ${this.name}`);
    return Number(response.headers['content-length'] ?? 0);
  }

  /**
   * The bytes of a blob in order, checked against its digest and size. Goes on where it was when the connection
   * breaks. A range is not checked (there is no digest of it).
   *
   * @throws `data-loss` after the last byte when the digest is another; `not-found`, `unavailable`
   */
  async *blob(
    blob: { readonly digest: string; readonly size: number },
    options: { readonly range?: ByteRange; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<Buffer> {
    const wanted = options.range ?? { start: 0, end: blob.size };
    if (wanted.start < 0 || wanted.end > blob.size || wanted.start > wanted.end) {
      throw new PantalaError('out-of-range', `bytes ${wanted.start} to ${wanted.end} of a blob of ${blob.size}`);
    }
    const expected = parseContentDigest(blob.digest);
    const hasher = lengthOf(wanted) === blob.size ? contentHasher(expected.algorithm) : undefined;
    let offset = wanted.start;
    let failures = 0;
    while (offset < wanted.end) {
      const before = offset;
      try {
        for await (const chunk of this.#blobFrom(blob, { start: offset, end: wanted.end }, options.signal)) {
          hasher?.update(chunk);
          offset += chunk.length;
          yield chunk;
        }
      } catch (thrown) {
        const error = PantalaError.from(thrown);
        failures = offset > before ? 0 : failures + 1;
        const passing = error.code === 'unavailable' && error.details.status === undefined;
        if (!passing || failures >= MAX_RESUMES_WITHOUT_PROGRESS) throw error;
      }
    }
    const hex = hasher?.digest('hex');
    if (hex !== undefined && hex !== expected.hex) {
      throw new PantalaError(
        'data-loss',
        `blob ${blob.digest} of ${this.name} has the digest ${expected.algorithm}:${hex}`,
      );
    }
  }

  /** One request's worth of `range`: exactly its bytes, or an error. */
  async *#blobFrom(
    blob: { readonly digest: string; readonly size: number },
    range: ByteRange,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Buffer> {
    const whole = range.start === 0 && range.end === blob.size;
    const headers: Record<string, string> = { 'accept-encoding': 'identity' };
    if (!whole) headers.range = `bytes=${range.start}-${range.end - 1}`;
    await using response = await this.#pull('GET', this.#blobPath(blob.digest), headers, signal);
    const what = `blob ${blob.digest} of ${this.name}`;
    if (response.status !== 200 && response.status !== 206) throw await refusal(response, what);
    const sent = rangeSent(response, range, blob.size, what);
    let offset = sent.start;
    for await (const chunk of response.body) {
      const from = Math.max(0, range.start - offset);
      const to = Math.min(chunk.length, range.end - offset);
      offset += chunk.length;
      if (offset > sent.end)
        throw new PantalaError('data-loss', `${what} is longer than the ${blob.size} bytes it should have`);
      if (from < to) yield chunk.subarray(from, to);
      if (offset >= range.end && sent.end > range.end) return;
    }
    if (offset < range.end) throw new PantalaError('unavailable', `${what} broke off after ${offset} bytes`);
  }

  /** Uploads a blob unless the registry has it. Says what happened. */
  async putBlob(blob: BlobUpload, options: UploadOptions = {}): Promise<'existed' | 'mounted' | 'uploaded'> {
    if ((await this.blobSize(blob.digest, options.signal)) !== undefined) return 'existed';
    return uploadBlob(this, blob, options);
  }

  /** Puts a manifest by tag or digest and returns its digest. */
  async putManifest(reference: string, bytes: Buffer, mediaType: string, signal?: AbortSignal): Promise<string> {
    const digest = digestOf(bytes, isDigest(reference) ? reference : 'sha256:');
    if (isDigest(reference) && reference !== digest) {
      throw new PantalaError('invalid-argument', `the manifest has the digest ${digest}, not ${reference}`);
    }
    const response = await this.registry.request({
      method: 'PUT',
      target: this.#manifestPath(reference),
      scope: this.scope('pull,push'),
      headers: { 'content-type': mediaType, 'content-length': String(bytes.length) },
      body: () => [bytes],
      signal,
    });
    if (response.status !== 201 && response.status !== 202)
      throw await refusal(response, `manifest ${this.#of(reference)}`);
    await response[Symbol.asyncDispose]();
    return digest;
  }

  /** All tags, page by page as the registry gives them. */
  async *tags(options: { readonly pageLength?: number; readonly signal?: AbortSignal } = {}): AsyncGenerator<string> {
    const query = options.pageLength === undefined ? '' : `?n=${options.pageLength}`;
    let target: string | URL | undefined = `/v2/${this.name}/tags/list${query}`;
    for (let page = 0; target !== undefined; page++) {
      if (page === MAX_TAGS_PAGES) throw new PantalaError('origin', `the tags of ${this.name} have no end`);
      const response: HttpResponse = await this.#pull('GET', target, {}, options.signal);
      if (response.status !== 200) throw await refusal(response, `tags of ${this.name}`);
      const next = nextPage(response.headers.link, this.registry.url);
      const document = parseDocument(await readAll(response, MAX_TAGS_PAGE_BYTES, `the tags of ${this.name}`));
      const tags = document.get('tags');
      for (const tag of Array.isArray(tags) ? tags : []) if (typeof tag === 'string' && isTag(tag)) yield tag;
      target = next;
    }
  }

  /**
   * What refers to a manifest: signatures, attestations, indexes for lazy loading. Where the registry lacks the
   * referrers API, the index under the tag `<algorithm>-<hex>` (distribution-spec, "Referrers Tag Schema").
   */
  async referrers(
    digest: string,
    options: { readonly artifactType?: string; readonly signal?: AbortSignal } = {},
  ): Promise<readonly Descriptor[]> {
    const { artifactType, signal } = options;
    const query = artifactType === undefined ? '' : `?artifactType=${encodeURIComponent(artifactType)}`;
    const response = await this.#pull(
      'GET',
      `/v2/${this.name}/referrers/${digest}${query}`,
      { accept: MEDIA_TYPES.ociIndex },
      signal,
    );
    let manifest: Manifest | undefined;
    if (response.status === 200) {
      manifest = parseManifest(
        await readAll(response, MAX_MANIFEST_BYTES, `referrers of ${digest}`),
        MEDIA_TYPES.ociIndex,
      );
    } else if (response.status === 404) {
      await response[Symbol.asyncDispose]();
      const tag = digest.replace(':', '-').slice(0, 128);
      const fetched = await this.manifest(tag, signal).catch((error: unknown) => {
        if (PantalaError.from(error).code === 'not-found') return undefined;
        throw error;
      });
      manifest = fetched?.manifest;
    } else throw await refusal(response, `referrers of ${digest}`);
    const entries = manifest?.kind === 'index' ? manifest.manifests : [];
    // A registry may leave the filtering to the client.
    return artifactType === undefined ? entries : entries.filter((entry) => entry.artifactType === artifactType);
  }

  /** The scope of a token for this repository. */
  scope(actions: string): string {
    return `repository:${this.name}:${actions}`;
  }

  #pull(
    method: string,
    target: string | URL,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal | undefined,
  ): Promise<HttpResponse> {
    return this.registry.request({ method, target, scope: this.scope('pull'), headers, signal });
  }

  #manifestPath(reference: string): string {
    if (!isTag(reference) && !isDigest(reference)) {
      throw new PantalaError('invalid-argument', `"${reference.slice(0, 200)}" is neither a tag nor a digest`);
    }
    return `/v2/${this.name}/manifests/${reference}`;
  }

  #blobPath(digest: string): string {
    parseContentDigest(digest);
    return `/v2/${this.name}/blobs/${digest}`;
  }

  #of(reference: string): string {
    return `${this.name}${isDigest(reference) ? '@' : ':'}${reference} at ${this.registry.url.host}`;
  }
}

/** Digest of `bytes` by the algorithm of `like`. */
function digestOf(bytes: Buffer, like: string): string {
  const algorithm = like.startsWith('sha512:') ? 'sha512' : 'sha256';
  return `${algorithm}:${contentHasher(algorithm).update(bytes).digest('hex')}`;
}

/** Which bytes an answer has. A server that ignores `Range` sends everything. */
function rangeSent(response: HttpResponse, asked: ByteRange, size: number, what: string): ByteRange {
  if (response.status === 200) return { start: 0, end: size };
  const sent = parseContentRange(response.headers['content-range'] ?? '');
  if (sent === undefined || sent.range.start !== asked.start || sent.range.end > asked.end) {
    throw new PantalaError(
      'origin',
      `${what}: asked for ${formatContentRange(asked, size)}, the registry sent ${response.headers['content-range']}`,
    );
  }
  if (sent.contentLength !== undefined && sent.contentLength !== size) {
    throw new PantalaError('data-loss', `${what} has ${sent.contentLength} bytes instead of ${size}`);
  }
  return sent.range;
}

/** The target of `Link: <…>; rel="next"`, which must not lead to another host. */
function nextPage(link: string | undefined, registry: URL): URL | undefined {
  const target = /<([^>]{1,4096})>\s*;[^,]*rel="?next"?/i.exec(link ?? '')?.[1];
  if (target === undefined) return undefined;
  const url = URL.parse(target, registry.href);
  return url?.origin === registry.origin ? url : undefined;
}

function parseDocument(bytes: Buffer): ReadonlyMap<string, unknown> {
  try {
    return new Map(Object.entries(JSON.parse(bytes.toString()) as object));
  } catch (error) {
    throw new PantalaError('origin', 'the registry answered with something that is no JSON', { cause: error });
  }
}
