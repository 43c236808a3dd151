import type { Hash } from 'node:crypto';
import { type ContentDigest, contentHasher } from '@pantala/base';
import { readRange } from './file-io.ts';

/** Bytes read and hashed in one go. */
const STEP_LENGTH = 1024 * 1024;

/** Compares a file with the digest that its content must have, a part at a time. */
export class WholeProof {
  readonly #hasher: Hash;
  readonly #expected: string;
  readonly #length: number;
  #position = 0;

  constructor(digest: ContentDigest, length: number) {
    this.#hasher = contentHasher(digest.algorithm);
    this.#expected = digest.hex;
    this.#length = length;
  }

  /** Reads on. Once the end is reached: whether the file has the digest; undefined before. */
  async step(file: number): Promise<boolean | undefined> {
    const end = Math.min(this.#position + STEP_LENGTH, this.#length);
    this.#hasher.update(await readRange(file, { start: this.#position, end }));
    this.#position = end;
    return end < this.#length ? undefined : this.#hasher.digest('hex') === this.#expected;
  }
}
