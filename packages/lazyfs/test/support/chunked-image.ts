import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, openSync, readSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { abortable, type ByteRange } from '@pantala/base';
import type { LazyBlob, ReadOptions } from '../../src/contract.ts';
import { FilledBlocks } from '../../src/filled-blocks.ts';

/** An EROFS image whose data lies in a blob of its own, made by mkfs.erofs. */
export interface ChunkedImage {
  readonly bootstrap: string;
  readonly blob: string;
}

/** @param tree directory whose content the image has */
export function buildChunkedImage(directory: string, tree: string, chunkSize = 65_536): ChunkedImage {
  mkdirSync(directory, { recursive: true });
  const bootstrap = join(directory, 'bootstrap');
  const blob = join(directory, 'blob');
  writeFileSync(blob, '');
  execFileSync('mkfs.erofs', [`--chunksize=${chunkSize}`, `--blobdev=${blob}`, bootstrap, tree], { stdio: 'ignore' });
  return { bootstrap, blob };
}

/** Fills a cache file from a complete one, in chunks, with a delay before each fetch; counts what it was asked for. */
export class CopiedBlob implements LazyBlob {
  readonly id: string;
  readonly size: number;
  readonly path: string;
  readonly completed: Promise<void>;
  readonly blocks: FilledBlocks;
  /** Reads that were answered without `ensure`. */
  hits = 0;
  readonly fetched: number[] = [];
  failure: Error | undefined;
  delay: () => Promise<void> = async () => {};
  readonly #origin: number;
  readonly #cache: number;
  readonly #chunks: (Promise<void> | undefined)[];
  readonly #present: boolean[];
  readonly #chunkSize: number;
  readonly #complete = Promise.withResolvers<void>();

  constructor(origin: string, path: string, id: string, chunkSize = 65_536) {
    this.id = id;
    this.size = Math.ceil(statSync(origin).size / 4096) * 4096;
    this.blocks = FilledBlocks.create(this.size);
    this.path = path;
    writeFileSync(path, '');
    truncateSync(path, this.size);
    this.#origin = openSync(origin, 'r');
    this.#cache = openSync(path, 'r+');
    this.#chunkSize = chunkSize;
    const count = Math.ceil(this.size / chunkSize);
    this.#chunks = Array.from({ length: count }, () => undefined);
    this.#present = Array.from({ length: count }, () => false);
    this.completed = this.#complete.promise;
  }

  get complete(): boolean {
    return this.#present.every(Boolean);
  }

  get filled(): { bytes: number; of: number } {
    return { bytes: this.#present.filter(Boolean).length * this.#chunkSize, of: this.size };
  }

  async ensure(range: ByteRange, options: ReadOptions): Promise<void> {
    if (this.failure !== undefined) throw this.failure;
    const first = Math.floor(range.start / this.#chunkSize);
    const last = Math.ceil(range.end / this.#chunkSize);
    const fills: Promise<void>[] = [];
    for (let chunk = first; chunk < last; chunk++) {
      const fill = this.#chunks[chunk] ?? this.#fill(chunk);
      this.#chunks[chunk] = fill;
      fills.push(fill);
    }
    await abortable(Promise.all(fills), options.signal);
  }

  countHit(): void {
    this.hits++;
  }

  nextMissing(offset: number): number | undefined {
    const chunk = this.#present.indexOf(false, Math.floor(offset / this.#chunkSize));
    return chunk === -1 ? undefined : Math.max(offset, chunk * this.#chunkSize);
  }

  async #fill(chunk: number): Promise<void> {
    this.fetched.push(chunk);
    await this.delay();
    const buffer = Buffer.alloc(this.#chunkSize);
    const length = readSync(this.#origin, buffer, 0, buffer.length, chunk * this.#chunkSize);
    writeSync(this.#cache, buffer, 0, length, chunk * this.#chunkSize);
    this.#present[chunk] = true;
    const start = chunk * this.#chunkSize;
    this.blocks.add({ start, end: Math.min(start + this.#chunkSize, this.size) });
    if (this.complete) this.#complete.resolve();
  }
}

/** A copy of a file, whole. */
export function wholeCopy(from: string, to: string): void {
  copyFileSync(from, to);
  truncateSync(to, Math.ceil(statSync(from).size / 4096) * 4096);
}
