import { PantalaError, throwIfAborted } from './errors.ts';
import { MAX_TIMER_DELAY, monotonicNow } from './time.ts';

/** Something that is had at a limited rate: bytes, requests. */
export interface RateLimiter {
  /**
   * Resolves when `tokens` may be used. First come, first served.
   *
   * @throws the reason of `signal` as a PantalaError
   */
  acquire(tokens: number, signal?: AbortSignal): Promise<void>;
  /** Takes the tokens at once, all or none; more than the bucket holds are never there at once. */
  tryAcquire(tokens: number): boolean;
}

export const unlimited: RateLimiter = {
  acquire: async (_tokens, signal) => throwIfAborted(signal),
  tryAcquire: () => true,
};

export interface TokenBucketOptions {
  /** Tokens a second. */
  readonly rate: number;
  /** Tokens that may be used at once after a pause. Default: those of 100 ms, at least one. */
  readonly burst?: number;
  /** A limit that holds for several buckets together, on top of each one's own. */
  readonly parent?: RateLimiter;
}

interface Waiter {
  missing: number;
  readonly signal: AbortSignal | undefined;
  readonly grant: () => void;
}

/** A bucket that fills at `rate` up to `burst`. Requests larger than the bucket are paid in parts, as it fills. */
export class TokenBucket implements RateLimiter {
  readonly rate: number;
  readonly burst: number;
  readonly #parent: RateLimiter | undefined;
  readonly #queue = new Set<Waiter>();
  #tokens: number;
  #filledAt = monotonicNow();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: TokenBucketOptions) {
    if (!(options.rate > 0)) throw new PantalaError('invalid-argument', `rate ${options.rate} is not above zero`);
    this.rate = options.rate;
    this.burst = options.burst ?? Math.max(1, options.rate / 10);
    this.#parent = options.parent;
    this.#tokens = this.burst;
  }

  tryAcquire(tokens: number): boolean {
    this.#fill();
    if (this.#queue.size > 0 || this.#tokens < tokens) return false;
    if (this.#parent !== undefined && !this.#parent.tryAcquire(tokens)) return false;
    this.#tokens -= tokens;
    return true;
  }

  async acquire(tokens: number, signal?: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    this.#fill();
    if (this.#queue.size === 0 && this.#tokens >= tokens) this.#tokens -= tokens;
    else await this.#wait(tokens, signal);
    try {
      await this.#parent?.acquire(tokens, signal);
    } catch (error) {
      this.#giveBack(tokens);
      throw error;
    }
  }

  #wait(tokens: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        this.#queue.delete(waiter);
        this.#giveBack(tokens - waiter.missing);
        reject(PantalaError.from(signal?.reason));
      };
      const grant = () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      const waiter: Waiter = { missing: tokens, signal, grant };
      this.#queue.add(waiter);
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#serve();
    });
  }

  #fill(): void {
    const now = monotonicNow();
    this.#tokens = Math.min(this.burst, this.#tokens + ((now - this.#filledAt) * this.rate) / 1000);
    this.#filledAt = now;
  }

  #giveBack(tokens: number): void {
    this.#tokens = Math.min(this.burst, this.#tokens + tokens);
    this.#serve();
  }

  /** Pays the queue's head as far as the bucket goes, and sleeps until the next part is there. */
  #serve(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#fill();
    for (const waiter of this.#queue) {
      const part = Math.min(waiter.missing, this.#tokens);
      this.#tokens -= part;
      waiter.missing -= part;
      if (waiter.missing > 0) {
        const delay = Math.ceil((Math.min(waiter.missing, this.burst) * 1000) / this.rate);
        this.#timer = setTimeout(() => this.#serve(), Math.min(delay, MAX_TIMER_DELAY));
        return;
      }
      this.#queue.delete(waiter);
      waiter.grant();
    }
  }
}
