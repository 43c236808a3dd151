import type { BlockRun, ReadonlyBitmap } from '@pantala/base';

/** A bitmap whose bits are all alike, without memory for them: complete tasks, and tasks without provisional blocks. */
export class UniformBitmap implements ReadonlyBitmap {
  readonly length: number;
  readonly #value: boolean;

  constructor(length: number, value: boolean) {
    this.length = length;
    this.#value = value;
  }

  get count(): number {
    return this.#value ? this.length : 0;
  }

  has(index: number): boolean {
    return this.#value && index >= 0 && index < this.length;
  }

  hasAll(run: BlockRun): boolean {
    return run.first + run.count <= this.length && (this.#value || run.count === 0);
  }

  next(value: boolean, from: number, until: number = this.length): number {
    const end = Math.min(until, this.length);
    return value === this.#value ? Math.min(from, end) : end;
  }

  *runs(value: boolean, within: BlockRun = { first: 0, count: this.length }): Generator<BlockRun> {
    const end = Math.min(this.length, within.first + within.count);
    if (value === this.#value && within.first < end) yield { first: within.first, count: end - within.first };
  }

  toBytes(): Uint8Array {
    const bytes = new Uint8Array(Math.ceil(this.length / 8));
    if (!this.#value) return bytes;
    bytes.fill(0xff);
    const spare = bytes.length * 8 - this.length;
    if (spare > 0) bytes[bytes.length - 1] = 0xff >> spare;
    return bytes;
  }
}
