import {
  AbortScope,
  abortable,
  type BlockRun,
  type ByteRange,
  Deferred,
  Listeners,
  lengthOf,
  monotonicNow,
  PantalaError,
  throwIfAborted,
} from '@pantala/base';
import type { ReadOptions, Urgency } from '../contract.ts';
import type { ChunkHolder } from './chunk-index.ts';
import type { ChunkLayout } from './chunk-layout.ts';
import type { BlobAccess, CacheContext, ReadEvent } from './context.ts';
import type { FilledFile } from './filled-file.ts';
import { type Piece, planPiece } from './piece.ts';
import { PieceFetch } from './piece-fetch.ts';
import { ReadAhead } from './read-ahead.ts';

/** Stored bytes of one request at most where the mount does not say. */
const PIECE_LENGTH = 1024 * 1024;
/** Stored bytes between two groups that are fetched rather than asked around: a request costs as much. */
const GAP = 8 * 1024;
/** Pieces of one read under way at once. */
const LANES = 8;
/** Milliseconds that a reader waits for what a prefetch fetches already, before it fetches that itself. */
const OVERTAKE_AFTER = 400;
/** Milliseconds that a prefetch of one piece may take. */
const PREFETCH_DEADLINE = 120_000;

/** A group of chunks that is being fetched. */
interface Flight {
  readonly done: Deferred;
  readonly urgency: Urgency;
  /** Whether the read that began it asked for it, or it is only fetched along. */
  readonly wanted: boolean;
  /** Whether a reader waits for it by now. */
  awaited: boolean;
  /** By the monotonic clock. */
  readonly startedAt: number;
}

/** A blob's cache file and the fetches that fill it; mounts that have the blob share it. */
export class CachedBlob implements ChunkHolder {
  readonly layout: ChunkLayout;
  readonly file: FilledFile;
  /** What was read by demand, through whichever mount. */
  readonly reads = new Listeners<ReadEvent>();
  readonly #context: CacheContext;
  readonly #flights = new Map<number, Flight>();
  readonly #readAhead = new ReadAhead();
  readonly #pieces = new Set<Promise<void>>();
  /** Copies out of the file that are under way. */
  readonly #loans = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  readonly #completed = new Deferred();

  constructor(layout: ChunkLayout, file: FilledFile, context: CacheContext) {
    this.layout = layout;
    this.file = file;
    this.#context = context;
    this.#noteCompletion();
  }

  get complete(): boolean {
    return this.file.complete;
  }

  get completed(): Promise<void> {
    return this.#completed.promise;
  }

  get descriptor(): number {
    return this.file.descriptor;
  }

  holds(chunk: number): boolean {
    return this.file.held.has(chunk);
  }

