import { existsSync, readdirSync, statSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type ByteRange,
  Listeners,
  type Logger,
  type Metrics,
  noMetrics,
  PantalaError,
  SingleFlight,
  silentLogger,
  throwIfAborted,
} from '@pantala/base';
import type { LazyBlob, ReadOptions } from '../contract.ts';
import { DecodeThreads } from '../decoding/decode-threads.ts';
import type { FilledBlocks } from '../filled-blocks.ts';
import { BLOB_ID, DATA_SUFFIX, JOURNAL_SUFFIX, SUFFIXES, TABLE_SUFFIX } from './blob-files.ts';
import { CachedBlob } from './cached-blob.ts';
import { ChunkIndex } from './chunk-index.ts';
import type { ChunkLayout } from './chunk-layout.ts';
import { writeChunkTable } from './chunk-table.ts';
import { ClosedBlobs } from './closed-blobs.ts';
import type { BlobAccess, CacheContext } from './context.ts';
import { DemandMeter } from './demand-meter.ts';
import { type FilePaths, FilledFile } from './filled-file.ts';
import { cacheMetrics, type FillCounters, newFillCounters } from './metrics.ts';
import { type BlobCacheOptions, compileCacheOptions } from './options.ts';
import { TableKeeping } from './table-keeping.ts';
import type { FillEvent } from './trace.ts';

/** Bytes freed at once on a full disk, so that the next write does not find it full again. */
const LEAST_RELIEF = 16 * 1024 * 1024;

export interface BlobCacheParts {
  readonly logger?: Logger;
  readonly metrics?: Metrics;
}

/** What the cache takes on disk, to the block. */
export interface CacheUsage {
  readonly blobs: number;
  readonly bytes: number;
}

/** A blob that somebody uses. Disposing it gives it back; what is cached stays. */
export interface BlobHandle extends LazyBlob, AsyncDisposable {}

interface OpenBlob {
  readonly blob: CachedBlob;
  readonly table: TableKeeping;
  users: number;
}

/**
 * Decoded blobs in a directory: `<id>.blob.data` with `<id>.blob.fill` beside it, which says what of it is there. One
 * process at a time may use a directory.
 */
export class BlobCache implements AsyncDisposable {
  readonly #context: CacheContext;
  readonly #closed: ClosedBlobs;
  readonly #open = new Map<string, OpenBlob>();
  /** Opening and closing of one blob never overlap. */
  readonly #turns = new Map<string, Promise<unknown>>();
  readonly #relief = new SingleFlight<'relief', boolean>();
  #usage: CacheUsage = { blobs: 0, bytes: 0 };
  #mayEvict = false;

