import { open } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type ByteRange,
  contentHasher,
  PantalaError,
  parseContentDigest,
  sha256Hex,
  throwIfAborted,
} from '@pantala/base';
import { MAX_MANIFEST_BYTES, parseManifest } from '../manifest.ts';
import type { FetchedManifest } from '../repository.ts';
import { blobPath, INDEX_FILE, parseLayoutIndex, selectEntry } from './layout-index.ts';
import { type BlobName, checked, fetched, type ImageSource, type ReadOptions } from './source.ts';

/** Bytes read at once. */
export const READ_LENGTH = 1024 * 1024;

export interface StoredFile {
  /** Bytes. */
  readonly size: number;
  read(signal?: AbortSignal, range?: ByteRange): AsyncIterable<Buffer>;
}

/** Files by the paths that an OCI layout knows: in a folder or in an archive. */
export interface LayoutFiles extends AsyncDisposable {
  /** For people. */
  readonly name: string;
  /** undefined when there is none. */
  find(path: string): Promise<StoredFile | undefined>;
}

/** @throws `not-found`; `invalid-argument` when it is longer than `limit` */
export async function readFileOf(
  files: LayoutFiles,
  path: string,
  limit: number,
  signal?: AbortSignal,
): Promise<Buffer> {
  const file = await files.find(path);
  if (file === undefined) throw new PantalaError('not-found', `${files.name} has no ${path}`);
  if (file.size > limit) {
    throw new PantalaError('invalid-argument', `${path} of ${files.name} has ${file.size} bytes; at most ${limit}`);
  }
  const pieces: Buffer[] = [];
  for await (const piece of file.read(signal)) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** An image in an OCI layout (https://github.com/opencontainers/image-spec/blob/main/image-layout.md). */
export class LayoutImage implements ImageSource {
  readonly name: string;
  readonly #files: LayoutFiles;
  readonly #wanted: string | undefined;

  /** @param wanted reference or tag; undefined for the only one */
  constructor(files: LayoutFiles, wanted: string | undefined) {
    this.name = wanted === undefined ? files.name : `${files.name}:${wanted}`;
    this.#files = files;
    this.#wanted = wanted;
  }

  async root(signal?: AbortSignal): Promise<FetchedManifest> {
    const bytes = await readFileOf(this.#files, INDEX_FILE, MAX_MANIFEST_BYTES, signal);
    const index = parseLayoutIndex(bytes, this.#files.name);
    const entry = selectEntry(index, this.#wanted, this.#files.name);
    if (entry !== undefined) return this.manifest(entry.digest, signal);
    return fetched(index, bytes, `sha256:${sha256Hex(bytes)}`);
  }

  async manifest(digest: string, signal?: AbortSignal): Promise<FetchedManifest> {
    const path = pathOf(digest);
    const bytes = await readFileOf(this.#files, path, MAX_MANIFEST_BYTES, signal);
    const { algorithm, hex } = parseContentDigest(digest);
    if (contentHasher(algorithm).update(bytes).digest('hex') !== hex)
      throw new PantalaError('data-loss', `manifest ${digest} of ${this.#files.name} has another digest`);
    return fetched(parseManifest(bytes), bytes, digest);
  }

  async *blob(blob: BlobName, { range, signal }: ReadOptions = {}): AsyncGenerator<Buffer> {
    const file = await this.#files.find(pathOf(blob.digest));
    if (file === undefined) throw new PantalaError('not-found', `${this.#files.name} has no blob ${blob.digest}`);
    if (range === undefined) yield* checked(file.read(signal), blob, this.#files.name);
    else yield* file.read(signal, inside(range, file.size));
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.#files[Symbol.asyncDispose]();
  }
}

/** @throws `out-of-range` for what the blob does not have */
export function inside(range: ByteRange, size: number): ByteRange {
  if (range.start >= 0 && range.start <= range.end && range.end <= size) return range;
  throw new PantalaError('out-of-range', `bytes ${range.start} to ${range.end} of a blob of ${size}`);
}

/** A digest that is one stays inside the layout. */
function pathOf(digest: string): string {
  parseContentDigest(digest);
  return blobPath(digest);
}

/** An OCI layout in a folder. */
export class LayoutFolder implements LayoutFiles {
  readonly name: string;

  constructor(path: string) {
    this.name = path;
  }

  async find(path: string): Promise<StoredFile | undefined> {
    const whole = join(this.name, path);
    const file = await open(whole, 'r').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ENOTDIR') return undefined;
      throw PantalaError.from(error);
    });
    if (file === undefined) return undefined;
    await using opened = file;
    const facts = await opened.stat();
    if (!facts.isFile()) throw new PantalaError('invalid-argument', `${whole} is no file`);
    return { size: facts.size, read: (signal, range) => readRange(whole, 0, facts.size, signal, range) };
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

/** Bytes of a file in pieces of their own memory; `range` counts from `start`. @throws `data-loss` when the file is shorter */
export async function* readRange(
  path: string,
  start: number,
  length: number,
  signal: AbortSignal | undefined,
  range: ByteRange = { start: 0, end: length },
): AsyncGenerator<Buffer> {
  await using file = await open(path, 'r');
  for (let done = range.start; done < range.end; ) {
    throwIfAborted(signal);
    const buffer = Buffer.allocUnsafeSlow(Math.min(READ_LENGTH, range.end - done));
    const { bytesRead } = await file.read(buffer, 0, buffer.length, start + done);
    if (bytesRead === 0) throw new PantalaError('data-loss', `${path} ends at byte ${start + done}`);
    done += bytesRead;
    yield buffer.subarray(0, bytesRead);
  }
}
