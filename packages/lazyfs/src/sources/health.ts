import { AbortScope, monotonicNow } from '@pantala/base';

/** Milliseconds that a question whether a source lives may take. */
const PING_LIMIT = 2_000;
/** Milliseconds for which a source that was silent is left out: the first time, and at most. */
const FIRST_PENALTY = 1_000;
const LONGEST_PENALTY = 60_000;
/** Milliseconds of silence after which another source is asked as well: at least, and at most. */
const LEAST_PATIENCE = 400;
const MOST_PATIENCE = 5_000;
/** How much the last first byte counts in the usual one. */
const WEIGHT = 0.2;

export interface HealthOptions {
  /** Failures in a row after which the source is left out; infinite for the one that is never left out. */
  readonly failureLimit: number;
  /** Milliseconds between two pings of a source that is left out. */
  readonly interval: number;
  /** Rejects when the source does not live. Without it the source is tried again after `interval`. */
  readonly ping?: (signal: AbortSignal) => Promise<void>;
}

/**
 * Whether a source is worth asking. One that fails again and again, or was silent, is left out until it answers a
 * question that no reader waits for; one that is silent although it answers such questions is left out longer each time.
 */
export class SourceHealth implements Disposable {
  readonly #options: HealthOptions;
  #failures = 0;
  #penalty = 0;
  #notBefore = 0;
  #down = false;
  #usual: number | undefined;
  #timer: NodeJS.Timeout | undefined;
  #disposed = false;

  constructor(options: HealthOptions) {
    this.#options = options;
  }

  get usable(): boolean {
    return !this.#down;
  }

  /** Milliseconds of silence that it is granted. */
  get patience(): number {
    return Math.min(MOST_PATIENCE, Math.max(LEAST_PATIENCE, (this.#usual ?? 0) * 4));
  }

  /** @param firstSign milliseconds until its first byte */
  succeeded(firstSign: number): void {
    this.#usual = this.#usual === undefined ? firstSign : this.#usual * (1 - WEIGHT) + firstSign * WEIGHT;
    this.#failures = 0;
    this.#penalty = 0;
    this.#up();
  }

  failed(): void {
    this.#failures++;
    if (this.#failures >= this.#options.failureLimit) this.#leaveOut(0);
  }

  silent(): void {
    this.#penalty = Math.min(LONGEST_PENALTY, Math.max(FIRST_PENALTY, this.#penalty * 2));
    this.#leaveOut(this.#penalty);
  }

  #leaveOut(atLeast: number): void {
    this.#notBefore = Math.max(this.#notBefore, monotonicNow() + atLeast);
    if (this.#down || this.#disposed || this.#options.failureLimit === Number.POSITIVE_INFINITY) return;
    this.#down = true;
    this.#schedule();
  }

  #schedule(): void {
    const delay = Math.max(this.#options.interval, this.#notBefore - monotonicNow());
    this.#timer = setTimeout(() => void this.#ping(), delay).unref();
  }

  async #ping(): Promise<void> {
    using scope = new AbortScope([], { timeout: PING_LIMIT, what: 'a ping' });
    try {
      await this.#options.ping?.(scope.signal);
      this.#failures = 0;
      this.#up();
    } catch {
      if (!this.#disposed && this.#down) this.#schedule();
    }
  }

  #up(): void {
    clearTimeout(this.#timer);
    this.#down = false;
  }

  [Symbol.dispose](): void {
    this.#disposed = true;
    clearTimeout(this.#timer);
  }
}