  private constructor(given: BlobCacheOptions, parts: BlobCacheParts) {
    const logger = parts.logger ?? silentLogger;
    this.#closed = new ClosedBlobs(given.directory, (id) => this.#open.has(id));
    this.#context = {
      options: compileCacheOptions(given),
      demand: new DemandMeter(),
      decoding: new DecodeThreads(),
      index: new ChunkIndex(this.#closed),
      fills: new Listeners<FillEvent>(),
      metrics: cacheMetrics(parts.metrics ?? noMetrics, () => this.#usage),
      counters: newFillCounters(),
      logger,
      makeRoom: (bytes) => this.#relief.run('relief', undefined, () => this.#makeRoom(bytes)),
    };
  }

  /** @throws `invalid-argument` for options; `permission-denied` for a directory that cannot be made */
  static async open(options: BlobCacheOptions, parts: BlobCacheParts = {}): Promise<BlobCache> {
    const cache = new BlobCache(options, parts);
    try {
      await mkdir(options.directory, { recursive: true, mode: 0o700 });
    } catch (error) {
      throw PantalaError.from(error);
    }
    cache.#look();
    return cache;
  }

  /** Resolves when no reader has waited for a moment. @throws the signal's reason */
  quiet(signal: AbortSignal): Promise<void> {
    return this.#context.demand.quiet(signal);
  }

  get directory(): string {
    return this.#context.options.directory;
  }

  /** Ranges as they are filled, for whoever wants to watch. */
  get fills(): Pick<Listeners<FillEvent>, 'subscribe'> {
    return this.#context.fills;
  }

  /** Since the start. */
  get counters(): Readonly<FillCounters> {
    return this.#context.counters;
  }

  /** What it takes on disk now. Looks at every file of the directory. */
  usage(): CacheUsage {
    this.#look();
    return this.#usage;
  }

  /** Files of blobs that are in use, by name. */
  get openFiles(): string[] {
    return [...this.#open.values()].map(({ blob }) => blob.file.path);
  }

  /**
   * From here on what nobody uses may be evicted. Whoever has mounts that outlived their last process opens the blobs of
   * these first: the kernel goes on reading the files, and evicting one would leave it a file that nobody fills.
   */
  async allowEviction(): Promise<void> {
    this.#mayEvict = true;
    this.#closed.enabled = true;
    await this.#keepMarks();
  }

  /**
   * Looks at the files that were changed after their journals while mounts went on reading them. What is wrong is not
   * trusted by whoever opens it next.
   *
   * @returns ids of blobs whose files have wrong bytes; readers may have seen them
   * @throws the signal's reason
   */
  async wrongBlobs(signal: AbortSignal): Promise<string[]> {
    const wrong: string[] = [];
    for (const [id, { blob }] of this.#open) {
      if (!blob.file.doubted) continue;
      try {
        if (await blob.file.isRight(() => this.quiet(signal))) continue;
      } catch (error) {
        throwIfAborted(signal);
        this.#context.logger.warn('a cache file could not be checked', { blob: id, error });
        continue;
      }
      blob.file.distrust();
      wrong.push(id);
    }
    return wrong;
  }

  /**
   * Opens a blob for a mount; several may share it, each with its own way to get at the bytes.
   *
   * @throws `invalid-argument` when it is open with another layout; `disk-full`, `permission-denied`
   */
  async blob(layout: ChunkLayout, access: BlobAccess): Promise<BlobHandle> {
    if (!BLOB_ID.test(layout.blobId)) {
      throw new PantalaError('invalid-argument', `"${layout.blobId.slice(0, 80)}" is no blob id of 64 hex digits`);
    }
    const open = await this.#inTurn(layout.blobId, async () => {
      const known = this.#open.get(layout.blobId) ?? (await this.#load(layout));
      if (known.blob.layout.size !== layout.size || known.blob.layout.chunkCount !== layout.chunkCount) {
        throw new PantalaError(
          'invalid-argument',
          `blob ${layout.blobId} is in use with ${known.blob.layout.chunkCount} chunks; this image says ${layout.chunkCount}`,
        );
      }
      known.users++;
      return known;
    });
    const { onRead } = access;
    const reads = onRead === undefined ? undefined : open.blob.reads.subscribe(onRead);
    return new Handle(open.blob, access, async () => {
      reads?.[Symbol.dispose]();
      await this.#release(layout.blobId, open);
    });
  }

