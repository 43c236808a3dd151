import { type ByteRange, contentHasher, PantalaError, parseContentDigest } from '@pantala/base';
import type { Descriptor, Manifest } from '../manifest.ts';
import type { BlobUpload, FetchedManifest, Repository } from '../repository.ts';

/** Which blob: what a descriptor says of it. */
export type BlobName = Pick<Descriptor, 'digest' | 'size'>;

/** An image, or an index of images, that can be read: in a registry, a folder, an archive. */
export interface ImageSource extends AsyncDisposable {
  /** For people. */
  readonly name: string;
  /** Where it lies, when that is a registry. */
  readonly repository?: Repository;
  /** What the location names: a manifest or an index. @throws `not-found`; `data-loss`; `invalid-argument` */
  root(signal?: AbortSignal): Promise<FetchedManifest>;
  /** A manifest or index by digest, checked. @throws as `root` */
  manifest(digest: string, signal?: AbortSignal): Promise<FetchedManifest>;
  /**
   * The bytes of a blob in order, or a range of them, which is not checked.
   *
   * @throws `not-found`; `data-loss`, at the end, when they are others
   */
  blob(blob: BlobName, options?: ReadOptions): AsyncIterable<Buffer>;
}

export interface ReadOptions {
  /** Default: everything. */
  readonly range?: ByteRange;
  readonly signal?: AbortSignal | undefined;
}

export interface PutOptions {
  /** Another repository of the same registry that has the blob. */
  readonly mountFrom?: string;
  readonly signal?: AbortSignal;
}

/** Where an image can be written. What is not finished leaves no image behind, at most blobs that nothing names. */
export interface ImageTarget extends AsyncDisposable {
  /** For people. */
  readonly name: string;
  /** Where it lies, when that is a registry. */
  readonly repository?: Repository;
  hasBlob(blob: BlobName, signal?: AbortSignal): Promise<boolean>;
  /** Takes a blob unless it is there. @throws `data-loss` when its bytes are not what its digest says */
  putBlob(blob: BlobUpload, options?: PutOptions): Promise<'existed' | 'mounted' | 'uploaded'>;
  /** Takes a manifest that an index or another manifest names; blobs come before. Returns its digest. */
  putManifest(bytes: Buffer, mediaType: string, signal?: AbortSignal): Promise<string>;
  /** Takes the manifest or index that the location is to name, after everything below it. Returns its digest. */
  finish(root: { readonly bytes: Buffer; readonly mediaType: string }, signal?: AbortSignal): Promise<string>;
}

/** @throws `data-loss` at the end when bytes or their number are not what the name says */
export async function* checked(
  pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  { digest, size }: BlobName,
  where: string,
): AsyncGenerator<Buffer, void, undefined> {
  const expected = parseContentDigest(digest);
  const hasher = contentHasher(expected.algorithm);
  let length = 0;
  for await (const piece of pieces) {
    length += piece.length;
    if (length > size) break;
    hasher.update(piece);
    yield Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength);
  }
  const hex = hasher.digest('hex');
  if (length === size && hex === expected.hex) return;
  const found =
    length === size ? `the digest ${expected.algorithm}:${hex}` : `${length > size ? 'more' : length} bytes`;
  throw new PantalaError('data-loss', `blob ${digest} of ${where} should have ${size} bytes and has ${found}`);
}

/** A manifest that was read somewhere, with its own digest. */
export function fetched(manifest: Manifest, bytes: Buffer, digest: string): FetchedManifest {
  return { manifest, bytes, digest, mediaType: manifest.mediaType };
}
