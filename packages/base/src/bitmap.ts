import type { BlockRun } from './geometry.ts';

/** What readers of a bitmap may do with it. */
export interface ReadonlyBitmap {
  readonly length: number;
  /** Bits that are set. */
  readonly count: number;
  has(index: number): boolean;
  hasAll(run: BlockRun): boolean;
  /** First index ≥ `from` whose bit is `value`, or `length`. */
  next(value: boolean, from: number): number;
  /** Runs of bits that are `value` within `within` (default: everything), in order. */
  runs(value: boolean, within?: BlockRun): Generator<BlockRun>;
  /** A copy of the bits, least significant first. */
  toBytes(): Uint8Array;
}

/** A fixed number of bits with cheap counting and run search. */
export class Bitmap implements ReadonlyBitmap {
  readonly length: number;
  readonly #bytes: Uint8Array;
  #count = 0;

  constructor(length: number) {
    this.length = length;
    this.#bytes = new Uint8Array(Math.ceil(length / 8));
  }

  /** Bits beyond `length` in the last byte are ignored; missing bytes count as zero. */
  static fromBytes(bytes: Uint8Array, length: number): Bitmap {
    const bitmap = new Bitmap(length);
    bitmap.#bytes.set(bytes.subarray(0, bitmap.#bytes.length));
    const spare = bitmap.#bytes.length * 8 - length;
    const last = bitmap.#bytes.length - 1;
    if (spare > 0) bitmap.#bytes[last] = (bitmap.#bytes[last] as number) & (0xff >> spare);
    for (const byte of bitmap.#bytes) bitmap.#count += popcount(byte);
    return bitmap;
  }

  get count(): number {
    return this.#count;
  }

  has(index: number): boolean {
    return ((this.#bytes[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
  }

  hasAll(run: BlockRun): boolean {
    return this.next(false, run.first) >= run.first + run.count;
  }

  /** Returns whether the bit changed. */
  set(index: number): boolean {
    if (this.has(index)) return false;
    this.#bytes[index >> 3] = (this.#bytes[index >> 3] as number) | (1 << (index & 7));
    this.#count++;
    return true;
  }

  setRun(run: BlockRun): void {
    for (let index = run.first; index < run.first + run.count; index++) this.set(index);
  }

  clear(index: number): void {
    if (!this.has(index)) return;
    this.#bytes[index >> 3] = (this.#bytes[index >> 3] as number) & ~(1 << (index & 7));
    this.#count--;
  }

  clearAll(): void {
    this.#bytes.fill(0);
    this.#count = 0;
  }

  next(value: boolean, from: number): number {
    const skip = value ? 0x00 : 0xff;
    let index = from;
    while (index < this.length) {
      if ((index & 7) === 0) {
        let byte = index >> 3;
        while (byte < this.#bytes.length && this.#bytes[byte] === skip) byte++;
        index = byte * 8;
        if (index >= this.length) return this.length;
      }
      if (this.has(index) === value) return index;
      index++;
    }
    return this.length;
  }

  *runs(value: boolean, within: BlockRun = { first: 0, count: this.length }): Generator<BlockRun> {
    const end = Math.min(this.length, within.first + within.count);
    let first = this.next(value, within.first);
    while (first < end) {
      const stop = Math.min(end, this.next(!value, first));
      yield { first, count: stop - first };
      first = this.next(value, stop);
    }
  }

  toBytes(): Uint8Array {
    return this.#bytes.slice();
  }
}

function popcount(byte: number): number {
  let rest = byte;
  let count = 0;
  while (rest !== 0) {
    rest &= rest - 1;
    count++;
  }
  return count;
}