  lend(): Disposable | undefined {
    if (this.#closing.signal.aborted) return undefined;
    const given = new Deferred();
    this.#loans.add(given.promise);
    return {
      [Symbol.dispose]: () => {
        this.#loans.delete(given.promise);
        given.resolve();
      },
    };
  }

  nextMissing(offset: number): number | undefined {
    const { first } = this.layout.touching({ start: offset, end: this.layout.size });
    const chunk = this.file.held.next(false, first);
    return chunk < this.layout.chunkCount && offset < this.layout.size ? this.layout.rangeOf(chunk).start : undefined;
  }

  /** See `LazyBlob.ensure`. */
  async ensure(access: BlobAccess, range: ByteRange, options: ReadOptions): Promise<void> {
    throwIfAborted(options.signal);
    throwIfAborted(this.#closing.signal);
    if (range.start < 0 || range.end > this.layout.size || range.start > range.end) {
      throw new PantalaError(
        'out-of-range',
        `bytes ${range.start} to ${range.end} of blob ${this.layout.blobId}, which has ${this.layout.size}`,
      );
    }
    const run = this.layout.touching(range);
    const lacking = this.#lacking(run);
    if (options.urgency === 'demand') await this.#read(access, range, run, lacking, options.signal);
    else if (lacking > 0) await this.#prefetch(access, run, options.signal);
  }

  /** See `LazyBlob.countHit`. */
  countHit(range: ByteRange): void {
    this.#count('all');
    this.reads.emit({ blobId: this.layout.blobId, range, held: 'all', milliseconds: 0, failed: false });
  }

  #count(held: ReadEvent['held']): void {
    const { counters, metrics } = this.#context;
    counters.total++;
    if (held === 'all') counters.wholeHits++;
    else if (held === 'some') counters.partialHits++;
    metrics.reads.add(1, { held });
  }

  async #prefetch(access: BlobAccess, run: BlockRun, signal: AbortSignal): Promise<void> {
    const { counters } = this.#context;
    using scope = new AbortScope([signal, this.#closing.signal]);
    const began = monotonicNow();
    counters.prefetchLanes++;
    counters.firstPrefetchAt ||= Date.now();
    try {
      await this.#fill(access, run, { urgency: 'prefetch', signal: scope.signal });
    } finally {
      counters.prefetchLanes--;
      counters.lastPrefetchAt = Date.now();
      counters.prefetchMilliseconds += monotonicNow() - began;
    }
  }

  async #read(
    access: BlobAccess,
    range: ByteRange,
    run: BlockRun,
    lacking: number,
    signal: AbortSignal,
  ): Promise<void> {
    const { demand, metrics, options } = this.#context;
    const held = lacking === 0 ? 'all' : lacking < run.count ? 'some' : 'none';
    this.#count(held);
    const began = monotonicNow();
    let failed = true;
    try {
      if (lacking > 0) {
        using scope = new AbortScope([signal, this.#closing.signal], {
          timeout: options.demandDeadline,
          what: `reading bytes ${range.start} to ${range.end} of blob ${this.layout.blobId}`,
        });
        using _ = demand.enter();
        await this.#fill(access, run, { urgency: 'demand', signal: scope.signal });
      }
      failed = false;
    } catch (error) {
      metrics.failures.add(1, { code: PantalaError.from(error).code });
      throw error;
    } finally {
      const milliseconds = monotonicNow() - began;
      if (lacking > 0) metrics.wait.observe(milliseconds / 1000);
      this.reads.emit({ blobId: this.layout.blobId, range, held, milliseconds, failed });
    }
  }

  #lacking(run: BlockRun): number {
    let lacking = 0;
    for (const { count } of this.file.held.runs(false, run)) lacking += count;
    return lacking;
  }

