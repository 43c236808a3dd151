import { PantalaError, throwIfAborted } from './errors.ts';

/** At most `limit` holders at once; the others wait in order of their coming. */
export class Semaphore {
  readonly limit: number;
  readonly #waiting = new Set<() => void>();
  #held = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  get held(): number {
    return this.#held;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  /** A permit at once, or undefined. */
  tryAcquire(): Disposable | undefined {
    if (this.#held >= this.limit || this.#waiting.size > 0) return undefined;
    this.#held++;
    return this.#permit();
  }

  /**
   * Resolves with a permit that is given back by disposing it.
   *
   * @throws the reason of `signal` as a PantalaError
   */
  async acquire(signal?: AbortSignal): Promise<Disposable> {
    throwIfAborted(signal);
    const free = this.tryAcquire();
    if (free !== undefined) return free;
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => {
        this.#waiting.delete(grant);
        reject(PantalaError.from(signal?.reason));
      };
      const grant = () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      };
      this.#waiting.add(grant);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
    return this.#permit();
  }

  #permit(): Disposable {
    let given = true;
    return {
      [Symbol.dispose]: () => {
        if (!given) return;
        given = false;
        this.#release();
      },
    };
  }

  /** A permit that comes back goes to the first in the queue without being free in between. */
  #release(): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#held--;
      return;
    }
    this.#waiting.delete(next);
    next();
  }
}
