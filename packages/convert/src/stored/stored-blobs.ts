import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { type ByteRange, lengthOf, PantalaError } from '@pantala/base';
import type { StoredBlob } from '@pantala/rafs';

/** Where the stored blobs of an image are: a folder, a registry, a layout. Disposing closes what is open. */
export interface StoredBlobs extends AsyncDisposable {
  /**
   * @param id 64 hex digits, the SHA-256 of the blob
   * @throws `not-found` naming the place; what the place throws
   */
  open(id: string): Promise<StoredBlob>;
}

/** Blobs as files of a folder under their ids, as nydus-image's `--blob-dir` has them. */
export class FolderBlobs implements StoredBlobs {
  readonly #folder: string;
  readonly #open = new Map<string, Promise<{ readonly blob: StoredBlob; readonly file: FileHandle }>>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  async open(id: string): Promise<StoredBlob> {
    let opened = this.#open.get(id);
    if (opened === undefined) {
      opened = this.#openFile(id);
      this.#open.set(id, opened);
    }
    return (await opened).blob;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const opened of this.#open.values()) await opened.then(({ file }) => file.close()).catch(() => {});
    this.#open.clear();
  }

  async #openFile(id: string): Promise<{ readonly blob: StoredBlob; readonly file: FileHandle }> {
    if (!/^[0-9a-f]{64}$/.test(id)) {
      throw new PantalaError('data-loss', `"${id.slice(0, 80)}" is no id of a blob: that is 64 hex digits`);
    }
    const path = join(this.#folder, id);
    let file: FileHandle;
    try {
      file = await open(path);
    } catch (error) {
      if (PantalaError.from(error).code !== 'not-found') throw error;
      throw new PantalaError('not-found', `there is no blob ${id} in ${this.#folder}`, { cause: error });
    }
    const { size } = await file.stat();
    return { file, blob: { name: id, size, read: (range) => readFully(file, path, range) } };
  }
}

/** @throws `data-loss` when the file ends before the range does */
export async function readFully(file: FileHandle, path: string, range: ByteRange): Promise<Uint8Array> {
  const data = Buffer.allocUnsafe(lengthOf(range));
  for (let done = 0; done < data.length; ) {
    const { bytesRead } = await file.read(data, done, data.length - done, range.start + done);
    if (bytesRead === 0) {
      throw new PantalaError('data-loss', `${path} ends at ${range.start + done}, before ${range.end}`);
    }
    done += bytesRead;
  }
  return data;
}
