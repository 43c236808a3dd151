import { closeSync, constants, openSync, readSync } from 'node:fs';
import { bytesOf, PantalaError, shown, throwIfAborted } from '@pantala/base';
import { isHole, type TarPiece } from '@pantala/oci';
import { chunkDigest, type Digester } from '@pantala/rafs';
import { type Extent, endOf, type FileOnDisk } from '../build/file-on-disk.ts';

/** How an image cuts and digests files. */
export interface DigestRule {
  readonly digester: Digester;
  /** Bytes of every chunk but the last. */
  readonly chunkSize: number;
}

/** Bytes that are read and digested before others get their turn. */
const TURN_LENGTH = 16 * 1024 * 1024;

/**
 * Digests of files' chunks, one file after the other: in memory is one chunk, which all of them use, for a new one for
 * each small file is what most of the time would be spent on.
 */
export class ContentDigester {
  readonly #rule: DigestRule;
  readonly #signal: AbortSignal | undefined;
  #chunk: Buffer | undefined;
  /** Of zeros, by their length. */
  readonly #zeros = new Map<number, Uint8Array>();
  #bytes = 0;

  constructor(rule: DigestRule, signal?: AbortSignal) {
    this.#rule = rule;
    this.#signal = signal;
  }

  /** Of a content that comes in pieces. One call at a time. */
  async ofPieces(pieces: AsyncIterable<TarPiece> | Iterable<TarPiece>): Promise<Uint8Array[]> {
    const { chunkSize } = this.#rule;
    const digests: Uint8Array[] = [];
    let filled = 0;
    for await (const piece of pieces) {
      for (let at = 0; at < piece.length; ) {
        const step = Math.min(piece.length - at, chunkSize - filled);
        if (step === chunkSize) {
          digests.push(isHole(piece) ? this.#digestOfZeros(step) : this.#digest(piece.subarray(at, at + step)));
          at += step;
          continue;
        }
        const chunk = this.#buffer();
        if (isHole(piece)) chunk.fill(0, filled, filled + step);
        else chunk.set(piece.subarray(at, at + step), filled);
        at += step;
        filled += step;
        if (filled < chunkSize) continue;
        digests.push(this.#digest(chunk));
        filled = 0;
      }
    }
    if (filled > 0) digests.push(this.#digest(this.#buffer().subarray(0, filled)));
    return digests;
  }

  /**
   * Of a file of a directory. One call at a time.
   *
   * @throws `failed-precondition` when it is shorter than it was, what reading throws, the reason of the signal
   */
  async ofFile(file: FileOnDisk): Promise<Uint8Array[]> {
    const { chunkSize } = this.#rule;
    const data = file.extents ?? [{ offset: 0, length: file.size }];
    const digests: Uint8Array[] = [];
    const descriptor = openSync(bytesOf(file.path), constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      let first = 0;
      for (let start = 0; start < file.size; start += chunkSize) {
        const length = Math.min(chunkSize, file.size - start);
        while (first < data.length && endOf(data[first] as Extent) <= start) first += 1;
        if ((data[first]?.offset ?? file.size) >= start + length) {
          digests.push(this.#digestOfZeros(length));
          continue;
        }
        const chunk = this.#buffer().subarray(0, length);
        readWhole(descriptor, chunk, start, file);
        digests.push(this.#digest(chunk));
        await this.#turn(length);
      }
    } finally {
      closeSync(descriptor);
    }
    return digests;
  }

  async #turn(length: number): Promise<void> {
    this.#bytes += length;
    if (this.#bytes < TURN_LENGTH) return;
    this.#bytes = 0;
    await new Promise(setImmediate);
    throwIfAborted(this.#signal);
  }

  #buffer(): Buffer {
    this.#chunk ??= Buffer.allocUnsafeSlow(this.#rule.chunkSize);
    return this.#chunk;
  }

  #digest(content: Uint8Array): Uint8Array {
    return chunkDigest(this.#rule.digester, content);
  }

  #digestOfZeros(length: number): Uint8Array {
    const known = this.#zeros.get(length);
    if (known !== undefined) return known;
    const digest = this.#digest(this.#buffer().subarray(0, length).fill(0));
    this.#zeros.set(length, digest);
    return digest;
  }
}

function readWhole(descriptor: number, target: Uint8Array, offset: number, { path }: FileOnDisk): void {
  for (let filled = 0; filled < target.length; ) {
    const count = readSync(descriptor, target, filled, target.length - filled, offset + filled);
    if (count === 0)
      throw new PantalaError('failed-precondition', `${shown(path)} became shorter while it was compared`);
    filled += count;
  }
}