  async #load(layout: ChunkLayout): Promise<OpenBlob> {
    const file = await FilledFile.open(this.#paths(layout.blobId), layout, {
      makeRoom: (bytes) => this.#context.makeRoom(bytes),
      inUse: this.#context.options.inUse.has(layout.blobId),
    });
    const table = new TableKeeping(
      () => this.#keepTable(layout),
      (signal) => this.#context.demand.quiet(signal),
    );
    const open = { blob: new CachedBlob(layout, file, this.#context), table, users: 0 };
    this.#open.set(layout.blobId, open);
    this.#context.index.add(open.blob);
    this.#closed.changed();
    return open;
  }

  /** What it takes to find its chunks when nobody uses it. Without it nothing is copied from it then. */
  async #keepTable(layout: ChunkLayout): Promise<void> {
    const path = join(this.directory, layout.blobId + TABLE_SUFFIX);
    if (existsSync(path)) return;
    await writeChunkTable(path, layout).catch((error: unknown) => {
      const { message } = PantalaError.from(error);
      this.#context.logger.warn('no table of chunks is kept of a blob', { blob: layout.blobId, error: message });
    });
  }

  async #release(id: string, open: OpenBlob): Promise<void> {
    await this.#inTurn(id, async () => {
      open.users--;
      if (open.users > 0) return;
      this.#context.index.remove(open.blob);
      try {
        await open.table.finish();
        await open.blob.close();
      } finally {
        this.#open.delete(id);
        this.#closed.changed();
      }
    });
    await this.#keepMarks();
  }

  async #inTurn<T>(id: string, work: () => Promise<T>): Promise<T> {
    const before = this.#turns.get(id) ?? Promise.resolve();
    const turn = before.then(work, work);
    const settled = turn.then(
      () => {},
      () => {},
    );
    this.#turns.set(id, settled);
    try {
      return await turn;
    } finally {
      if (this.#turns.get(id) === settled) this.#turns.delete(id);
    }
  }

  #paths(id: string): FilePaths {
    const path = join(this.directory, id);
    return { data: path + DATA_SUFFIX, journal: path + JOURNAL_SUFFIX };
  }

  /** Blobs that nobody uses, the one that was used longest ago first. */
  #unused(): { id: string; bytes: number }[] {
    return this.#look()
      .filter(({ id }) => !this.#open.has(id) && !this.#turns.has(id))
      .toSorted((a, b) => a.usedAt - b.usedAt);
  }

  #look(): { id: string; bytes: number; usedAt: number }[] {
    const found = new Map<string, { id: string; bytes: number; usedAt: number }>();
    // Whoever removed the folder has removed what is in it; its last users still end in order.
    for (const name of existsSync(this.directory) ? readdirSync(this.directory) : []) {
      const id = name.slice(0, 64);
      if (!BLOB_ID.test(id)) continue;
      const stats = statSync(join(this.directory, name), { throwIfNoEntry: false });
      if (stats === undefined) continue;
      const entry = found.get(id) ?? { id, bytes: 0, usedAt: 0 };
      found.set(id, entry);
      entry.bytes += stats.blocks * 512;
      entry.usedAt = Math.max(entry.usedAt, stats.mtimeMs);
    }
    const blobs = [...found.values()];
    this.#usage = { blobs: blobs.length, bytes: blobs.reduce((sum, { bytes }) => sum + bytes, 0) };
    return blobs;
  }

  async #keepMarks(): Promise<void> {
    const { highBytes, lowBytes } = this.#context.options;
    if (this.#mayEvict && this.usage().bytes > highBytes) await this.#evict(this.#usage.bytes - lowBytes);
  }

  /** Evicts what nobody uses until so many bytes are free, or nothing is left. Returns the bytes that it freed. */
  async #evict(bytes: number): Promise<number> {
    let freed = 0;
    for (const { id, bytes: size } of this.#unused()) {
      if (freed >= bytes) break;
      await this.#inTurn(id, async () => {
        if (this.#open.has(id)) return;
        for (const suffix of SUFFIXES) {
          await rm(join(this.directory, id + suffix), { force: true });
          await rm(join(this.directory, `${id}${suffix}.new`), { force: true });
        }
        freed += size;
        this.#context.metrics.evicted.add();
        this.#context.logger.info('blob evicted', { blob: id, bytes: size });
      });
    }
    this.#closed.changed();
    this.#look();
    return freed;
  }

  async #makeRoom(bytes: number): Promise<boolean> {
    return this.#mayEvict && (await this.#evict(Math.max(bytes, LEAST_RELIEF))) > 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      [...this.#open].map(([id, { blob, table }]) =>
        this.#inTurn(id, async () => {
          if (!this.#open.delete(id)) return;
          this.#context.index.remove(blob);
          await table.finish();
          await blob.close();
        }),
      ),
    );
    await this.#context.decoding[Symbol.asyncDispose]();
  }
}

class Handle implements BlobHandle {
  readonly #blob: CachedBlob;
  readonly #access: BlobAccess;
  readonly #release: () => Promise<void>;
  #released: Promise<void> | undefined;

  constructor(blob: CachedBlob, access: BlobAccess, release: () => Promise<void>) {
    this.#blob = blob;
    this.#access = access;
    this.#release = release;
  }

  get id(): string {
    return this.#blob.layout.blobId;
  }

  get size(): number {
    return this.#blob.layout.size;
  }

  get path(): string {
    return this.#blob.file.path;
  }

  get blocks(): FilledBlocks {
    return this.#blob.file.blocks;
  }

  get complete(): boolean {
    return this.#blob.complete;
  }

  get filled(): { readonly bytes: number; readonly of: number } {
    return this.#blob.file.filled;
  }

  get completed(): Promise<void> {
    return this.#blob.completed;
  }

  countHit(range: ByteRange): void {
    this.#blob.countHit(range);
  }

  nextMissing(offset: number): number | undefined {
    return this.#blob.nextMissing(offset);
  }

  async ensure(range: ByteRange, options: ReadOptions): Promise<void> {
    if (this.#released !== undefined) throw new PantalaError('failed-precondition', `blob ${this.id} was given back`);
    await this.#blob.ensure(this.#access, range, options);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#released ??= this.#release();
    return this.#released;
  }
}
