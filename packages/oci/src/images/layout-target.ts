import { randomBytes } from 'node:crypto';
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PantalaError, parseContentDigest, sha256Hex } from '@pantala/base';
import type { BlobUpload } from '../repository.ts';
import { blobPath, INDEX_FILE, LAYOUT_CONTENT, LAYOUT_FILE, parseLayoutIndex, withEntry } from './layout-index.ts';
import { type BlobName, checked, type ImageTarget, type PutOptions } from './source.ts';

/** Writes an image into an OCI layout in a folder, beside those that are there. */
export class LayoutTarget implements ImageTarget {
  readonly name: string;
  readonly #folder: string;
  readonly #wanted: string | undefined;

  /** @param wanted the name that the image gets; it is taken from another image that had it */
  constructor(folder: string, wanted: string | undefined) {
    this.name = wanted === undefined ? folder : `${folder}:${wanted}`;
    this.#folder = folder;
    this.#wanted = wanted;
  }

  async hasBlob({ digest, size }: BlobName): Promise<boolean> {
    const facts = await stat(this.#pathOf(digest)).catch(() => undefined);
    return facts?.isFile() === true && facts.size === size;
  }

  async putBlob(blob: BlobUpload, options: PutOptions = {}): Promise<'existed' | 'uploaded'> {
    options.signal?.throwIfAborted();
    if (await this.hasBlob(blob)) return 'existed';
    await this.#write(this.#pathOf(blob.digest), checked(blob.open(), blob, this.name));
    return 'uploaded';
  }

  async putManifest(bytes: Buffer): Promise<string> {
    const digest = `sha256:${sha256Hex(bytes)}`;
    await this.#write(this.#pathOf(digest), [bytes]);
    return digest;
  }

  async finish(root: { readonly bytes: Buffer; readonly mediaType: string }): Promise<string> {
    const digest = await this.putManifest(root.bytes);
    const path = join(this.#folder, INDEX_FILE);
    const present = await readFile(path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      throw PantalaError.from(error);
    });
    const index = present === undefined ? undefined : parseLayoutIndex(present, this.#folder);
    const entry = { mediaType: root.mediaType, digest, size: root.bytes.length };
    await writeFile(join(this.#folder, LAYOUT_FILE), LAYOUT_CONTENT);
    await this.#write(path, [withEntry(index, entry, this.#wanted)]);
    return digest;
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  #pathOf(digest: string): string {
    parseContentDigest(digest);
    return join(this.#folder, blobPath(digest));
  }

  /** A file appears when it is whole. */
  async #write(path: string, pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Promise<void> {
    await mkdir(dirname(path), { recursive: true });
    const partial = join(this.#folder, `.${randomBytes(8).toString('hex')}.partial`);
    try {
      {
        await using file = await open(partial, 'wx', 0o644);
        for await (const piece of pieces) await file.writeFile(piece);
      }
      await rename(partial, path);
    } catch (error) {
      await rm(partial, { force: true });
      throw PantalaError.from(error);
    }
  }
}