  async #fill(access: BlobAccess, run: BlockRun, options: ReadOptions): Promise<void> {
    const { held } = this.file;
    const end = run.first + run.count;
    const lanes = new Set<Promise<void>>();
    const cameAt = monotonicNow();
    let failure: unknown;
    for (let chunk = held.next(false, run.first, end); chunk < end && failure === undefined; ) {
      if (options.urgency === 'prefetch') {
        await this.#giveWay(access, chunk, options.signal);
        if (held.has(chunk)) {
          chunk = held.next(false, chunk, end);
          continue;
        }
      }
      const group = this.layout.groupOf(chunk);
      const flight = this.#flights.get(group);
      const groups = flight === undefined ? this.#launch(access, group, end, options.urgency) : [group];
      const lane = this.#arrival(access, groups, cameAt, options)
        .catch((error: unknown) => {
          failure ??= error;
        })
        .finally(() => lanes.delete(lane));
      lanes.add(lane);
      if (lanes.size >= LANES || options.urgency === 'prefetch') await Promise.race(lanes);
      const last = this.layout.group(groups.at(-1) as number);
      chunk = held.next(false, Math.min(end, last.first + last.count), end);
    }
    await Promise.all(lanes);
    if (failure !== undefined) throw failure;
  }

  /** Waits until no reader does, and until the bytes of the next piece may be had. */
  async #giveWay(access: BlobAccess, chunk: number, signal: AbortSignal): Promise<void> {
    await this.#context.demand.quiet(signal);
    if (access.prefetchLimiter === undefined) return;
    const piece = this.#plan(access, this.layout.groupOf(chunk), chunk, 'prefetch');
    await access.prefetchLimiter.acquire(lengthOf(piece.stored), signal);
    await this.#context.demand.quiet(signal);
  }

  #plan(access: BlobAccess, group: number, wantedEnd: number, urgency: Urgency): Piece {
    const length = access.pieceLength ?? PIECE_LENGTH;
    const along = urgency === 'demand' ? this.#readAhead.lengthAt(group, length) : length;
    return planPiece(this.layout, group, { length, along, wantedEnd, gap: GAP }, (other) => this.#isFree(other));
  }

  #isFree(group: number): boolean {
    const { first, count } = this.layout.group(group);
    return !this.#flights.has(group) && !this.file.held.hasAll({ first, count });
  }

  /** Starts fetching a group and what is near it. Returns the groups of it that begin before chunk `end`. */
  #launch(access: BlobAccess, group: number, end: number, urgency: Urgency): number[] {
    const { groups, stored } = this.#plan(access, group, end, urgency);
    if (urgency === 'demand') this.#readAhead.begun(group, (groups.at(-1) as number) + 1, lengthOf(stored));
    const wanted = groups.filter((each) => each === group || this.layout.group(each).first < end);
    const flights = new Map<number, Flight>();
    for (const each of groups) {
      const isWanted = wanted.includes(each);
      const awaited = isWanted && urgency === 'demand';
      const flight = { done: new Deferred(), urgency, wanted: isWanted, awaited, startedAt: monotonicNow() };
      flights.set(each, flight);
      this.#flights.set(each, flight);
    }
    const piece = this.#fetch(access, groups, flights, urgency).finally(() => this.#pieces.delete(piece));
    this.#pieces.add(piece);
    return wanted;
  }

  async #fetch(
    access: BlobAccess,
    groups: readonly number[],
    flights: ReadonlyMap<number, Flight>,
    urgency: Urgency,
  ): Promise<void> {
    using scope = new AbortScope([this.#closing.signal], {
      timeout: urgency === 'demand' ? this.#context.options.demandDeadline : PREFETCH_DEADLINE,
      what: `fetching a part of blob ${this.layout.blobId}`,
    });
    const forget = (group: number) => {
      if (this.#flights.get(group) === flights.get(group)) this.#flights.delete(group);
    };
    const fetch = new PieceFetch({
      layout: this.layout,
      file: this.file,
      holder: this,
      context: this.#context,
      fetcher: access.fetcher,
      gap: GAP,
      urgency,
      signal: scope.signal,
      isWanted: (group) => flights.get(group)?.wanted === true,
      isAwaited: (group) => flights.get(group)?.awaited === true,
      answered: (latency, bytes, duration) => {
        if (urgency === 'demand') this.#readAhead.ended(latency, bytes, duration);
      },
      settled: (group, error) => {
        forget(group);
        const done = flights.get(group)?.done;
        if (error === undefined) done?.resolve();
        else done?.reject(error);
        this.#noteCompletion();
      },
    });
    await fetch.run(groups);
    for (const [group, { done }] of flights) {
      forget(group);
      if (!done.settled) done.reject(new PantalaError('internal', 'a fetch ended without a result'));
    }
  }

  /** Resolves when the groups' chunks are there, whoever fetches them. */
  async #arrival(access: BlobAccess, groups: readonly number[], cameAt: number, options: ReadOptions): Promise<void> {
    await Promise.all(groups.map((group) => this.#groupArrival(access, group, cameAt, options)));
  }

  async #groupArrival(access: BlobAccess, group: number, cameAt: number, options: ReadOptions): Promise<void> {
    const { first, count } = this.layout.group(group);
    const isThere = () => this.file.held.hasAll({ first, count });
    for (let flight = this.#flights.get(group); !isThere(); flight = this.#flights.get(group)) {
      throwIfAborted(options.signal);
      if (flight === undefined) {
        this.#launch(access, group, first + count, options.urgency);
        continue;
      }
      if (options.urgency === 'demand') flight.awaited = true;
      const behindPrefetch = options.urgency === 'demand' && flight.urgency === 'prefetch';
      using patience = new AbortScope([options.signal], behindPrefetch ? { timeout: OVERTAKE_AFTER } : {});
      try {
        await abortable(flight.done.promise, patience.signal);
      } catch (error) {
        throwIfAborted(options.signal);
        // What was only fetched along, prefetched, or begun before may have been given up for reasons of its own.
        if (flight.wanted && !behindPrefetch && flight.startedAt >= cameAt) throw error;
        if (this.#flights.get(group) === flight) this.#flights.delete(group);
      }
    }
  }

  #noteCompletion(): void {
    if (this.complete && !this.#completed.settled) {
      this.#completed.resolve();
      // From here on nothing is written any more: what a power loss could take is brought to the disk once.
      void this.file.makeDurable().catch((error: unknown) => {
        this.#context.logger.warn('a complete blob could not be synced', {
          blob: this.layout.blobId,
          error: PantalaError.from(error).message,
        });
      });
    }
  }

  /** Breaks off what is under way, and closes the file. */
  async close(): Promise<void> {
    this.#closing.abort(new PantalaError('cancelled', `blob ${this.layout.blobId} is closed`));
    await Promise.allSettled([...this.#pieces, ...this.#loans]);
    await this.file.close();
  }
}
