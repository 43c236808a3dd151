import type { ByteRange } from '@pantala/base';
import type { StoredBlob } from '@pantala/rafs';
import type { StoredBlobs } from './stored-blobs.ts';

/** Bytes that are fetched at once. */
const WINDOW = 4 * 1024 * 1024;
/** Windows that are kept of each blob: neighbours are mostly wanted next. */
const KEPT_WINDOWS = 8;

/** Blobs that are read in parts of 4 MiB, of which the last used are kept: for places where each read is a request. */
export class WindowedBlobs implements StoredBlobs {
  readonly #blobs: StoredBlobs;
  readonly #opened = new Map<string, Promise<StoredBlob>>();

  /** @param blobs disposed with it */
  constructor(blobs: StoredBlobs) {
    this.#blobs = blobs;
  }

  open(id: string): Promise<StoredBlob> {
    let opened = this.#opened.get(id);
    if (opened === undefined) {
      opened = this.#blobs.open(id).then((blob) => new WindowedBlob(blob));
      this.#opened.set(id, opened);
    }
    return opened;
  }

  [Symbol.asyncDispose](): PromiseLike<void> {
    return this.#blobs[Symbol.asyncDispose]();
  }
}

class WindowedBlob implements StoredBlob {
  readonly name: string;
  readonly size: number;
  readonly #blob: StoredBlob;
  readonly #kept = new Map<number, Promise<Uint8Array>>();

  constructor(blob: StoredBlob) {
    this.name = blob.name;
    this.size = blob.size;
    this.#blob = blob;
  }

  async read(range: ByteRange): Promise<Uint8Array> {
    // What lies beyond the end is the blob's own error.
    if (range.end > this.size) return this.#blob.read(range);
    const bytes = Buffer.allocUnsafe(range.end - range.start);
    for (let start = range.start; start < range.end; ) {
      const index = Math.floor(start / WINDOW);
      const end = Math.min(range.end, (index + 1) * WINDOW);
      const window = await this.#window(index);
      bytes.set(window.subarray(start - index * WINDOW, end - index * WINDOW), start - range.start);
      start = end;
    }
    return bytes;
  }

  #window(index: number): Promise<Uint8Array> {
    const known = this.#kept.get(index);
    const window = known ?? this.#blob.read({ start: index * WINDOW, end: Math.min(this.size, (index + 1) * WINDOW) });
    // Put back at the end: the first one is that which was not used for longest.
    this.#kept.delete(index);
    this.#kept.set(index, window);
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= KEPT_WINDOWS) break;
      this.#kept.delete(oldest);
    }
    return window;
  }
}
