import { createHash } from 'node:crypto';
import { type ByteRange, lengthOf } from '@pantala/base';
import type { StoredBlob } from '@pantala/rafs';

/** Bytes of one read of what nobody has asked for. */
const GAP_STEP = 4 * 1024 * 1024;

/**
 * A stored blob that is digested as a whole while parts of it are read: whoever reads it in order costs no second
 * pass. What nobody reads is read for the digest alone.
 */
export class HashedBlob implements StoredBlob {
  readonly name: string;
  readonly size: number;
  readonly #blob: StoredBlob;
  readonly #hash = createHash('sha256');
  #hashed = 0;

  constructor(blob: StoredBlob) {
    this.#blob = blob;
    this.name = blob.name;
    this.size = blob.size;
  }

  async read(range: ByteRange): Promise<Uint8Array> {
    await this.#hashUpTo(range.start);
    const bytes = await this.#blob.read(range);
    if (this.#hashed < range.end) {
      this.#hash.update(bytes.subarray(this.#hashed - range.start));
      this.#hashed = range.end;
    }
    return bytes;
  }

  /** SHA-256 of the whole blob, hex. Nothing may be read afterwards. */
  async digest(): Promise<string> {
    await this.#hashUpTo(this.size);
    return this.#hash.digest('hex');
  }

  async #hashUpTo(end: number): Promise<void> {
    while (this.#hashed < end) {
      const range = { start: this.#hashed, end: Math.min(end, this.#hashed + GAP_STEP) };
      this.#hash.update(await this.#blob.read(range));
      this.#hashed += lengthOf(range);
    }
  }
}
