import { type BlockRun, type Geometry, lengthOf, type RateLimiter } from '@pantala/base';

/** Blocks of a limited prefetch that are asked for at once: 1 MiB, so that no reader waits behind more. */
export const PREFETCH_STEP = 64;

/** The fetching of a whole task that nobody waits for: as fast as possible, or step by step as a limit allows. */
export class Prefetch {
  readonly #geometry: Geometry;
  readonly #limiter: RateLimiter | undefined;
  readonly #signal: AbortSignal;
  /** A step has been paid. */
  readonly #paid: () => void;
  #step: BlockRun | undefined;

  constructor(geometry: Geometry, limiter: RateLimiter | undefined, signal: AbortSignal, paid: () => void) {
    this.#geometry = geometry;
    this.#limiter = limiter;
    this.#signal = signal;
    this.#paid = paid;
  }

  /**
   * What may be asked for now. A step is paid while it is fetched, and the next one follows when that is done.
   *
   * @param missing what nobody was asked for yet
   */
  allowed(missing: (wanted: BlockRun) => Iterable<BlockRun>): BlockRun {
    const whole = { first: 0, count: this.#geometry.blockCount };
    if (this.#limiter === undefined || this.#step !== undefined) return this.#step ?? whole;
    for (const gap of missing(whole)) {
      const step = { first: gap.first, count: Math.min(gap.count, PREFETCH_STEP) };
      this.#step = step;
      this.#limiter.acquire(lengthOf(this.#geometry.runRange(step)), this.#signal).then(
        () => {
          this.#step = undefined;
          this.#paid();
        },
        // Only an end of the download ends the wait.
        () => undefined,
      );
      return step;
    }
    return { first: 0, count: 0 };
  }
}
