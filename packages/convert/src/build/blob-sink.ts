import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeFolder } from './folders.ts';

/** A file that takes the bytes of a new blob at its position. It stays open until the build has ended. */
export interface BlobDescriptor {
  readonly descriptor: number;
}

/** Anything else that takes them: memory, an upload. */
export interface BlobReceiver {
  /**
   * Takes the next bytes of the blob. They stand in memory that is used again once this has resolved. Called again
   * only then.
   */
  write(parts: readonly Uint8Array[]): Promise<void>;
}

/** Where the bytes of a new blob go. */
export type BlobSink = BlobDescriptor | BlobReceiver;

/** A blob in a folder: it appears under its id when it is whole, or not at all. */
export class BlobFile implements BlobDescriptor, AsyncDisposable {
  readonly #folder: string;
  readonly #path: string;
  readonly #file: FileHandle;
  #kept = false;

  private constructor(folder: string, path: string, file: FileHandle) {
    this.#folder = folder;
    this.#path = path;
    this.#file = file;
  }

  /** @param folder is created when it is missing */
  static async create(folder: string): Promise<BlobFile> {
    await makeFolder(folder);
    const path = join(folder, `.${randomBytes(8).toString('hex')}.partial`);
    return new BlobFile(folder, path, await open(path, 'wx', 0o644));
  }

  get descriptor(): number {
    return this.#file.fd;
  }

  /** Gives the blob its name. @param id 64 hex digits @returns its path */
  async keep(id: string): Promise<string> {
    await this.#file.close();
    const path = join(this.#folder, id);
    await rename(this.#path, path);
    this.#kept = true;
    return path;
  }

  /** Without `keep` nothing stays. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#kept) return;
    await this.#file.close();
    await rm(this.#path, { force: true });
  }
}
