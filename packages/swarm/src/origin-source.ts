import { type BlockRun, type ByteRange, monotonicNow, PantalaError, Semaphore } from '@pantala/base';
import type { OriginBody, OriginRequest } from '@pantala/transfer';
import { fetchFromOrigin, type OriginFetchTarget } from './origin-fetch.ts';
import type { Selection } from './selection/selection.ts';
import { UNIT_BLOCKS } from './selection/units.ts';

/** Requests that one task has at its origin at once: a reader's parallel ranges, without a storm. */
export const MAX_ORIGIN_REQUESTS = 8;
/** Blocks ahead of a stream that nobody else is to be asked for: 8 MiB, about a parent's budget. */
const CLAIMED_AHEAD = 512;

/** Milliseconds between two searches for what no parent can give, once there was nothing. */
const SPARING_PAUSE = 100;

/**
 * Blocks that a stream reads although somebody else has or fetches them: to break off and to ask anew costs about as
 * much, as what the origin has already sent is lost.
 */
const SKIPPED_BLOCKS = 64;

export interface OriginSourceOptions extends Omit<OriginFetchTarget, 'goOn' | 'gather'> {
  /** Whether the origin answers ranges; if not, one stream from the beginning serves everybody. */
  readonly ranges: boolean;
  readonly selection: Selection;
  /** Bytes that the origin sends already: the first fetch takes them if it begins with them. */
  readonly begun: OriginBody | undefined;
  /** A fetch is over, by an error or not. */
  ended(error: PantalaError | undefined): void;
  readonly signal: AbortSignal;
}

/** The origin as one task's source: small runs that somebody waits for, and one stream through all that is missing. */
export class OriginSource {
  readonly #options: OriginSourceOptions;
  readonly #origin: OriginSourceOptions['origin'];
  #begun: OriginBody | undefined;
  readonly #permits = new Semaphore(MAX_ORIGIN_REQUESTS);
  readonly #working = new Set<Promise<void>>();
  #wanted: BlockRun | undefined;
  /** Whether a stream leaves out what parents can give. */
  #sparing = false;
  /** Milliseconds (monotonic) at which a sparing stream had last nothing to do: the search costs something. */
  #idleSince = Number.NEGATIVE_INFINITY;
  #streaming: AbortController | undefined;
  /** The stream that somebody waits for. */
  #awaited: AbortController | undefined;

  constructor(options: OriginSourceOptions) {
    this.#options = { ...options, origin: { fetch: (request) => this.#open(request) } };
    this.#origin = options.origin;
    this.#begun = options.begun;
  }

  get busy(): boolean {
    return this.#working.size > 0;
  }

  get streaming(): boolean {
    return this.#streaming !== undefined;
  }

  /** Fetches a run of blocks that somebody waits for. */
  fetch(run: BlockRun): void {
    if (!this.#options.ranges) {
      // A silent parent may have been asked for it. And as everything before it comes again each time, the stream goes
      // on for as long as anybody wants anything.
      if (this.#streaming === undefined) this.#options.selection.release(run);
      this.stream({ first: 0, count: this.#options.geometry.blockCount });
      this.#awaited = this.#streaming;
      return;
    }
    const { selection } = this.#options;
    // What a silent parent was asked for stays asked of it.
    const free = [...selection.missing(run)];
    selection.take(run);
    this.#run(
      this.#fetchOne(run).finally(() => {
        for (const part of free) selection.release(part);
      }),
    );
  }

