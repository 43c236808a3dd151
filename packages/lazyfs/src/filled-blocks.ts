import type { ByteRange } from '@pantala/base';

/** Bytes of a block: chunks begin at multiples of it in the decoded blob, and the kernel reads whole ones. */
const BLOCK = 4096;
/** Words before the bits: whether they are valid. */
const HEADER_WORDS = 1;
const VALID = 1;

/**
 * Which blocks of a decoded blob are in its cache file, checked, in memory that threads share: whoever takes a read from
 * the kernel sees without asking anybody that nothing is to be waited for. A bit is set after its bytes were written.
 */
export class FilledBlocks {
  readonly memory: SharedArrayBuffer;
  readonly #words: Int32Array;

  /** @param memory of another thread's */
  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#words = new Int32Array(memory);
  }

  /** None yet. @param size bytes of the decoded blob */
  static create(size: number): FilledBlocks {
    const words = HEADER_WORDS + Math.ceil(size / BLOCK / 32);
    const blocks = new FilledBlocks(new SharedArrayBuffer(words * 4));
    Atomics.store(blocks.#words, 0, VALID);
    return blocks;
  }

  /** A range is there, and zeros from its end to the end of its last block. @param range beginning at a block */
  add({ start, end }: ByteRange): void {
    const last = Math.ceil(end / BLOCK);
    for (let block = start / BLOCK; block < last; ) {
      const first = block % 32;
      const count = Math.min(32 - first, last - block);
      const bits = count === 32 ? -1 : (2 ** count - 1) << first;
      Atomics.or(this.#words, HEADER_WORDS + Math.floor(block / 32), bits);
      block += count;
    }
  }

  /** Whether every block is there that touches the range. */
  has({ start, end }: ByteRange): boolean {
    const last = Math.ceil(end / BLOCK);
    for (let block = Math.floor(start / BLOCK); block < last; ) {
      const first = block % 32;
      const count = Math.min(32 - first, last - block);
      const bits = count === 32 ? -1 : (2 ** count - 1) << first;
      const word = HEADER_WORDS + Math.floor(block / 32);
      if (word >= this.#words.length || (Atomics.load(this.#words, word) & bits) !== bits) return false;
      block += count;
    }
    // Looked at last: what was valid then was so before.
    return Atomics.load(this.#words, 0) === VALID;
  }

  /** Nobody fills the file any more, and it may be evicted: from here on nothing is there. */
  revoke(): void {
    Atomics.store(this.#words, 0, 0);
  }
}
