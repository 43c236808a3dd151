import { PantalaError } from './errors.ts';
import type { BlockRun } from './geometry.ts';

/** What readers of a bitmap may do with it. */
export interface ReadonlyBitmap {
  readonly length: number;
  /** Bits that are set. */
  readonly count: number;
  has(index: number): boolean;
  hasAll(run: BlockRun): boolean;
  /** First index ≥ `from` whose bit is `value`; `until` (default: `length`) when there is none before it. */
  next(value: boolean, from: number, until?: number): number;
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
    const end = run.first + run.count;
    return end <= this.length && this.next(false, run.first, end) >= end;
  }

  /**
   * Returns whether the bit changed.
   *
   * @throws `out-of-range`
   */
  set(index: number): boolean {
    this.#check(index);
    if (this.has(index)) return false;
    this.#bytes[index >> 3] = (this.#bytes[index >> 3] as number) | (1 << (index & 7));
    this.#count++;
    return true;
  }

  /** @throws `out-of-range`, with nothing changed */
  setRun(run: BlockRun): void {
    if (run.count <= 0) return;
    this.#check(run.first);
    this.#check(run.first + run.count - 1);
    const end = run.first + run.count;
    for (let index = run.first; index < end; ) {
      const byte = index >> 3;
      if ((index & 7) === 0 && index + 8 <= end && this.#bytes[byte] === 0) {
        this.#bytes[byte] = 0xff;
        this.#count += 8;
        index += 8;
      } else {
        this.set(index);
        index++;
      }
    }
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

  next(value: boolean, from: number, until: number = this.length): number {
    const end = Math.min(until, this.length);
    const skip = value ? 0x00 : 0xff;
    let index = from;
    while (index < end) {
      if ((index & 7) === 0) {
        let byte = index >> 3;
        const lastByte = end >> 3;
        while (byte < lastByte && this.#bytes[byte] === skip) byte++;
        index = byte * 8;
        if (index >= end) return end;
      }
      if (this.has(index) === value) return index;
      index++;
    }
    return end;
  }

  *runs(value: boolean, within: BlockRun = { first: 0, count: this.length }): Generator<BlockRun> {
    const end = Math.min(this.length, within.first + within.count);
    let first = this.next(value, within.first, end);
    while (first < end) {
      const stop = this.next(!value, first, end);
      yield { first, count: stop - first };
      first = this.next(value, stop, end);
    }
  }

  toBytes(): Uint8Array {
    return this.#bytes.slice();
  }

  #check(index: number): void {
    if (index < 0 || index >= this.length) {
      throw new PantalaError('out-of-range', `bit ${index} of a bitmap of ${this.length}`);
    }
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