  /**
   * Streams everything of `wanted` that is missing and that nobody else fetches; once at a time.
   *
   * @param sparing leaves out what parents can give, where the origin answers ranges
   */
  stream(wanted: BlockRun, sparing = false): void {
    this.#wanted = wanted;
    this.#sparing = sparing && this.#options.ranges;
    if (this.#streaming !== undefined) return;
    const now = monotonicNow();
    if (this.#sparing && now - this.#idleSince < SPARING_PAUSE) return;
    const [gap] = this.#missing(wanted);
    this.#idleSince = gap === undefined ? now : Number.NEGATIVE_INFINITY;
    if (gap === undefined) return;
    const stop = new AbortController();
    this.#streaming = stop;
    this.#run(
      this.#streamGaps(stop.signal).finally(() => {
        this.#streaming = undefined;
      }),
    );
  }

  /** Others are to bring the rest: ends the stream, unless it is the only way to what somebody waits for. */
  yieldToOthers(): void {
    if (this.#awaited === undefined || this.#awaited !== this.#streaming) this.stopStream();
  }

  stopStream(): void {
    this.#streaming?.abort(new PantalaError('cancelled', 'nobody wants the rest'));
  }

  /** Resolves when nothing is under way any more. */
  async settled(): Promise<void> {
    await this.#dropBegun();
    while (this.#working.size > 0) await Promise.all(this.#working);
  }

  /** The body of a range: the one that was begun, if it is that. */
  async #open(request: OriginRequest & { readonly range?: ByteRange }): Promise<OriginBody> {
    const begun = this.#begun;
    const { range } = request;
    if (begun !== undefined && begun.range.start === range?.start && begun.range.end === range.end) {
      this.#begun = undefined;
      return begun;
    }
    await this.#dropBegun();
    return await this.#origin.fetch(request);
  }

  /** Nobody reads it. */
  async #dropBegun(): Promise<void> {
    const begun = this.#begun;
    this.#begun = undefined;
    await begun?.[Symbol.asyncDispose]();
  }

  async #fetchOne(run: BlockRun): Promise<void> {
    const { signal } = this.#options;
    using _permit = await this.#permits.acquire(signal);
    // A reader of so little gets all of it at once: to store it as it comes would only cost more.
    const gather = run.count <= UNIT_BLOCKS;
    await fetchFromOrigin({ ...this.#options, goOn: () => true, gather }, run, signal);
  }

  async #streamGaps(stop: AbortSignal): Promise<void> {
    const { selection, ranges } = this.#options;
    const missing = (wanted: BlockRun): Generator<BlockRun> => this.#missing(wanted);
    const signal = AbortSignal.any([this.#options.signal, stop]);
    while (!signal.aborted && this.#wanted !== undefined) {
      const [gap] = missing(this.#wanted);
      if (gap === undefined) return;
      const end = this.#wanted.first + this.#wanted.count;
      const skipped = ranges ? SKIPPED_BLOCKS : Number.POSITIVE_INFINITY;
      const claim = new Claim(selection, missing, { first: gap.first, count: end - gap.first }, skipped);
      try {
        const run = { first: gap.first, count: claim.endOfStream() - gap.first };
        await fetchFromOrigin({ ...this.#options, goOn: (next) => claim.extend(next), gather: true }, run, signal);
      } finally {
        claim.release();
      }
    }
  }

  #missing(wanted: BlockRun): Generator<BlockRun> {
    const { selection } = this.#options;
    return this.#sparing ? selection.unoffered(wanted) : selection.missing(wanted);
  }

  #run(work: Promise<void>): void {
    const settled = work
      .then(
        () => undefined,
        (error: unknown) => PantalaError.from(error),
      )
      .then((error) => {
        this.#working.delete(settled);
        this.#options.ended(error);
      });
    this.#working.add(settled);
  }
}

/** The blocks that a stream brings, taken a window ahead of it so that nobody else is asked for them. */
class Claim {
  readonly #selection: Selection;
  /** What of a run is the stream's to bring. */
  readonly #missing: (wanted: BlockRun) => Generator<BlockRun>;
  readonly #end: number;
  /** Longest run of others' blocks that is read all the same. */
  readonly #skipped: number;
  readonly #taken: BlockRun[] = [];
  #claimed: number;

  constructor(
    selection: Selection,
    missing: (wanted: BlockRun) => Generator<BlockRun>,
    { first, count }: BlockRun,
    skipped: number,
  ) {
    this.#selection = selection;
    this.#missing = missing;
    this.#claimed = first;
    this.#end = first + count;
    this.#skipped = skipped;
    this.extend(first);
  }

  /** Where the stream will end as things stand: before the next long run of others' blocks. */
  endOfStream(): number {
    let at = this.#claimed;
    for (const free of this.#missing({ first: at, count: this.#end - at })) {
      if (free.first - at > this.#skipped) return at;
      at = free.first + free.count;
    }
    return at;
  }

  /** Claims on as far as a stream at `next` may; false when it is to end there. */
  extend(next: number): boolean {
    const limit = Math.min(this.#end, next + CLAIMED_AHEAD);
    while (this.#claimed < limit) {
      const near = Math.min(this.#end - this.#claimed, this.#skipped + 1);
      const [free] = this.#missing({ first: this.#claimed, count: near });
      if (free === undefined) break;
      const part = { first: free.first, count: Math.min(free.count, Math.max(1, limit - free.first)) };
      this.#selection.take(part);
      this.#taken.push(part);
      this.#claimed = part.first + part.count;
    }
    return next < this.#claimed;
  }

  /** What did not come is missing again. */
  release(): void {
    for (const part of this.#taken) this.#selection.release(part);
  }
}
