const EMPTY = Buffer.alloc(0);

/**
 * Bytes that a source yields in pieces of its own, taken in pieces of the reader's. Copies only across seams. Asks for
 * the next piece only when nothing of the last one is needed any more; what was taken of it is good until then.
 */
export class ByteFeed {
  readonly #source: AsyncIterator<Uint8Array>;
  #piece: Buffer = EMPTY;
  #at = 0;
  #ended = false;
  /** Bytes before what is read next. */
  position = 0;

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** How much can be taken without waiting. */
  get held(): number {
    return this.#piece.length - this.#at;
  }

  /** Waits until `length` bytes can be taken at once; false when the source ends before. */
  async hold(length: number): Promise<boolean> {
    if (this.held >= length) return true;
    const parts: Buffer[] = [];
    let last = this.#piece.subarray(this.#at);
    let held = this.held;
    while (held < length) {
      if (last.length > 0) parts.push(Buffer.from(last));
      this.#piece = EMPTY;
      this.#at = 0;
      const next = await this.#next();
      last = next ?? EMPTY;
      held += last.length;
      if (next === undefined) break;
    }
    this.#piece = parts.length === 0 ? last : Buffer.concat([...parts, last]);
    this.#at = 0;
    return held >= length;
  }

  /** The next `length` bytes, which must be held. */
  take(length: number): Buffer {
    const taken = this.#piece.subarray(this.#at, this.#at + length);
    this.#at += length;
    this.position += length;
    return taken;
  }

  /** At least one byte and at most `most`, as they came; undefined at the end. */
  async some(most: number): Promise<Buffer | undefined> {
    while (this.held === 0) {
      const next = await this.#next();
      if (next === undefined) return undefined;
      this.#piece = next;
      this.#at = 0;
    }
    return this.take(Math.min(most, this.held));
  }

  /** Puts back the last `length` bytes of what was taken last. */
  untake(length: number): void {
    this.#at -= length;
    this.position -= length;
  }

  /** What can be taken without waiting, without taking it. */
  peek(): Buffer {
    return this.#piece.subarray(this.#at);
  }

  /** Drops `length` bytes; false when the source ends before. */
  async skip(length: number): Promise<boolean> {
    let left = length;
    while (left > 0) {
      const dropped = await this.some(left);
      if (dropped === undefined) return false;
      left -= dropped.length;
    }
    return true;
  }

  /** Reads the source to its end, so that what it checks there is checked. */
  async drain(): Promise<void> {
    while ((await this.some(Number.MAX_SAFE_INTEGER)) !== undefined);
  }

  /** Lets the source close. */
  async close(): Promise<void> {
    if (!this.#ended) await this.#source.return?.();
    this.#ended = true;
  }

  async #next(): Promise<Buffer | undefined> {
    if (this.#ended) return undefined;
    const next = await this.#source.next();
    if (next.done === true) {
      this.#ended = true;
      return undefined;
    }
    const { buffer, byteOffset, byteLength } = next.value;
    return Buffer.isBuffer(next.value) ? next.value : Buffer.from(buffer, byteOffset, byteLength);
  }
}
