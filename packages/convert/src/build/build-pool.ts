import { PantalaError } from '@pantala/base';
import { lz4Origin } from '@pantala/rafs';
import { BlobStream } from './blob-stream.ts';
import { KnownDigests } from './known-digests.ts';
import type { CompiledBuildOptions } from './options.ts';
import type { Slot, SlotLayout } from './parcel.ts';
import { SlotPool, slotCount } from './slot-pool.ts';
import { WorkerPool } from './worker-pool.ts';

/**
 * Content of a parcel, unless a chunk is longer. Each costs several turns of threads, which is what a build without
 * compression is made of; with it longer parcels only take memory.
 */
const PARCEL_LENGTH = { stored: 4 * 1024 * 1024, compressed: 2 * 1024 * 1024 };

/**
 * Bytes of content that all threads together give to LZ4 of the npm package at once: for each it allocates more than
 * three times as much, and frees it late.
 */
const BUNDLED_LZ4_LENGTH = 8 * 1024 * 1024;

/** What one build has for itself while it goes on. */
export interface BuildSeat {
  readonly number: number;
  readonly known: KnownDigests;
  readonly stream: BlobStream;
  /** Where small chunks are put together. It has its own: if it had to wait, those that hold the others would wait for it. */
  readonly batch: Slot | undefined;
}

/**
 * Threads and memory for builds with the same options, several at once or one after the other: to start a thread takes
 * longer than to build a small layer.
 */
export class BuildPool implements AsyncDisposable {
  readonly slots: SlotPool;
  readonly workers: WorkerPool;
  /** How many go on at once. */
  readonly builds: number;
  readonly #known: readonly KnownDigests[];
  readonly #batches: readonly (Slot | undefined)[];
  readonly #streams: BlobStream[] = [];
  readonly #free: number[];

  constructor({ compressor, digester, chunkSize, batchSize, workers, lz4 }: CompiledBuildOptions, builds = 1) {
    this.builds = builds;
    const compresses = compressor !== 'none';
    const length = Math.max(chunkSize, compresses ? PARCEL_LENGTH.compressed : PARCEL_LENGTH.stored);
    const isBundled = compressor === 'lz4_block' && lz4Origin(lz4) === 'bundled';
    const threads = isBundled ? Math.min(workers, Math.ceil(BUNDLED_LZ4_LENGTH / length)) : workers;
    const layout: SlotLayout = { length, compresses };
    // Each may hold one that its source is slow to fill; there is always another one.
    const count = Math.max(slotCount(threads, layout), builds + 1);
    const numbers = Array.from({ length: builds }, (_, number) => number);
    this.slots = new SlotPool(count + (batchSize > 0 ? builds : 0), layout);
    this.#batches = numbers.map(() => (batchSize > 0 ? this.slots.take() : undefined));
    this.#known = numbers.map(() => new KnownDigests());
    this.#free = numbers.reverse();
    const known = this.#known.map(({ memory }) => memory);
    const { memories } = this.slots;
    this.workers = new WorkerPool(threads, { memories, layout, compressor, digester, lz4, known });
  }

  /** @throws `internal` when more builds go on than the pool was made for */
  take(): BuildSeat {
    const number = this.#free.pop();
    if (number === undefined) throw new PantalaError('internal', 'a pool has no seat for another build');
    this.#streams[number] ??= new BlobStream();
    const [known, stream] = [this.#known[number] as KnownDigests, this.#streams[number]];
    return { number, known, stream, batch: this.#batches[number] };
  }

  /** Gives a seat back, which nothing uses any more. */
  release({ number, known, stream }: BuildSeat): void {
    known.clear();
    stream.restart();
    this.#free.push(number);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([this.workers, ...this.#streams].map((part) => part[Symbol.asyncDispose]()));
  }
}
