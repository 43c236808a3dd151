import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';

/** Where the bytes of a new blob go: a file, an upload. */
export interface BlobSink {
  /**
   * Takes the next bytes of the blob. They stand in memory that is used again once this has resolved. Called again
   * only then.
   */
  write(parts: readonly Uint8Array[]): Promise<void>;
}

/** A blob in a folder: it appears under its id when it is whole, or not at all. */
export class BlobFile implements BlobSink, AsyncDisposable {
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
    await mkdir(folder, { recursive: true });
    const path = join(folder, `.${randomBytes(8).toString('hex')}.partial`);
    return new BlobFile(folder, path, await open(path, 'wx', 0o644));
  }

  async write(parts: readonly Uint8Array[]): Promise<void> {
    // Linux takes 1,024 at once (IOV_MAX), and may write fewer bytes than it was given.
    for (let rest = parts.filter(({ length }) => length > 0); rest.length > 0; ) {
      const { bytesWritten } = await this.#file.writev(rest.slice(0, 1024));
      rest = withoutFirst(rest, bytesWritten);
    }
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

function withoutFirst(parts: readonly Uint8Array[], count: number): Uint8Array[] {
  let left = count;
  let index = 0;
  while (index < parts.length && (parts[index] as Uint8Array).length <= left) {
    left -= (parts[index] as Uint8Array).length;
    index += 1;
  }
  const [first, ...others] = parts.slice(index);
  return first === undefined ? [] : [first.subarray(left), ...others];
}
