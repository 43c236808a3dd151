import { Backoff, PantalaError, sha256Hex, sleep } from '@pantala/base';
import { formatReference, manifestReference, type Reference } from '../reference.ts';
import type { BlobUpload, FetchedManifest, Repository } from '../repository.ts';
import type { BlobName, ImageSource, ImageTarget, PutOptions, ReadOptions } from './source.ts';

/** Times that a blob is sent in all. */
const UPLOAD_ATTEMPTS = 3;
/** Milliseconds between them. */
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 5_000;

/** An image in a registry. */
export class RegistryImage implements ImageSource, ImageTarget {
  readonly name: string;
  readonly repository: Repository;
  readonly #reference: Reference;
  readonly #owned: Disposable | undefined;

  /** @param owned closed with it: the transport */
  constructor(repository: Repository, reference: Reference, owned?: Disposable) {
    this.name = formatReference(reference);
    this.repository = repository;
    this.#reference = reference;
    this.#owned = owned;
  }

  root(signal?: AbortSignal): Promise<FetchedManifest> {
    return this.repository.manifest(manifestReference(this.#reference), signal);
  }

  manifest(digest: string, signal?: AbortSignal): Promise<FetchedManifest> {
    return this.repository.manifest(digest, signal);
  }

  blob(blob: BlobName, { range, signal }: ReadOptions = {}): AsyncIterable<Buffer> {
    const options = { ...(range === undefined ? {} : { range }), ...(signal === undefined ? {} : { signal }) };
    return this.repository.blob(blob, options);
  }

  async hasBlob({ digest }: BlobName, signal?: AbortSignal): Promise<boolean> {
    return (await this.repository.blobSize(digest, signal)) !== undefined;
  }

  /** Sends it again when the connection breaks: what is sent can be read again. */
  async putBlob(blob: BlobUpload, options: PutOptions = {}): Promise<'existed' | 'mounted' | 'uploaded'> {
    const backoff = new Backoff({ initial: FIRST_PAUSE, limit: LONGEST_PAUSE });
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.repository.putBlob(blob, options);
      } catch (thrown) {
        const error = PantalaError.from(thrown);
        if (error.code !== 'unavailable' || attempt === UPLOAD_ATTEMPTS) throw error;
        await sleep(backoff.next(), options.signal);
      }
    }
  }

  putManifest(bytes: Buffer, mediaType: string, signal?: AbortSignal): Promise<string> {
    return this.repository.putManifest(`sha256:${sha256Hex(bytes)}`, bytes, mediaType, signal);
  }

  finish(root: { readonly bytes: Buffer; readonly mediaType: string }, signal?: AbortSignal): Promise<string> {
    const { digest, tag } = this.#reference;
    if (digest !== undefined) {
      throw new PantalaError('invalid-argument', `${this.name} names a digest; an image is written under a tag`);
    }
    return this.repository.putManifest(tag ?? 'latest', root.bytes, root.mediaType, signal);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#owned?.[Symbol.dispose]();
  }
}
