import { compressed, DIGEST_LENGTH } from '@pantala/rafs';
import type { CompiledBuildOptions } from './options.ts';
import { NOT_COMPRESSED, type Slot } from './parcel.ts';

/** Content of chunks that get their places. Numbers count those that are not zeros. */
export interface ChunkContents {
  /** Of the content: 32 bytes. */
  digest(number: number): Uint8Array;
  /** @param length what it has */
  content(number: number, length: number): Uint8Array;
  /** As it goes into the blob when it is not batched. */
  stored(number: number): Uint8Array;
}

/** What a content becomes in a blob, when no worker has made it: itself when it does not shrink. */
export function storedOf({ compressor, lz4 }: CompiledBuildOptions, content: Uint8Array): Uint8Array {
  return compressed(compressor, content, lz4 === undefined ? {} : { lz4 }) ?? content;
}

/** In a slot, as a worker left it. */
export class SlotContents implements ChunkContents {
  readonly #slot: Slot;
  readonly #options: CompiledBuildOptions;
  readonly #lengths: readonly number[];
  /** Where each lies in `content` and in `compressed`. */
  readonly #contentAt: number[] = [];
  readonly #compressedAt: number[] = [];

  /** @param lengths of the chunks; negative ones are of chunks that were only digested */
  constructor(slot: Slot, lengths: readonly number[], options: CompiledBuildOptions) {
    this.#slot = slot;
    this.#options = options;
    this.#lengths = lengths.map(Math.abs);
    let [contentAt, compressedAt] = [0, 0];
    for (const [number, length] of this.#lengths.entries()) {
      this.#contentAt.push(contentAt);
      this.#compressedAt.push(compressedAt);
      contentAt += length;
      const stored = slot.stored[number] as number;
      if (stored !== length) compressedAt += stored;
    }
  }

  digest(number: number): Uint8Array {
    return this.#slot.digests.subarray(number * DIGEST_LENGTH, (number + 1) * DIGEST_LENGTH);
  }

  content(number: number): Uint8Array {
    const at = this.#contentAt[number] as number;
    return this.#slot.content.subarray(at, at + (this.#lengths[number] as number));
  }

  stored(number: number): Uint8Array {
    const length = this.#slot.stored[number] as number;
    if (length === this.#lengths[number]) return this.content(number);
    // A worker took its digest for one that is known, which it is not.
    if (length === NOT_COMPRESSED) return storedOf(this.#options, this.content(number));
    const at = this.#compressedAt[number] as number;
    return this.#slot.compressed.subarray(at, at + length);
  }

  /** Whether a worker has made what goes into the blob. */
  isStored(number: number): boolean {
    return this.#slot.stored[number] !== NOT_COMPRESSED;
  }
}
