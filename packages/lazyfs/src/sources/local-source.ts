import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { type ByteRange, lengthOf, PantalaError, throwIfAborted } from '@pantala/base';
import type { BlobSource, SourceReadOptions } from '../contract.ts';
import type { LocalSourceOptions } from './options.ts';

const BLOB_ID = /^[0-9a-f]{64}$/;

/** Stored blobs in folders of this machine. */
export class LocalSource implements BlobSource, AsyncDisposable {
  readonly name = 'localfs';
  readonly #options: LocalSourceOptions;
  /** An image has few blobs: each stays open while it is mounted. */
  readonly #files = new Map<string, Promise<FileHandle>>();

  constructor(options: LocalSourceOptions) {
    this.#options = options;
  }

  async read(blobId: string, range: ByteRange, { signal }: SourceReadOptions): Promise<Uint8Array> {
    throwIfAborted(signal);
    const file = await this.#file(blobId);
    const bytes = Buffer.allocUnsafeSlow(lengthOf(range));
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await file.read(bytes, done, bytes.length - done, range.start + done);
      if (bytesRead === 0) {
        throw new PantalaError('origin', `blob ${blobId} in ${this.#where} ends at ${range.start + done}`);
      }
      done += bytesRead;
    }
    throwIfAborted(signal);
    return bytes;
  }

  #file(blobId: string): Promise<FileHandle> {
    const key = this.#options.file ?? blobId;
    const opening = this.#files.get(key) ?? this.#find(blobId);
    this.#files.set(key, opening);
    // What is not there may be put there later.
    opening.catch(() => this.#files.delete(key));
    return opening;
  }

  async #find(blobId: string): Promise<FileHandle> {
    if (!BLOB_ID.test(blobId)) throw new PantalaError('invalid-argument', `"${blobId.slice(0, 80)}" is no blob id`);
    const { file, directories } = this.#options;
    for (const path of file === undefined ? directories.map((directory) => join(directory, blobId)) : [file]) {
      try {
        return await open(path, constants.O_RDONLY);
      } catch (thrown) {
        const error = PantalaError.from(thrown);
        if (error.code !== 'not-found') throw error;
      }
    }
    throw new PantalaError('not-found', `there is no blob ${blobId} in ${this.#where}`);
  }

  get #where(): string {
    return this.#options.file ?? this.#options.directories.join(', ');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const files = await Promise.allSettled(this.#files.values());
    this.#files.clear();
    for (const file of files) if (file.status === 'fulfilled') await file.value.close();
  }
}
