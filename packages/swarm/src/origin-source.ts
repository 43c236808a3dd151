import { type BlockRun, PantalaError, Semaphore } from '@pantala/base';
import { fetchFromOrigin, type OriginFetchTarget } from './origin-fetch.ts';
import type { Selection } from './selection/selection.ts';

/** Requests that one task has at its origin at once: a reader's parallel ranges, without a storm. */
export const MAX_ORIGIN_REQUESTS = 8;
/** Blocks ahead of a stream that nobody else is to be asked for: 8 MiB, about a parent's budget. */
const CLAIMED_AHEAD = 512;

export interface OriginSourceOptions extends Omit<OriginFetchTarget, 'goOn'> {
  /** Whether the origin answers ranges; if not, one stream from the beginning serves everybody. */
  readonly ranges: boolean;
  readonly selection: Selection;
  /** A fetch is over, by an error or not. */
  ended(error: PantalaError | undefined): void;
  readonly signal: AbortSignal;
}

/** The origin as one task's source: small runs that somebody waits for, and one stream through all that is missing. */
export class OriginSource {
  readonly #options: OriginSourceOptions;
  readonly #permits = new Semaphore(MAX_ORIGIN_REQUESTS);
  readonly #working = new Set<Promise<void>>();
  #wanted: BlockRun | undefined;
  #streaming: AbortController | undefined;

  constructor(options: OriginSourceOptions) {
    this.#options = options;
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
      this.stream({ first: 0, count: run.first + run.count });
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

  /** Streams everything of `wanted` that is missing and that nobody else fetches; once at a time. */
  stream(wanted: BlockRun): void {
    this.#wanted = wanted;
    if (this.#streaming !== undefined) return;
    const [gap] = this.#options.selection.missing(wanted);
    if (gap === undefined) return;
    const stop = new AbortController();
    this.#streaming = stop;
    this.#run(
      this.#streamGaps(stop.signal).finally(() => {
        this.#streaming = undefined;
      }),
    );
  }

  stopStream(): void {
    this.#streaming?.abort(new PantalaError('cancelled', 'nobody wants the rest'));
  }

  /** Resolves when nothing is under way any more. */
  async settled(): Promise<void> {
    while (this.#working.size > 0) await Promise.all(this.#working);
  }

  async #fetchOne(run: BlockRun): Promise<void> {
    const { signal } = this.#options;
    using _permit = await this.#permits.acquire(signal);
    await fetchFromOrigin({ ...this.#options, goOn: () => true }, run, signal);
  }

  async #streamGaps(stop: AbortSignal): Promise<void> {
    const { selection, ranges } = this.#options;
    const signal = AbortSignal.any([this.#options.signal, stop]);
    while (!signal.aborted && this.#wanted !== undefined) {
      const [gap] = selection.missing(this.#wanted);
      if (gap === undefined) return;
      const end = gap.first + gap.count;
      const run = ranges ? gap : { first: gap.first, count: this.#wanted.first + this.#wanted.count - gap.first };
      const claim = { first: gap.first, count: 0 };
      const goOn = (next: number): boolean => {
        let claimed = claim.first + claim.count;
        if (!ranges) claimed = Math.max(claimed, next);
        const limit = Math.min(run.first + run.count, next + CLAIMED_AHEAD);
        if (claimed < limit) {
          const [free] = selection.missing({ first: claimed, count: limit - claimed });
          if (free?.first === claimed) {
            selection.take(free);
            claimed += free.count;
          }
        }
        claim.count = claimed - claim.first;
        return ranges ? next < claimed : next < run.first + run.count;
      };
      goOn(gap.first);
      try {
        await fetchFromOrigin({ ...this.#options, goOn }, run, signal);
      } finally {
        selection.release({ first: claim.first, count: Math.min(claim.count, end - claim.first) });
      }
    }
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
