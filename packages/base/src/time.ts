import { PantalaError, throwIfAborted } from './errors.ts';

/** Milliseconds of a clock that never goes back; its zero means nothing. */
export function monotonicNow(): number {
  return performance.now();
}

/** The longest delay that a timer of Node takes (a longer one would fire at once): about 24.8 days. */
export const MAX_TIMER_DELAY = 0x7fff_ffff;

/**
 * Resolves after `milliseconds`.
 *
 * @throws the reason of `signal` as a PantalaError
 */
export async function sleep(milliseconds: number, signal?: AbortSignal): Promise<void> {
  throwIfAborted(signal);
  await new Promise<void>((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(PantalaError.from(signal?.reason));
    };
    const timer = setTimeout(
      () => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      },
      Math.min(Math.max(0, milliseconds), MAX_TIMER_DELAY),
    );
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}

/**
 * Waits for `promise`, but no longer than `signal` allows. The work itself goes on; a later rejection of it is not
 * reported as unhandled.
 *
 * @throws the reason of `signal` as a PantalaError, or what the promise rejects with
 */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  let onAbort: (() => void) | undefined;
  try {
    return await new Promise<T>((resolve, reject) => {
      onAbort = () => reject(PantalaError.from(signal.reason));
      promise.then(resolve, reject);
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort, { once: true });
    });
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}

export interface AbortScopeOptions {
  /** Milliseconds after which the scope aborts with `deadline-exceeded`; none when undefined or infinite. */
  readonly timeout?: number | undefined;
  /** What was to be done in that time; for the message. */
  readonly what?: string;
}

/**
 * A signal that aborts with any of its parents, after a time, or by hand. Disposing it lets go of the timer and of
 * the parents, which `AbortSignal.any` and `AbortSignal.timeout` keep until they are collected.
 */
export class AbortScope implements Disposable {
  readonly #controller = new AbortController();
  readonly #parents: readonly AbortSignal[];
  readonly #onParent: (this: AbortSignal) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(parents: Iterable<AbortSignal | undefined>, options: AbortScopeOptions = {}) {
    this.#parents = [...parents].filter((parent) => parent !== undefined);
    const abort = this.abort.bind(this);
    this.#onParent = function onParent() {
      abort(this.reason);
    };
    for (const parent of this.#parents) {
      if (parent.aborted) {
        this.abort(parent.reason);
        return;
      }
      parent.addEventListener('abort', this.#onParent, { once: true });
    }
    const { timeout, what = 'the operation' } = options;
    if (timeout === undefined || timeout > MAX_TIMER_DELAY) return;
    this.#timer = setTimeout(() => {
      this.abort(new PantalaError('deadline-exceeded', `${what} took longer than ${Math.round(timeout)} ms`));
    }, timeout);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  abort(reason: unknown = new PantalaError('cancelled', 'cancelled')): void {
    this[Symbol.dispose]();
    this.#controller.abort(reason);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    for (const parent of this.#parents) parent.removeEventListener('abort', this.#onParent);
  }
}
