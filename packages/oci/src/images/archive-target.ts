import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { PantalaError, Semaphore, sha256Hex } from '@pantala/base';
import { parseManifest } from '../manifest.ts';
import type { BlobUpload } from '../repository.ts';
import type { TarHeader } from '../tar/entry.ts';
import { memberBlocks, type TarMember, writeTar } from '../tar/writer.ts';
import { DOCKER_MANIFEST_FILE } from './docker-archive.ts';
import { blobPath, INDEX_FILE, LAYOUT_CONTENT, LAYOUT_FILE, withEntry } from './layout-index.ts';
import { type BlobName, checked, type ImageTarget, type PutOptions } from './source.ts';

/**
 * Writes an OCI layout as a tar, which appears when it is whole. Images that Docker can run also get the list by which
 * `docker load` finds them.
 */
export class ArchiveTarget implements ImageTarget {
  readonly name: string;
  readonly #path: string;
  readonly #partial: string;
  readonly #file: FileHandle;
  readonly #wanted: string | undefined;
  readonly #held = new Set<string>();
  /** Members of a tar come one after the other. */
  readonly #writing = new Semaphore(1);
  #finished = false;
  #broken = false;

  private constructor(path: string, wanted: string | undefined, partial: string, file: FileHandle) {
    this.name = wanted === undefined ? path : `${path}:${wanted}`;
    this.#path = path;
    this.#wanted = wanted;
    this.#partial = partial;
    this.#file = file;
  }

  /** @param wanted the name that the image gets */
  static async create(path: string, wanted: string | undefined): Promise<ArchiveTarget> {
    const partial = `${path}.${randomBytes(4).toString('hex')}.partial`;
    const file = await open(partial, 'wx', 0o644).catch((thrown: unknown) => {
      const { code, message } = PantalaError.from(thrown);
      throw new PantalaError(code, `${path} cannot be written: ${message}`, { cause: thrown });
    });
    return new ArchiveTarget(path, wanted, partial, file);
  }

  async hasBlob({ digest }: BlobName): Promise<boolean> {
    return this.#held.has(digest);
  }

  async putBlob(blob: BlobUpload, options: PutOptions = {}): Promise<'existed' | 'uploaded'> {
    using _turn = await this.#writing.acquire(options.signal);
    if (this.#held.has(blob.digest)) return 'existed';
    await this.#add(blobPath(blob.digest), blob.size, () => checked(blob.open(), blob, this.name));
    this.#held.add(blob.digest);
    return 'uploaded';
  }

  async putManifest(bytes: Buffer, _mediaType?: string, signal?: AbortSignal): Promise<string> {
    const digest = `sha256:${sha256Hex(bytes)}`;
    await this.putBlob({ digest, size: bytes.length, open: () => [bytes] }, signal === undefined ? {} : { signal });
    return digest;
  }

  async finish(root: { readonly bytes: Buffer; readonly mediaType: string }, signal?: AbortSignal): Promise<string> {
    const digest = await this.putManifest(root.bytes, root.mediaType, signal);
    using _turn = await this.#writing.acquire(signal);
    this.#check();
    const entry = { mediaType: root.mediaType, digest, size: root.bytes.length };
    const docker = dockerList(root.bytes, this.#wanted);
    const files: [string, Buffer][] = [
      [LAYOUT_FILE, LAYOUT_CONTENT],
      [INDEX_FILE, withEntry(undefined, entry, this.#wanted)],
      ...(docker === undefined ? [] : ([[DOCKER_MANIFEST_FILE, docker]] as [string, Buffer][])),
    ];
    const members = files.map(([path, bytes]) => member(path, bytes.length, () => [bytes]));
    for await (const piece of writeTar(members)) await this.#file.writeFile(piece);
    await this.#file.close();
    await rename(this.#partial, this.#path);
    this.#finished = true;
    return digest;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#finished) return;
    await this.#file.close();
    await rm(this.#partial, { force: true });
  }

  /** A member that was not written to its end spoils what would follow it. */
  #check(): void {
    if (this.#broken) throw new PantalaError('failed-precondition', `${this.name} lacks what failed before`);
  }

  /** One member, without the end that follows the last. */
  async #add(path: string, size: number, content: NonNullable<TarMember['content']>): Promise<void> {
    this.#check();
    this.#broken = true;
    for await (const piece of memberBlocks(member(path, size, content))) await this.#file.writeFile(piece);
    this.#broken = false;
  }
}

function member(path: string, size: number, content: NonNullable<TarMember['content']>): TarMember {
  const header: TarHeader = {
    kind: 'regular',
    path,
    mode: 0o644,
    uid: 0,
    gid: 0,
    mtime: { seconds: 0, nanoseconds: 0 },
    size,
    linkTarget: '',
    major: 0,
    minor: 0,
    xattrs: new Map(),
  };
  return { header, content };
}

/** What `docker load` reads; undefined for an index, or for layers that are no tars. */
function dockerList(bytes: Buffer, name: string | undefined): Buffer | undefined {
  const manifest = parseManifest(bytes);
  if (manifest.kind === 'index' || !manifest.layers.every(({ mediaType }) => /\.tar(?:[.+]|$)/.test(mediaType)))
    return undefined;
  return Buffer.from(
    JSON.stringify([
      {
        Config: blobPath(manifest.config.digest),
        RepoTags: name?.includes(':') === true ? [name] : [],
        Layers: manifest.layers.map(({ digest }) => blobPath(digest)),
      },
    ]),
  );
}
